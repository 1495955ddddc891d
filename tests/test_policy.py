from dataclasses import replace

import pytest
import torch
from conftest import random_model
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils import is_flash_attn_2_available

from riskpo_study import policy as policy_module
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.policy import Policy, Responses


def make_responses(questions=4, group=3, longest=6, seed=0, vocabulary=25):
    generator = torch.Generator().manual_seed(seed)
    prompts = tuple(
        tuple(torch.randint(3, vocabulary, (length,), generator=generator).tolist())
        for length in torch.randint(1, 7, (questions,), generator=generator).tolist()
    )
    tokens = torch.randint(3, vocabulary, (questions, group, longest), generator=generator)
    lengths = torch.randint(1, longest + 1, (questions, group), generator=generator)
    return Responses(prompts, tokens, lengths)


def one_at_a_time(model, responses, temperature):
    """Log-probabilities and entropies from one plain forward pass a response."""
    log_probs = torch.zeros(responses.tokens.shape)
    entropies = torch.zeros(responses.tokens.shape)
    for q, prompt in enumerate(responses.prompts):
        for g, length in enumerate(responses.lengths[q].tolist()):
            tokens = responses.tokens[q, g, :length]
            ids = torch.cat([torch.tensor(prompt), tokens]).unsqueeze(0)
            log_p = (model(ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
            log_probs[q, g, :length] = log_p[torch.arange(length), tokens]
            entropies[q, g, :length] = -(log_p.exp() * log_p).sum(-1)
    return log_probs, entropies


@pytest.mark.parametrize("layout", ["prefix_tree", "padded", "packed"])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_scores_equal_one_forward_pass_a_response(policy, layout, temperature):
    responses = make_responses()
    scores = Policy(policy.model, policy.tokenizer, layout).score(responses, temperature)
    log_probs, entropies = one_at_a_time(policy.model, responses, temperature)
    torch.testing.assert_close(scores.log_probs, log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropies, entropies, atol=1e-5, rtol=1e-5)


def test_layouts_give_the_same_gradients(policy):
    responses = make_responses(seed=1)
    gradients = {}
    for layout in ("prefix_tree", "padded", "packed"):
        policy.model.zero_grad()
        Policy(policy.model, policy.tokenizer, layout).score(responses).log_probs.square().sum().backward()
        gradients[layout] = [parameter.grad.clone() for parameter in policy.model.parameters()]
    for layout in ("padded", "packed"):
        for ours, theirs in zip(gradients["prefix_tree"], gradients[layout], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_checkpointing_gives_the_same_gradients_and_leaves_the_model_in_evaluation_mode(policy):
    responses = make_responses(seed=5)
    gradients = []
    for checkpointing in (False, True):
        policy.model.zero_grad()
        scored = Policy(policy.model, policy.tokenizer, checkpointing=checkpointing).score(responses)
        scored.log_probs.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in policy.model.parameters()])
        assert not policy.model.training
    assert all(layer.gradient_checkpointing for layer in policy.model.model.layers)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_checkpointing_refuses_dropout(policy):
    policy.model.config.attention_dropout = 0.1
    with pytest.raises(ConfigError, match="Qwen2ForCausalLM has attention_dropout = 0.1.*gradient_checkpointing"):
        Policy(policy.model, policy.tokenizer, checkpointing=True)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 30))
def test_packed_passes_fit_and_leave_nothing_out(lengths, tokens):
    """As many neighbours as fit; a question that does not fit at all has a pass of its own."""
    responses = Responses(
        ((1, 2),) * len(lengths), torch.zeros(len(lengths), 1, 9).long(), torch.tensor(lengths)[:, None]
    )
    packed = Policy.__new__(Policy)
    packed.layout, packed.tokens = "packed", tokens
    passes = packed.passes(responses, torch.arange(len(lengths)), questions=3)
    assert torch.cat(passes).tolist() == list(range(len(lengths)))
    sizes = [sum(lengths[row] + 2 for row in one.tolist()) for one in passes]
    assert all(size <= tokens or len(one) == 1 for size, one in zip(sizes, passes, strict=True))
    following = [lengths[one[0]] + 2 for one in passes[1:]]
    assert all(size + more > tokens for size, more in zip(sizes, following, strict=False))


