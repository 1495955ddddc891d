import math
from dataclasses import replace

import pytest
import torch

from riskpo_study import algorithms, bundles, optimizer, risk, seeds, update
from riskpo_study.algorithms import ALGORITHMS
from riskpo_study.errors import RunError
from riskpo_study.policy import Policy
from riskpo_study.rollouts import TransformersEngine
from riskpo_study.tasks import Task
from riskpo_study.trainer import Trainer


def make_trainer(base_model, settings, task, tmp_path, name="grpo", options=None, seed=0, **changes):
    policy, reference = Policy.load(base_model), Policy.load(base_model)
    algorithm = algorithms.build(name, options or {}, settings.risk)
    train = replace(settings.train, **changes)
    return Trainer(policy, reference, TransformersEngine(policy), task, algorithm, train, seed, tmp_path)


class Generous:
    """The task, but every response that ends in an even number of characters is right: rewards vary from the start."""

    def __init__(self, task):
        self.task, self.name = task, task.name

    def __getattr__(self, name):
        return getattr(self.task, name)

    def verify(self, question, response):
        return replace(self.task.verify(question, response), reward=float(len(response) % 2 == 0))

    verify_all = Task.verify_all


def take_plain_steps(trainer):
    """SGD with rate 1: what a step changes is minus the gradient."""
    plain = trainer.updater.optimizer
    plain.adam = torch.optim.SGD(plain.masters, lr=1.0)
    plain.scheduler = torch.optim.lr_scheduler.ConstantLR(plain.adam, 1.0)


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.policy.model.parameters()])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_moves_every_parameter_and_leaves_the_reference_alone(
    name, base_model, settings, task, tmp_path
):
    trainer = make_trainer(base_model, settings, Generous(task), tmp_path, name)
    before = [parameter.detach().clone() for parameter in trainer.policy.model.parameters()]
    reference = [parameter.detach().clone() for parameter in trainer.updater.reference.model.parameters()]
    result = trainer.step()
    trainer.step()
    assert all((a != b).any() for a, b in zip(before, trainer.policy.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(reference, trainer.updater.reference.model.parameters(), strict=True))
    assert math.isfinite(result.metrics["loss"]) and result.metrics["gradient/norm"] > 0
    assert result.metrics["step"] == 1


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gmpo", "gspo", "rloo", "pass_at_k", "riskpo"])
def test_gradients_do_not_depend_on_the_micro_batch(name, base_model, settings, task, tmp_path):
    """One plain SGD step from the same rollouts: whole mini-batch at once, or in parts of 1, 2 and 3 questions."""
    results = []
    for micro in (10, 3, 2, 1):
        trainer = make_trainer(
            base_model, settings, Generous(task), tmp_path, name, micro_batch=micro, mini_batches=1, max_grad_norm=1e9
        )
        take_plain_steps(trainer)
        before = weights(trainer)
        metrics = trainer.step().metrics
        results.append((weights(trainer) - before, metrics["loss"], metrics["entropy/mean"]))
    for gradient, loss, entropy in results[1:]:
        torch.testing.assert_close(gradient, results[0][0], atol=1e-6, rtol=1e-4)
        assert loss == pytest.approx(results[0][1], abs=1e-6) and entropy == pytest.approx(results[0][2], abs=1e-6)


@pytest.mark.parametrize("name", ["grpo", "dapo", "riskpo", "pass_at_k"])
def test_layouts_and_checkpointing_change_neither_gradients_nor_metrics(name, base_model, settings, task, tmp_path):
    results = []
    for layout, tokens, checkpointing in (
        ("prefix_tree", 1, False),
        ("padded", 1, False),
        ("packed", 1, False),
        ("packed", 60, True),
        ("packed", 999, False),
    ):
        trainer = make_trainer(
            base_model, settings, Generous(task), tmp_path, name, mini_batches=1, max_grad_norm=1e9, kl_coefficient=0.1
        )
        engine = trainer.engine
        policy = Policy(trainer.policy.model, trainer.policy.tokenizer, layout, tokens, checkpointing)
        trainer.policy = trainer.updater.policy = engine.policy = policy
        take_plain_steps(trainer)
        before = weights(trainer)
        metrics = trainer.step().metrics
        results.append((weights(trainer) - before, metrics))
    for gradient, metrics in results[1:]:
        torch.testing.assert_close(gradient, results[0][0], atol=1e-5, rtol=1e-3)
        assert metrics == pytest.approx(results[0][1], nan_ok=True, abs=1e-5, rel=1e-5)


def test_bfloat16_weights_add_up_small_updates_in_float32(base_model, settings, task, tmp_path):
    """With a rate that bfloat16 alone would round away the weights move all the same, as those of float32 do."""
    moved = {}
    start = Policy.load(base_model)
    for dtype in ("float32", "bfloat16"):
        trainer = make_trainer(base_model, settings, Generous(task), tmp_path, learning_rate=1e-5, warmup_steps=0)
        policy = Policy.load(base_model, hardware=replace(settings.hardware, dtype=dtype))
        trainer.updater = update.Updater(policy, start, trainer.algorithm, trainer.train)
        trainer.policy, trainer.engine = policy, TransformersEngine(policy)
        before = torch.cat([one.detach().float().flatten() for one in trainer.updater.optimizer.masters])
        for _ in range(3):
            metrics = trainer.step().metrics
        after = torch.cat([one.detach().flatten() for one in trainer.updater.optimizer.masters])
        moved[dtype] = (after - before).abs().mean().item()
        assert math.isfinite(metrics["loss"]) and {one.dtype for one in policy.model.parameters()} == {
            policy.model.dtype
        }
    assert policy.model.dtype == torch.bfloat16
    assert moved["bfloat16"] == pytest.approx(moved["float32"], rel=0.2)
    rounded = torch.cat([one.detach().float().flatten() for one in policy.model.parameters()])
    assert torch.equal(rounded, after.bfloat16().float())

    state = trainer.state_dict()
    resumed = update.Updater(
        Policy.load(base_model, hardware=replace(settings.hardware, dtype="bfloat16")), start, trainer.algorithm,
        trainer.train,
    )  # fmt: skip
    resumed.load_state_dict(state["updater"])
    assert torch.equal(after, torch.cat([one.detach().flatten() for one in resumed.optimizer.masters]))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(base_model, settings, task, tmp_path):
    runs = []
    for seed in (0, 0, 1):
        trainer = make_trainer(base_model, settings, Generous(task), tmp_path, "riskpo", seed=seed)
        results = [trainer.step() for _ in range(2)]
        runs.append((weights(trainer), results[-1]))
    assert torch.equal(runs[0][0], runs[1][0]) and not torch.equal(runs[0][0], runs[2][0])
    assert runs[0][1].rollouts.equals(runs[1][1].rollouts)


def test_state_dict_continues_the_very_same_run(base_model, settings, task, tmp_path):
    straight = make_trainer(base_model, settings, Generous(task), tmp_path, "riskpo", schedule="cosine", warmup_steps=2)
    straight.step(), straight.step()
    state = straight.state_dict()
    torch.save(state, tmp_path / "state.pt")
    straight.policy.save(tmp_path / "model")
    expected = straight.step()

    resumed = make_trainer(
        tmp_path / "model", settings, Generous(task), tmp_path, "riskpo", schedule="cosine", warmup_steps=2
    )
    resumed.updater.reference = straight.updater.reference
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.step().metrics == pytest.approx(expected.metrics, nan_ok=True, rel=0, abs=0)
    assert torch.equal(weights(straight), weights(resumed))


def test_metrics_agree_with_the_rollouts(base_model, settings, task, tmp_path):
    trainer = make_trainer(base_model, settings, Generous(task), tmp_path, "riskpo")
    result = trainer.step()
    rows, metrics = result.rollouts, result.metrics
    assert len(rows) == 10 * 4
    assert metrics["reward/mean"] == pytest.approx(rows.reward.mean())
    assert metrics["entropy/sampled"] == pytest.approx(-rows.log_prob.sum() / rows.length.sum(), rel=1e-5)
    for difficulty in (2, 3):
        expected = rows[rows.difficulty == difficulty].reward.mean()
        assert metrics[f"accuracy/{difficulty}"] == pytest.approx(expected)
    bundle = rows.groupby("bundle")
    assert (bundle.size() == settings.risk.bundle_size).all()
    assert (bundle.advantage.nunique() == 1).all()  # shared by the bundle
    scores = bundle.reward.sum()
    lower = (metrics["quantile/alpha"] - scores).clip(lower=0)
    log_probs = bundle.log_prob.sum()
    groups = range(0, len(scores), settings.train.responses)  # bundles of the same questions are neighbours
    within = [log_probs.iloc[g : g + 4].cov(lower.iloc[g : g + 4]) for g in groups]
    assert len(within) == 2 and metrics["covariance/lower"] == pytest.approx(sum(within) / 2)
    assert metrics["region/lower"] + metrics["region/middle"] + metrics["region/upper"] == pytest.approx(1)
    assert metrics["ratio/mean"] == pytest.approx(1, abs=0.2) and metrics["kl/base"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["grpo", "riskpo_stratified"])
def test_the_measure_of_every_algorithm_is_of_random_bundles_at_the_levels_of_the_configuration(
    name, base_model, settings, task, tmp_path
):
    """Stratified bundles and levels of its own change what an algorithm learns from, not how its rewards compare."""
    result = make_trainer(base_model, settings, Generous(task), tmp_path, name).step()
    rewards = torch.tensor(result.rollouts.reward.to_numpy()).view(10, 4)  # in the order asked
    pairing = bundles.permutations(10, 4, settings.risk.bundle_size, seeds.generator(0, "bundles", 0))
    scores = bundles.scores(rewards, pairing).flatten()
    assert scores.unique().numel() > 2
    expected = risk.mvar(scores, settings.risk.alpha, settings.risk.beta, settings.risk.omega)
    assert result.metrics["risk/mvar"] == pytest.approx(expected.item())
    assert result.metrics["risk/cvar"] == pytest.approx(risk.cvar(scores, settings.risk.alpha).item())


def test_the_divergence_is_measured_on_questions_of_every_accuracy(base_model, settings, task, tmp_path, monkeypatch):
    """Stratified bundling sorts them: the first tenth would be the hardest."""
    monkeypatch.setattr(update, "_KL_SHARE", 3)
    trainer = make_trainer(base_model, settings, Generous(task), tmp_path, "riskpo_stratified", kl_coefficient=0.0)
    asked = []
    monkeypatch.setattr(
        trainer.updater.reference, "score", lambda part, *rest: asked.append(part.prompts) or trainer.policy.score(part)
    )
    rows = trainer.step().rollouts
    accuracy = rows.groupby("question_id", sort=False).reward.mean()
    ranked = [question for question, _ in sorted(accuracy.items(), key=lambda item: item[1])]
    prompts = {question.id: tuple(ids) for question in task.sample(10, seeds.generator(0, "questions", 0, 0))
               for ids in trainer.policy.encode([task.prompt(question)])}  # fmt: skip
    assert [prompt for part in asked for prompt in part] == [prompts[question] for question in ranked[::3]]


def test_dynamic_sampling_learns_from_mixed_questions_only(base_model, settings, task, tmp_path):
    trainer = make_trainer(base_model, settings, Generous(task), tmp_path, "dapo")
    result = trainer.step()
    learned = result.rollouts[result.rollouts.bundle >= 0]
    assert len(learned) == 10 * 4
    assert learned.groupby("question_id").reward.mean().between(0, 1, inclusive="neither").all()
    assert result.rollouts.loc[result.rollouts.bundle < 0, "advantage"].isna().all()


def test_dynamic_sampling_gives_up_where_nothing_is_informative(base_model, settings, task, tmp_path):
    """An untrained model is always wrong: the batch is filled all the same, with zero advantages."""
    trainer = make_trainer(base_model, settings, task, tmp_path, "dapo", max_new_tokens=2)
    metrics = trainer.step().metrics
    assert metrics["generated/questions"] == 10 * 10 and metrics["share/zero_variance"] == 1


def test_kl_penalty_pulls_back_to_the_reference(base_model, settings, task, tmp_path):
    """Where no response earns anything the penalty alone moves the policy: the divergence falls."""
    trainer = make_trainer(base_model, settings, task, tmp_path, kl_coefficient=1.0, max_new_tokens=2)
    with torch.no_grad():
        for parameter in trainer.policy.model.parameters():
            parameter.mul_(1.2)
    results = [trainer.step().metrics for _ in range(12)]
    assert all(result["reward/mean"] == 0 for result in results)
    assert 0 < results[-1]["kl/base"] < 0.7 * results[0]["kl/base"]


def test_a_non_finite_loss_stops_the_run_and_keeps_the_batch(base_model, settings, task, tmp_path):
    trainer = make_trainer(base_model, settings, Generous(task), tmp_path)
    trainer.step()
    next(trainer.policy.model.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    before = weights(trainer)
    with pytest.raises(RunError, match=r"step 2: the loss is .* norm nan.*failed-step-000002.pt.*learning rate"):
        trainer.step()
    assert torch.equal(before, weights(trainer))
    batch = torch.load(tmp_path / "failed-step-000002.pt", weights_only=True)
    assert batch["step"] == 2 and batch["tokens"].shape[:2] == batch["rewards"].shape == (10, 4)


def test_questions_without_a_signal_have_no_gradient_but_are_measured(base_model, settings, task, tmp_path):
    """One SGD step with and without leaving them out of the backward pass: the same gradient and metrics."""
    results = []
    for leave_out in (True, False):
        trainer = make_trainer(base_model, settings, Generous(task), tmp_path, mini_batches=1, max_grad_norm=1e9)
        if not leave_out:
            trainer.updater._passes = lambda questions, *_: ((rows, True) for rows in questions.split(5))
        take_plain_steps(trainer)
        before = weights(trainer)
        metrics = trainer.step().metrics
        results.append((weights(trainer) - before, metrics))
    (gradient, metrics), (expected, every) = results
    assert metrics["share/zero_variance"] > 0
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)
    assert metrics == pytest.approx(every, nan_ok=True, abs=1e-5)


def test_adam_follows_its_momentum_where_a_batch_teaches_nothing(base_model, settings, task, tmp_path):
    trainer = make_trainer(base_model, settings, Generous(task), tmp_path)
    trainer.step()
    trainer.task = task  # an untrained model is never right
    before = weights(trainer)
    assert trainer.step().metrics["share/zero_advantage"] == 1
    assert not torch.equal(before, weights(trainer))


def test_stratified_bundles_join_questions_of_similar_accuracy(base_model, settings, task, tmp_path):
    trainer = make_trainer(base_model, settings, Generous(task), tmp_path, "riskpo_stratified")
    rows = trainer.step().rollouts
    group = rows["bundle"] // settings.train.responses
    accuracy = rows.groupby([group, rows["question_id"]]).reward.mean()
    assert accuracy.loc[0].max() <= accuracy.loc[1].min()
    assert rows.groupby("bundle").question_id.nunique().eq(settings.risk.bundle_size).all()


def test_the_learning_rate_warms_up_and_decays(settings):
    train = replace(settings.train, steps=10, mini_batches=2, warmup_steps=3, schedule="cosine")
    rates = [optimizer._rate(train, done) for done in range(20)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[3:] == sorted(rates[3:], reverse=True) and 0 < rates[-1] < 0.05
    assert [optimizer._rate(replace(train, schedule="constant"), done) for done in (3, 19)] == [1.0, 1.0]


def test_the_step_is_measured_on_questions_not_yet_learned_from(base_model, settings, task, tmp_path):
    metrics = make_trainer(base_model, settings, Generous(task), tmp_path).step().metrics
    assert 0 < metrics["kl/step"] < 0.1
    single = make_trainer(base_model, settings, Generous(task), tmp_path, mini_batches=1).step().metrics
    assert math.isnan(single["kl/step"])


class Off(TransformersEngine):
    """Says of every token that it was as much less likely as `by` nats."""

    exact, by = False, 0.1

    def generate(self, *arguments):
        generation = super().generate(*arguments)
        return replace(generation, log_probs=generation.log_probs - self.by * generation.mask)


@pytest.mark.parametrize(("cap", "factor"), [(2.0, math.exp(0.1)), (1.05, 1.05), (0.0, 1.0)])
def test_an_engine_that_is_off_is_measured_and_corrected(base_model, settings, task, tmp_path, cap, factor):
    """All tokens are off alike: the gradient is that of an exact engine, times the truncated importance weight."""
    norms = {}
    for name, engine in (("exact", TransformersEngine), ("off", Off)):
        trainer = make_trainer(base_model, settings, Generous(task), tmp_path, mini_batches=1)
        trainer.engine, trainer.importance_cap = engine(trainer.policy), cap
        metrics = trainer.step().metrics
        norms[name] = metrics["gradient/norm"]
        assert metrics["ratio/mean"] == pytest.approx(1.0, abs=1e-6)  # to the policy itself, not to the sampler
    assert norms["off"] == pytest.approx(factor * norms["exact"], rel=1e-4)
    assert metrics["mismatch/mean"] == pytest.approx(0.1, abs=1e-5)
    assert metrics["mismatch/max"] == pytest.approx(0.1, abs=1e-4)
    assert metrics["mismatch/kl"] == pytest.approx(math.exp(0.1) - 1.1, abs=1e-5)
