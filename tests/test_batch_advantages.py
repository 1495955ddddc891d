"""What verl and TRL get from this package, without either of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from riskpo_study import advantages, bundles, config, risk, seeds
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.integrations.batch_advantages import FAMILY, PAPER, BatchAdvantages


def rewards(questions: int = 20, responses: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    accuracy = torch.rand(questions, 1, generator=generator)
    return (torch.rand(questions, responses, generator=generator) < accuracy).double()


def test_two_batches_of_riskpo_by_hand() -> None:
    batch_advantages = BatchAdvantages("riskpo", {}, seed=3)
    quantiles = None
    for number in range(2):
        batch = rewards(seed=number)
        permutation = bundles.permutations(20, 4, 5, seeds.generator(3, "bundles", number))
        scores = bundles.scores(batch, permutation)
        if quantiles is None:
            quantiles = [risk.quantile(scores.flatten(), level).item() for level in (0.2, 0.8)]
        expected = advantages.riskpo(batch, permutation, *quantiles, omega=0.5)
        torch.testing.assert_close(batch_advantages(batch), expected, rtol=0, atol=1e-12)
        metrics = batch_advantages.metrics
        assert [metrics["quantile/alpha"], metrics["quantile/beta"]] == quantiles
        assert metrics["region/lower"] == pytest.approx((scores < quantiles[0]).double().mean().item())
        steps = zip(quantiles, (0.2, 0.8), strict=True)
        moved = [q + 0.5 * (level - (scores < q).double().mean().item()) for q, level in steps]
        quantiles = [min(max(q, 0.0), 5.0) for q in moved]


def by_the_method(
    rewards: list[list[float]], permutation: list[list[list[int]]], quantiles: list[float] | None, omega: float
) -> tuple[list[list[float]], list[float]]:
    """RiskPO written out from docs/method.md, sections 3 to 5, for α = 0.2, β = 0.8 and B = 5: advantages (Q, G) and
    the next batch's quantiles."""
    size, responses, groups = 5, len(rewards[0]), len(permutation)
    drawn = [
        [[(n * size + b, permutation[n][b][j]) for b in range(size)] for j in range(responses)] for n in range(groups)
    ]
    scores = [[sum(rewards[i][j] for i, j in bundle) for bundle in group] for group in drawn]
    every = sorted(score for group in scores for score in group)
    if quantiles is None:
        quantiles = [next(x for k, x in enumerate(every, 1) if k / len(every) > level - 1e-9) for level in (0.2, 0.8)]
    low, high = quantiles
    found = [[0.0] * responses for _ in rewards]
    for group, its_scores in zip(drawn, scores, strict=True):
        middle = [max(r - low, 0) - max(r - high, 0) + low - high for r in its_scores]
        advantage = [g - (1 + omega) * max(low - r, 0) for g, r in zip(middle, its_scores, strict=True)]
        for bundle, own in zip(group, advantage, strict=True):
            for i, j in bundle:
                found[i][j] = own - (sum(advantage) - own) / (responses - 1)
    below = [sum(r < q for r in every) / len(every) for q in quantiles]
    moved = [q + 0.5 * (level - b) for q, level, b in zip(quantiles, (0.2, 0.8), below, strict=True)]
    return found, sorted(min(max(q, 0.0), 5.0) for q in moved)


@pytest.mark.parametrize("omega", [0.0, 0.5, 1.5])
def test_the_advantages_are_those_of_the_method_written_out(omega: float) -> None:
    batch_advantages, quantiles = BatchAdvantages("riskpo", {"omega": omega}, seed=3), None
    for number in range(4):
        batch = rewards(20, 6, seed=number)
        permutation = bundles.permutations(20, 6, 5, seeds.generator(3, "bundles", number)).tolist()
        expected, quantiles = by_the_method(batch.tolist(), permutation, quantiles, omega)
        found = batch_advantages(batch)
        assert found.any()
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_released_code_keeps_no_quantiles() -> None:
    options = {"beta": 0.9, "credit": "std", "natural_baseline": True}
    batch = rewards(responses=5)
    expected = advantages.riskpo_released(batch, 5, 0.2, 0.9, credit="std", natural_baseline=True)
    torch.testing.assert_close(BatchAdvantages("riskpo_released", options, seed=0)(batch), expected)