def test_messages_go_through_the_chat_template(policy):
    messages = [{"role": "user", "content": "2 3 = 5 :"}]
    with pytest.raises(ConfigError, match="has no chat template"):
        policy.encode([messages])
    policy.tokenizer.chat_template = (
        "{% for m in messages %}= {{ m.content }}{% endfor %}{% if add_generation_prompt %} ({% endif %}"
    )
    assert policy.encode([messages, "2"]) == policy.encode(["= 2 3 = 5 : (", "2"])


def test_untied_output_layers_are_scored_too(policy):
    tokenizer = policy.tokenizer
    model = random_model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, tied=False)
    responses = make_responses(seed=2)
    scores = Policy(model, tokenizer).score(responses)
    torch.testing.assert_close(scores.log_probs, one_at_a_time(model, responses, 1.0)[0], atol=1e-5, rtol=1e-5)


def test_save_and_load(policy, tmp_path):
    policy.save(tmp_path / "model")
    loaded = Policy.load(tmp_path / "model")
    responses = make_responses(seed=3)
    assert torch.equal(loaded.score(responses).log_probs, policy.score(responses).log_probs)
    assert loaded.encode(["2 3 = 5 :"]) == policy.encode(["2 3 = 5 :"])


def test_encode_and_decode_are_inverse_on_answers(policy):
    (ids,) = policy.encode(["(2 + 3) * 4"])
    tokens = torch.tensor([[[*ids, policy.tokenizer.eos_token_id, 0]]])
    ((text,),) = policy.decode(Responses(((5,),), tokens, torch.tensor([[len(ids) + 1]])))
    assert text.replace(" ", "") == "(2+3)*4"


def test_bad_settings_are_named(policy, tmp_path):
    with pytest.raises(ConfigError, match="layout = 'dense' is unknown; choose one of prefix_tree, padded"):
        Policy(policy.model, policy.tokenizer, "dense")
    with pytest.raises(DataError, match="there is no model in .*nowhere"):
        Policy.load(tmp_path / "nowhere")
    policy.tokenizer.pad_token = None
    with pytest.raises(ConfigError, match="needs both an eos_token and a pad_token"):
        Policy(policy.model, policy.tokenizer)


def test_a_text_is_a_name_of_the_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="huggingface.co"):  # where it is looked for
        Policy.load("nobody/no-such-model")


@pytest.mark.parametrize("attention", ["flash", "flash_attention_2"])
def test_an_attention_that_is_not_here_is_named(policy, settings, tmp_path, attention):
    if attention == "flash_attention_2" and is_flash_attn_2_available():
        pytest.skip("flash-attn is here")
    policy.save(tmp_path / "model")
    with pytest.raises(ConfigError, match=f"hardware.attention = '{attention}' cannot be had for .*: set it to sdpa"):
        Policy.load(tmp_path / "model", hardware=replace(settings.hardware, attention=attention))


def test_a_special_token_inside_a_response_stays_in_its_text(policy):
    """`3 <unk> + 4` must not be read as `3 + 4`."""
    ids = [
        *policy.encode(["3"])[0],
        policy.tokenizer.unk_token_id,
        *policy.encode(["+ 4"])[0],
        policy.tokenizer.eos_token_id,
    ]
    ((text,),) = policy.decode(Responses(((5,),), torch.tensor([[ids]]), torch.tensor([[len(ids)]])))
    assert text.split() == ["3", "<unk>", "+", "4"]


def test_shared_beginnings_are_computed_once(policy):
    """With three tokens to choose from most responses agree for a while; a column for each distinct prefix is left."""
    responses = make_responses(questions=5, group=12, seed=4, vocabulary=6)
    prefixes = [
        {
            tuple(responses.tokens[q, g, : end + 1].tolist())
            for g in range(12)
            for end in range(responses.lengths[q, g] - 1)
        }
        for q in range(5)
    ]
    columns = [len(prompt) + len(distinct) for prompt, distinct in zip(responses.prompts, prefixes, strict=True)]
    batch = policy_module._prefix_tree(responses)
    assert batch.input_ids.shape == (5, max(columns))
    assert (batch.attention_mask[:, 0].diagonal(dim1=1, dim2=2)).all()
    scores = policy.score(responses)
    log_probs, entropies = one_at_a_time(policy.model, responses, 1.0)
    torch.testing.assert_close(scores.log_probs, log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropies, entropies, atol=1e-5, rtol=1e-5)
