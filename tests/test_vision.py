"""Vision-language models: through the policy and the engines, against plain calls of `transformers`."""

import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny_vision
import torch
import yaml
from PIL import Image
from tiny_vision import asked, noise
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from riskpo_study import checkpoints
from riskpo_study.errors import ConfigError, DataError, RunError
from riskpo_study.policy import NOTHING, Policy, Responses
from riskpo_study.rollouts import TransformersEngine
from riskpo_study.vision import EncodedPrompt

LAYOUTS = ["prefix_tree", "padded", "packed"]
PROMPTS = [
    asked(noise(16, 24), "what colour ?"),
    "how many ?",
    asked("red", noise(8, 8, 1), "or", noise(32, 16, 2), "blue"),
    asked("how many green ?"),
    asked(noise(16, 16, 3)),
]


@pytest.fixture
def seeing():
    return tiny_vision.policy()


def in_layout(policy, layout, checkpointing=False):
    return Policy(policy.model, policy.tokenizer, layout, 64, checkpointing, policy.image_processor)


def responses_to(policy, group=3, longest=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    first, vocabulary = len(tiny_vision.SPECIAL), policy.model.config.text_config.vocab_size
    tokens = torch.randint(first, vocabulary, (len(PROMPTS), group, longest), generator=generator)
    tokens[:, 1, :2] = tokens[:, 0, :2]  # a beginning in common
    lengths = torch.randint(2, longest + 1, (len(PROMPTS), group), generator=generator)
    return Responses(policy.encode(PROMPTS), tokens, lengths)


def of_transformers(prompt):
    """What `transformers` wants to have for a prompt's images."""
    if not isinstance(prompt, EncodedPrompt):
        return {}
    return {"pixel_values": prompt.features.pixel_values, "image_grid_thw": prompt.features.grid}


def one_at_a_time(model, responses):
    """Log-probabilities from one plain forward pass a response, the model finding images and positions itself."""
    log_probs = torch.zeros(responses.tokens.shape)
    for q, prompt in enumerate(responses.prompts):
        for g, length in enumerate(responses.lengths[q].tolist()):
            tokens = responses.tokens[q, g, :length]
            ids = torch.cat([torch.tensor(prompt), tokens]).unsqueeze(0)
            kinds = (ids == model.config.image_token_id).int()
            logits = model(input_ids=ids, mm_token_type_ids=kinds, **of_transformers(prompt)).logits
            log_p = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            log_probs[q, g, :length] = log_p[torch.arange(length), tokens]
    return log_probs


def gradients(model):
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_scores_and_gradients_equal_those_of_plain_forward_passes(seeing, layout, checkpointing):
    responses = responses_to(seeing)
    expected = one_at_a_time(seeing.model, responses)
    expected.square().mean().backward()
    of_expected = gradients(seeing.model)
    scored = in_layout(seeing, layout, checkpointing).score(responses).log_probs
    torch.testing.assert_close(scored, expected, atol=1e-5, rtol=1e-5)
    scored.square().mean().backward()
    for name, gradient in gradients(seeing.model).items():
        torch.testing.assert_close(gradient, of_expected[name], atol=1e-5, rtol=1e-4, msg=name)
    seen = [gradient for name, gradient in of_expected.items() if ".visual." in name]
    assert len(seen) > 20 and all(gradient.abs().max() > 0 for gradient in seen)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_token_in_a_response_is_a_word(seeing, layout):
    """As in decoding, where the model is given no image with it."""
    responses = responses_to(seeing)
    responses.tokens[:, 0, 1] = seeing.model.config.image_token_id
    scored = in_layout(seeing, layout).score(responses).log_probs
    for q, prompt in enumerate(responses.prompts):
        tokens = responses.tokens[q, 0, : responses.lengths[q, 0]]
        ids = torch.tensor([prompt])
        kinds = (ids == seeing.model.config.image_token_id).int()
        out = seeing.model(input_ids=ids, mm_token_type_ids=kinds, **of_transformers(prompt), use_cache=True)
        position = len(prompt) + (int(out.rope_deltas) if of_transformers(prompt) else 0)
        for step, token in enumerate(tokens):
            expected = out.logits[0, -1].log_softmax(-1)[token]
            torch.testing.assert_close(scored[q, 0, step], expected, atol=1e-5, rtol=1e-5)
            at = torch.tensor([[position + step]])
            out = seeing.model(input_ids=token.view(1, 1), position_ids=at, past_key_values=out.past_key_values)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_is_computed_once_a_pass(seeing, layout):
    seen = []
    seeing.model.model.visual.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    responses = responses_to(seeing)
    pictured = [prompt for prompt in responses.prompts if isinstance(prompt, EncodedPrompt)]
    for given in (responses, responses.regrouped(1)):
        in_layout(seeing, layout).score(given)
        assert seen.pop() == sum(len(prompt.features.pixel_values) for prompt in pictured) and not seen


def test_log_probs_of_the_sampler_are_those_of_the_policy(seeing):
    prompts = seeing.encode(PROMPTS)
    generation = TransformersEngine(seeing).generate(prompts, 6, 1.3, 8, torch.Generator().manual_seed(0))
    for layout in LAYOUTS:
        scores = in_layout(seeing, layout).score(generation, temperature=1.3)
        torch.testing.assert_close(generation.log_probs, scores.log_probs.detach(), atol=1e-5, rtol=1e-5)
    assert (generation.tokens == seeing.model.config.image_token_id).any()  # which random models do say
    assert all(isinstance(prompt, EncodedPrompt) for prompt in generation.select(torch.tensor([0, 2])).prompts)


def test_what_the_policy_sees_decides_what_it_says(seeing):
    two = seeing.encode([asked(noise(16, 16, seed), "what colour ?") for seed in (0, 1)])
    assert two[0] == two[1]  # the same tokens
    generation = TransformersEngine(seeing).generate(two, 64, 1.0, 1, torch.Generator().manual_seed(0))
    assert generation.log_probs[0].unique().tolist() != generation.log_probs[1].unique().tolist()


def test_save_and_load(seeing, tmp_path):
    seeing.save(tmp_path)
    loaded = Policy.load(tmp_path)
    responses, again = responses_to(seeing), responses_to(loaded)
    assert again.prompts == responses.prompts
    assert torch.equal(loaded.score(again).log_probs, seeing.score(responses).log_probs)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(model.state_dict(), seeing.model.state_dict(), rtol=0, atol=0)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tiny_vision.CHAT
    assert AutoImageProcessor.from_pretrained(tmp_path).patch_size == 4
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match="without its image processor: put its preprocessor_config.json there"):
        Policy.load(tmp_path)