@pytest.mark.parametrize("name", FAMILY)
def test_every_process_with_the_same_batches_gives_the_same(name: str) -> None:
    first, second = (BatchAdvantages(name, {}, seed=1) for _ in range(2))
    for number in range(3):
        batch = rewards(seed=number)
        assert torch.equal(first(batch), second(batch.float()))


def test_another_seed_draws_other_bundles() -> None:
    batch = rewards()
    assert not torch.equal(*(BatchAdvantages("riskpo", {}, seed)(batch) for seed in (1, 2)))


@given(st.integers(0, 12), st.integers(0, 2**32))
def test_questions_that_lack_a_reward_have_no_part(lacking: int, seed: int) -> None:
    """The others have what they would have had without them."""
    batch = rewards(20, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    gone = torch.randperm(20, generator=generator)[:lacking]
    batch[gone, torch.randint(4, (lacking,), generator=generator)] = torch.nan
    found = BatchAdvantages("riskpo", {}, seed=0)
    result = found(batch)
    whole = (~batch.isnan()).all(1).nonzero().squeeze(1)[: (20 - lacking) // 5 * 5]
    assert torch.equal(result[whole], BatchAdvantages("riskpo", {}, seed=0)(batch[whole]))
    left_out = torch.ones(20, dtype=torch.bool).index_fill(0, whole, False)
    assert not result[left_out].any()
    assert found.metrics["share/left_out"] == pytest.approx(left_out.double().mean().item())


def test_a_batch_without_a_whole_bundle_teaches_nothing_and_moves_no_quantile() -> None:
    found = BatchAdvantages("riskpo", {}, seed=0)
    found(rewards())
    before = found.algorithm.estimator.state_dict()
    assert not found(rewards(4)).any()
    assert not found(torch.full((10, 4), torch.nan)).any()
    assert found(torch.empty(0, 0, dtype=torch.float64)).shape == (0, 0)
    assert found.algorithm.estimator.state_dict() == before
    assert found.batches == 4


@pytest.mark.parametrize("name", FAMILY)
def test_what_is_left_with_nothing_to_compare_teaches_nothing(name: str) -> None:
    """One response a question; one question among others that lack responses."""
    found = BatchAdvantages(name, {"bundle_size": 1}, seed=0)
    assert not found(rewards(5, 1)).any()
    single = torch.full((3, 4), torch.nan, dtype=torch.float64)
    single[1] = torch.tensor([0.0, 1, 0, 1])
    result = found(single)
    assert result.isfinite().all() and not result[[0, 2]].any()
    assert not (name.startswith("mvar_") and result.any())
    assert found(rewards()).any() and found.batches == 3


@pytest.mark.parametrize("tracker", risk.TRACKERS)
def test_a_restored_state_goes_on_as_if_nothing_had_happened(tracker: str, tmp_path: Path) -> None:
    options = {"tracker": tracker}
    straight = BatchAdvantages("riskpo", options, seed=0)
    for number in range(3):
        straight(rewards(seed=number))
    straight.save(tmp_path / "step" / "riskpo.pt")
    resumed = BatchAdvantages("riskpo", options, seed=0)
    said = resumed.load(tmp_path / "step" / "riskpo.pt")
    assert f"{tmp_path}/step/riskpo.pt: 3 batches seen, quantiles" in said
    for number in range(3, 6):
        assert torch.equal(straight(rewards(seed=number)), resumed(rewards(seed=number)))
    assert straight.metrics == resumed.metrics


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "riskpo.pt"
    BatchAdvantages("riskpo", {"omega": 1.0}, seed=0).save(path)
    with pytest.raises(DataError, match=r"riskpo.pt is the state of another run: omega is 0.5 here and 1.0 there"):
        BatchAdvantages("riskpo", {}, seed=0).load(path)
    path.write_bytes(b"no state")
    with pytest.raises(DataError, match=r"riskpo.pt cannot be read .*remove it"):
        BatchAdvantages("riskpo", {}, seed=0).load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": (math.nan, 3.0)}, r"holds the quantiles nan, 3, but scores lie in 0 to 5: remove it"),
        ({"values": (1.0, 9.0)}, r"holds the quantiles 1, 9, but scores lie in 0 to 5"),
        ({"values": (1.0, "x")}, r"cannot be read .*remove it"),
        (None, r"cannot be read \(KeyError\): remove it"),
    ],
)
def test_a_damaged_state_is_refused(change: dict[str, object] | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "riskpo.pt"
    saved = BatchAdvantages("riskpo", {}, seed=0)
    saved(rewards())
    saved.save(path)
    state = torch.load(path, weights_only=True)
    torch.save(state | {"estimator": {} if change is None else state["estimator"] | change}, path)
    with pytest.raises(DataError, match=message):
        BatchAdvantages("riskpo", {}, seed=0).load(path)


@pytest.mark.parametrize("low", [-1.0, -0.2])
def test_rewards_outside_the_unit_interval_are_refused(low: float) -> None:
    with pytest.raises(DataError, match=f"rewards reach from {low:g} to 1, but bundles count rewards from 0 to 1"):
        BatchAdvantages("riskpo", {}, seed=0)(rewards() * (1 - low) + low)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grpo", {}, "'grpo' has no risk measure; choose one of riskpo, riskpo_released"),
        ("riskpo", {"omga": 1.0}, "algorithms.riskpo.omga is unknown; options of riskpo are baseline"),
        ("riskpo", {"alpha": 0.9}, "alpha = 0.9 is not below beta = 0.8"),
        ("riskpo", {"clip_low": 0.1}, "clip_low = 0.1 is no option of the advantage: set it in the trainer itself"),
        ("riskpo", {"learning_rate": 0.1}, "learning_rate = 0.1 is no option of the advantage"),
        ("riskpo", {"baseline": "grp"}, "baseline = 'grp' is unknown; choose none, batch or group"),
        ("riskpo_marginal", {"baseline": "grp"}, "baseline = 'grp' is unknown"),
        ("riskpo", {"credit": "sharde"}, "credit = 'sharde' is unknown; choose shared or marginal"),
        ("riskpo", {"scale": "std"}, "scale = 'std' is unknown; choose none or batch_std"),
        ("riskpo_released", {"credit": "shared"}, "credit = 'shared' is unknown; choose uniform, std or sum-mean"),
        ("mvar_accuracy", {"utility": "square"}, "utility = 'square' is unknown"),
        ("riskpo", {"bundle_size": 0}, "bundle_size = 0 is not a number of questions"),
        ("riskpo_released", {"omega": 1.0}, "omega has no effect: the released code has tail_weight instead"),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchAdvantages(name, options, seed=0)


@pytest.mark.parametrize("seed", [None, "abc", 1.5, True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(ConfigError, match=f"seed = {seed!r} is no whole number; choose one"):
        BatchAdvantages("riskpo", {}, seed)  # type: ignore[arg-type]


def test_batches_that_do_not_fill_bundles_are_noticed_before_the_first() -> None:
    found = BatchAdvantages("riskpo", {}, seed=0)
    found.check(480, 10)
    with pytest.raises(ConfigError, match="512 questions do not fill bundles of 5"):
        found.check(512, 10)
    with pytest.raises(ConfigError, match="1 response a question cannot be compared"):
        found.check(480, 1)
    with pytest.raises(ConfigError, match="ranks a question among others"):
        BatchAdvantages("mvar_accuracy", {"bundle_size": 1}, seed=0).check(1, 10)


def test_the_measure_is_that_of_the_configuration() -> None:
    shipped = yaml.safe_load((config.root() / "conf" / "config.yaml").read_text())["risk"]
    assert {key: getattr(PAPER, key) for key in shipped} == shipped


def test_what_decides_the_advantages_is_said() -> None:
    assert str(BatchAdvantages("riskpo", {"tracker": "histogram"}, seed=7)) == (
        "algorithm riskpo, baseline group, scale none, credit shared, bundling random, tracker histogram, step 0.1, "
        "decay 0.9, alpha 0.2, beta 0.8, omega 0.5, bundle_size 5, seed 7"
    )
    assert "omega" not in str(BatchAdvantages("riskpo_released", {}, seed=0))