def test_prompts_travel_between_processes_with_their_images(seeing):
    prompts = seeing.encode(PROMPTS)
    arrived = pickle.loads(pickle.dumps(prompts))
    assert arrived == prompts
    for one, other in zip(prompts, arrived, strict=True):
        assert type(one) is type(other)
        if isinstance(one, EncodedPrompt):
            before, after = vars(one.features).copy(), vars(other.features).copy()
            assert before.pop("images") == after.pop("images")
            torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_what_cannot_be_seen_is_named(seeing, base_model):
    image = noise(16, 16)
    blind = Policy.load(base_model)
    blind.tokenizer.chat_template = tiny_vision.CHAT
    with pytest.raises(ConfigError, match="prompt 1 of the batch has an image, and Qwen2ForCausalLM takes none"):
        blind.encode(["2 3 = 5 :", asked(image)])
    with pytest.raises(ConfigError, match="the policy no image processor: load it from a folder"):
        Policy(seeing.model, seeing.tokenizer).encode([asked(image)])
    with pytest.raises(DataError, match="prompt 0 of the batch has 1 images and 2 image tokens"):
        seeing.encode([asked(image, "<|image_pad|>")])
    with pytest.raises(DataError, match="image 0 of prompt 0 of the batch is a PosixPath: open it as a PIL.Image"):
        seeing.encode([[{"role": "user", "content": [{"type": "image", "image": base_model}]}]])
    for broken in (Image.new("RGB", (0, 0)), noise(1, 400)):
        with pytest.raises(DataError, match="an image of prompt 0 of the batch cannot be read"):
            seeing.encode([asked(broken)])


def test_a_pass_without_questions_runs_the_vision_tower_where_its_weights_are_shared(seeing):
    """With a gradient for all of it, of zero: the other processes wait for it."""
    seeing.sharded = True
    text = Responses(((8, 9),), torch.tensor([[[8, 9]]]), torch.tensor([[2]]))
    for responses in (NOTHING, text):
        seeing.score(responses).log_probs.sum().backward()
    assert all((gradient == 0).all() for name, gradient in gradients(seeing.model).items() if ".visual." in name)


@pytest.fixture(scope="module")
def train(settings):
    return replace(settings.train, questions=10, responses=4, mini_batches=2, micro_batch=5, max_new_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("seeing") / "model"
    tiny_vision.policy().save(path)
    return path


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.policy.model.parameters()])


def test_layouts_train_the_same_policy(folder, train, settings):
    trained = []
    for layout in LAYOUTS:
        hardware = replace(settings.hardware, tokens=100)
        trainer = tiny_vision.trainer(folder, replace(train, kl_coefficient=0.1, max_grad_norm=1e9), hardware, layout)
        plain = trainer.updater.optimizer
        plain.adam = torch.optim.SGD(plain.masters, lr=1e-2)
        plain.scheduler = torch.optim.lr_scheduler.ConstantLR(plain.adam, 1.0)
        before = weights(trainer)
        metrics = [trainer.step().metrics for _ in range(2)]
        trained.append((weights(trainer) - before, metrics))
    moved, metrics = trained[0]
    assert moved.abs().max() > 1e-3 and metrics[0]["reward/mean"] > 0
    for others, their_metrics in trained[1:]:
        torch.testing.assert_close(others, moved, atol=1e-6, rtol=1e-3)
        for ours, theirs in zip(metrics, their_metrics, strict=True):
            assert theirs == pytest.approx(ours, nan_ok=True, abs=1e-5, rel=1e-4)


def test_training_moves_every_parameter_and_goes_on_from_a_checkpoint(folder, train, tmp_path):
    straight = tiny_vision.trainer(folder, train)
    before = [parameter.detach().clone() for parameter in straight.policy.model.parameters()]
    straight.step(), straight.step()
    assert all((a != b).any() for a, b in zip(before, straight.policy.model.parameters(), strict=True))
    checkpoints.save(tmp_path, 2, straight.state_dict(), straight.policy.save)
    expected = straight.step()

    path, state = checkpoints.latest(tmp_path)
    resumed = tiny_vision.trainer(path / "model", train)
    resumed.updater.reference = Policy.load(folder)
    resumed.load_state_dict(state)
    result = resumed.step()
    assert result.metrics == pytest.approx(expected.metrics, nan_ok=True, rel=0, abs=0)
    assert result.rollouts.equals(expected.rollouts)
    assert torch.equal(weights(straight), weights(resumed))


def test_processes_that_split_the_weights_train_the_policy_that_one_trains(folder, train, settings, tmp_path):
    """Also the vision tower's, though in some passes of either process there is nothing to see."""
    given = {}
    for processes in (1, 2):
        hardware = replace(settings.hardware, processes=processes, shards=2, shard_weights=processes > 1)
        small = replace(train, micro_batch=1, warmup_steps=0)
        params = tmp_path / f"{processes}.yaml"
        params.write_text(yaml.safe_dump(replace(settings, train=small, hardware=hardware).as_dict()))
        given[processes] = params, folder, tmp_path / f"{processes}.pt"
    tiny_vision.main(*given[1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*launch, tiny_vision.__file__, *map(str, given[2])], check=True)
    alone, together = (torch.load(saved, weights_only=True) for *_, saved in given.values())
    assert together["metrics"] == [
        pytest.approx(of_step, nan_ok=True, abs=1e-4, rel=1e-4) for of_step in alone["metrics"]
    ]
    torch.testing.assert_close(together["weights"], alone["weights"], atol=1e-5, rtol=0)


def test_a_failed_batch_is_kept_with_its_images(folder, train):
    trainer = tiny_vision.trainer(folder, train)
    next(trainer.policy.model.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(RunError, match="failed-step-000001.pt"):
        trainer.step()
    batch = torch.load(folder / "failed-step-000001.pt", weights_only=True)
    image_token = trainer.policy.model.config.image_token_id
    for question, (pixel_values, grid) in batch["images"].items():
        assert len(pixel_values) == grid.prod(1).sum() == 4 * batch["prompts"][question].count(image_token)
