"""What a run on GPUs takes: against published sizes, real models, counted operations and numbers worked out by hand."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import random_model
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, Qwen2Config, Qwen2ForCausalLM

from riskpo_study import checkpoints, config, cost_tables, costs, log_probs, profiles, sections
from riskpo_study.costs import Estimate, Stage
from riskpo_study.errors import ConfigError
from riskpo_study.gpus import GIB, GPUS, Assumptions, Gpu
from riskpo_study.model_shapes import MODELS, Shape
from riskpo_study.optimizer import Optimizer
from riskpo_study.policy import Policy, Responses

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "paper_scale.md").read_text(encoding="utf-8")
HARD, SEVEN, THIRTY_TWO, EASY = MODELS.values()
HALF = Shape(24, 896, 14, 2, 64, 4864, 151_936, tied=True)
THREE = Shape(36, 2048, 16, 2, 128, 11_008, 151_936, tied=True)
TINY = Shape(2, 32, 4, 2, 8, 64, 25, tied=True)  # of conftest.random_model
# Easy to calculate with.
ROUND = Gpu(
    100.0 * GIB, flops=1e12, flops_share=0.5, bandwidth=1e9, bandwidth_share=0.5, link=1e9, link_share=0.5,
    sequences=10, price=2.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def hard() -> config.Config:
    return profiles.composed("paper_hard", ROOT / "conf")[1]


@pytest.fixture(scope="module")
def easy() -> config.Config:
    return profiles.composed("paper_easy", ROOT / "conf")[1]


def with_(settings: config.Config, section: str, **values: Any) -> config.Config:
    return replace(settings, **{section: replace(getattr(settings, section), **values)})


class Live(TorchDispatchMode):
    """Bytes of the tensors that operations make, without those that are `known`, and the most that there were."""

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known and storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.gone, storage._cdata)
                    self.peak = max(self.peak, self.now)
        return made

    def gone(self, storage: int) -> None:
        self.now -= self.sizes.pop(storage, 0)


# What the cards of the models say: 1.54, 0.49, 3.09, 7.61 and 32.8 billion; exactly, the sizes of their files.
@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        (EASY, 1_543_714_304),
        (HARD, 1_777_088_000),
        (HALF, 494_032_768),
        (THREE, 3_085_938_688),
        (SEVEN, 7_615_616_512),
        (THIRTY_TWO, 32_763_876_352),
    ],
)
def test_published_models_have_as_many_parameters(shape: Shape, parameters: int) -> None:
    assert shape.parameters == parameters


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_and_bytes_of_a_real_model(tied: bool, settings: config.Config, hard: config.Config) -> None:
    model = random_model(25, 1, 0, tied=tied).to(torch.bfloat16)  # type: ignore[arg-type]
    shape = Shape.of(model.config)
    assert shape == replace(TINY, tied=tied)
    parameters = list(model.parameters())
    assert shape.parameters == sum(one.numel() for one in parameters)
    assert shape.tensors == len(parameters)

    optimizer = Optimizer(parameters, settings.train)
    model(torch.tensor([[3, 4, 5]])).logits.float().sum().backward()
    held = [one.nbytes for one in parameters], [one.nbytes for one in optimizer.masters]
    gradients = sum(one.grad.nbytes for one in parameters if one.grad is not None)
    optimizer.gather()
    gathered = gradients + sum(one.grad.nbytes for one in optimizer.masters if one.grad is not None)
    optimizer.step()
    adam = sum(part.nbytes for state in optimizer.adam.state.values() for part in state.values())

    estimate = Estimate(hard, shape, ROUND, Assumptions())
    memory = estimate.memory()
    assert 2 * sum(held[0]) == memory["generation"]["bfloat16 weights"]  # and the reference's
    assert sum(held[1]) == memory["generation"]["float32 weights"]
    assert adam == memory["generation"]["AdamW"]
    assert gradients == memory["backward pass"]["gradients"]
    assert gathered == memory["optimiser's step"]["gradients"]


def test_a_real_checkpoint_is_as_large(settings: config.Config, hard: config.Config, tmp_path: Path) -> None:
    shape = Shape(2, 256, 4, 2, 64, 1024, 2000, tied=True)
    model = Qwen2ForCausalLM(real(shape)).to(torch.bfloat16)  # type: ignore[arg-type]
    optimizer = Optimizer(model.parameters(), settings.train)
    for one in model.parameters():
        one.grad = torch.ones_like(one)
    optimizer.gather()
    optimizer.step()
    checkpoints.save(tmp_path, 1, {"updater": optimizer.state_dict()}, model.save_pretrained)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.suffix in (".pt", ".safetensors"))
    assert size == pytest.approx(Estimate(hard, shape, ROUND, Assumptions()).checkpoint(), rel=0.01)


def real(shape: Shape) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2048, tie_word_embeddings=shape.tied, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip


@pytest.mark.parametrize("layers", [2, 4])
@pytest.mark.parametrize("way", ["no gradient", "gradient", "checkpointing"])
def test_activations_are_those_of_a_real_model(way: str, layers: int, hard: config.Config) -> None:
    """Proportions of Qwen2.5-1.5B, but as many key heads as heads: attention on a CPU copies keys for every head."""
    tokens, shape = 512, Shape(layers, 96, 3, 3, 32, 560, 50, tied=False)
    model = Qwen2ForCausalLM(real(shape)).to(torch.bfloat16)  # type: ignore[arg-type]
    if way == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    ids, positions = torch.randint(50, (1, tokens)), torch.arange(tokens)[None]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    live = Live(
        *model.parameters(), *(one.grad for one in model.parameters() if one.grad is not None), *model.buffers()
    )
    with live, torch.set_grad_enabled(way != "no gradient"):
        hidden = model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        if way != "no gradient":
            hidden.float().sum().backward()
    settings = with_(hard, "hardware", tokens=tokens, gradient_checkpointing=way == "checkpointing")
    expected = Estimate(settings, shape, ROUND, Assumptions()).activations(gradient=way != "no gradient")
    assert live.peak == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("gradient", [False, True])
def test_logits_are_those_of_the_real_function(
    gradient: bool, hard: config.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_probs, "LOGITS", 2**18)
    shape, tokens = Shape(1, 64, 1, 1, 64, 64, 4096, tied=False), 1024
    hidden = torch.randn(tokens, 64).bfloat16().requires_grad_(gradient)
    weight = torch.randn(4096, 64).bfloat16().requires_grad_(gradient)
    live = Live(hidden, weight)
    with live, torch.set_grad_enabled(gradient):
        scores, _ = log_probs.token_scores(hidden, weight, torch.randint(4096, (tokens,)), held=2**18)
        if gradient:
            scores.sum().backward()
    estimate = Estimate(with_(hard, "hardware", tokens=tokens), shape, ROUND, Assumptions())
    assert live.peak == pytest.approx(estimate.logits(gradient), rel=0.1)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_flop_are_those_of_a_real_model(checkpointing: bool, policy: Policy) -> None:
    """Two equal responses of a policy with eager attention, which computes the whole square: twice the causal part.

    PyTorch counts no flop that are not of a matrix product. Its backward pass has twice the flop of the forward pass.
    """
    model = policy.model
    model.set_attn_implementation("eager")
    shape, prompt, length = Shape.of(model.config), 5, 11
    responses = Responses(((3,) * prompt,), torch.full((1, 2, length - prompt + 1), 4), torch.full((1, 2), 7))
    packed = Policy(model, policy.tokenizer, "padded", checkpointing=checkpointing)
    blocks, attention, head = shape.forward_flop(length, length - prompt + 1)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        packed.score(responses)
    assert forward.get_total_flops() == 2 * (blocks + 2 * attention + head)
    with FlopCounterMode(display=False) as learning:
        packed.score(responses).log_probs.sum().backward()
    last = 2 * shape.layers * shape.mlp * shape.hidden * length
    again = blocks + 2 * attention - last if checkpointing else 0
    assert learning.get_total_flops() == 2 * (3 * (blocks + 2 * attention) + 4 * head + again)


def by_hand(hard: config.Config, **train: Any) -> Estimate:
    """A model of one number a matrix, answers of 50 of at most 100 tokens after prompts of 10."""
    settings = with_(hard, "train", max_new_tokens=100, questions=10, responses=4, mini_batches=2, **train)
    settings = with_(settings, "hardware", processes=2, shards=4, tokens=600, gradient_checkpointing=False)
    settings = with_(settings, "math", workers=2)
    assumed = Assumptions(response_share=0.5, prompt=10, token_seconds=0.0, step_seconds=0.0, judged=1.0)
    return Estimate(settings, Shape(1, 10, 2, 1, 5, 10, 1000, tied=True), ROUND, assumed)


def test_seconds_by_hand(hard: config.Config) -> None:
    estimate = by_hand(hard)
    shape = estimate.shape
    assert shape.linear == 10 * (10 + 5 + 5 + 10) + 3 * 10 * 10 == 600
    assert shape.embedding == 10_000
    assert shape.parameters == 600 + (10 + 5 + 5) + 2 * 10 + 10 + 10_000
    assert shape.forward_flop(60, 50) == (2 * 600 * 60, 4 * 10 * 60 * 60 / 2, 2 * 10_000 * 50)

    # 20 responses, ten at a time: 100 tokens of each slot. Reading 10 600 weights of 2 bytes at half of 1 GB/s takes
    # 42.4 µs, multiplying ten times with them at half of 1 Tflop/s .424 µs. 1000 tokens read 20 bytes for each of the
    # 10 + 25 before them.
    assert estimate.engine.cached_tokens() > 1e9
    assert estimate.generate(20) == pytest.approx(100 * 21_200 / 5e8 + 1000 * 35 * 20 / 5e8)
    # 5 responses: as many steps as the longest has tokens.
    assert estimate.generate(5) == pytest.approx(100 * 21_200 / 5e8 + 250 * 35 * 20 / 5e8)
    slow = replace(estimate, gpu=replace(ROUND, flops=1e9))  # multiplying takes longer than reading
    assert slow.generate(20) == pytest.approx(1000 * 21_200 / 5e8 + 1000 * 35 * 20 / 5e8)
    busy = replace(estimate, assumed=replace(estimate.assumed, step_seconds=2.0, token_seconds=3.0))
    assert busy.generate(20) == pytest.approx(estimate.generate(20) + 100 * 2 + 1000 * 3)

    # 40 responses of 60 tokens in four passes of 600 are two rounds of two GPUs; 30 are three, and one GPU is idle.
    forward = sum(shape.forward_flop(60, 50))
    assert estimate.score(40, 2) == pytest.approx(40 * forward / 2 / 5e11)
    assert estimate.score(30, 2) == pytest.approx(40 * forward / 2 / 5e11)
    blocks, attention, head = shape.forward_flop(60, 50)
    assert estimate.learn(40) == pytest.approx(40 * (3 * blocks + 3.5 * attention + 4 * head) / 2 / 5e11)
    saving = replace(estimate, config=with_(estimate.config, "hardware", gradient_checkpointing=True))
    assert saving.learn(40) - estimate.learn(40) == pytest.approx(
        40 * (blocks + attention - 2 * 10 * 10 * 60) / 2 / 5e11
    )
    # Two GPUs send each other half of the gradients twice.
    assert estimate.optimiser() == pytest.approx(shape.parameters * (52 / 5e8 + 4 / 5e8))

    step = estimate.step()
    assert step["generate"] == pytest.approx(2 * estimate.generate(10))  # two shards each
    assert estimate.step(dynamic_sampling=True)["generate"] == pytest.approx(2.5 * step["generate"])
    assert step["judge"] == pytest.approx(20 / 2)  # answers of one process, two workers
    assert step["score again"] == pytest.approx(estimate.score(40, 2))
    assert step["reference"] == pytest.approx(estimate.score(4, 2))
    assert by_hand(hard, kl_coefficient=0.1).step()["reference"] == step["score again"]
    assert step["learn"] == pytest.approx(2 * estimate.learn(20))
    assert step["checkpoint"] == pytest.approx(2 * (14 * shape.parameters + 4 * 14) / 1e9 / 10)
    # 100 questions × 64 are seven batches of 16 questions, four rounds of two GPUs.
    assert estimate.answering(100, 64, 2) == pytest.approx(
        4 * (estimate.generate(1024) + estimate.score(1024, 1) + 512)
    )
    assert Stage("train", 3, 8, 1800.0).hours() == 12


def test_stages_and_disk_of_the_profiles(hard: config.Config, easy: config.Config) -> None:
    for settings, runs, questions in ((hard, 15, 1546), (easy, 27, 6319)):
        estimate = costs.estimates(settings)["H100 80 GB"]
        assert sum(estimate.benchmarks()) == questions
        stages = {stage.name: stage for stage in estimate.stages()}
        assert stages["train"].runs + stages["train, dynamic sampling"].runs == stages["evaluate"].runs == runs
        assert stages["train, dynamic sampling"].runs == 3  # DAPO's
        assert stages["train"].gpus == 8 and stages["evaluate"].gpus == 1
        assert estimate.snapshots() == 2
        disk = estimate.disk()
        assert disk["a finished run"] > 2 * 2 * estimate.shape.parameters
        assert disk["all runs"] > runs * disk["a finished run"]
        assert disk["a run at work, besides"] == 3 * estimate.checkpoint()


@given(response=st.floats(0.05, 0.95), processes=st.sampled_from([1, 2, 4]))
def test_more_tokens_take_longer_and_more_gpus_never_do(response: float, processes: int, easy: config.Config) -> None:
    few, more = (
        Estimate(with_(easy, "hardware", processes=n), EASY, GPUS["H100 80 GB"], Assumptions(response_share=response))
        for n in (processes, 2 * processes)
    )
    longer = replace(few, assumed=Assumptions(response_share=response + 0.05))
    assert more.run() < few.run() < longer.run()
    assert few.run() < few.run(dynamic_sampling=True)
    assert more.memory() == few.memory()


def test_the_profiles_fit_their_gpus(hard: config.Config, easy: config.Config) -> None:
    for settings in (hard, easy):
        assert all(estimate.fits() for estimate in costs.estimates(settings).values())
    released = costs.estimates(with_(hard, "rollouts", gpu_memory=0.6))["H100 80 GB"]
    assert not released.fits()
    assert max(released.memory(), key=lambda moment: sum(released.memory()[moment].values())) == "learning curve"


# The advice of docs/paper_scale.md.
@pytest.mark.parametrize(
    ("shape", "gib", "tokens", "share", "fits"),
    [
        (HARD, 44.5, 8192, 0.3, True), (EASY, 44.5, 8192, 0.3, True), (HARD, 23.6, 1024, 0.2, False),
        (HALF, 23.6, 8192, 0.4, True), (THREE, 79.1, 32_768, 0.3, True), (SEVEN, 79.1, 4096, 0.1, False),
    ],
)  # fmt: skip
def test_what_fits_other_gpus(
    shape: Shape, gib: float, tokens: int, share: float, fits: bool, hard: config.Config
) -> None:
    settings = with_(with_(hard, "hardware", tokens=tokens), "rollouts", gpu_memory=share)
    gpu = replace(GPUS["A100 80 GB"], memory=gib * GIB)
    assert Estimate(settings, shape, gpu, Assumptions()).fits() is fits


def test_what_the_page_says_in_words(hard: config.Config) -> None:
    days = []
    for seeds in ((0, 1, 2), (0,)):
        stages = costs.estimates(with_(hard, "runs", seeds=seeds))["H100 80 GB"].stages()
        days.append(sum(stage.hours() for stage in stages) / 8 / 24)  # evaluations side by side
    assert 18 < days[0] < 24 and "take three weeks" in PAGE
    assert 6 < days[1] < 8 and "one seed takes one" in PAGE
    disk = costs.estimates(hard)["H100 80 GB"].disk()
    assert 2 * disk["all runs"] + disk["a run at work, besides"] < 400e9 and "400 GB of local SSD" in PAGE
    assert disk["host memory to save and to go on"] < 256e9 and "256 GB of memory" in PAGE


def test_a_cache_without_room_for_one_response_does_not_fit(hard: config.Config) -> None:
    estimate = Estimate(with_(hard, "rollouts", gpu_memory=0.08), HARD, GPUS["H100 80 GB"], Assumptions())
    assert estimate.peak() < GPUS["H100 80 GB"].memory and not estimate.fits()


def test_other_configurations_and_models_are_refused_by_name(settings: config.Config, hard: config.Config) -> None:
    with pytest.raises(ConfigError, match=r"worked out for task.name = 'math', as in paper_hard, not 'countdown'"):
        costs.estimates(settings)
    with pytest.raises(ConfigError, match=r"for train.layout = 'packed', as in paper_hard, not 'padded'"):
        Estimate(with_(hard, "train", layout="padded"), HARD, ROUND, Assumptions())
    with pytest.raises(ConfigError, match=r"for hardware.shard_weights = False, as in paper_hard, not True"):
        costs.estimates(with_(hard, "hardware", shard_weights=True))
    with pytest.raises(ConfigError, match="of type qwen2, not 'llama'"):
        Shape.of(LlamaConfig())


def test_the_check_of_the_base_model_is_that_of_its_notebook() -> None:
    cells = json.loads((ROOT / "notebooks" / "01_base_model.ipynb").read_text(encoding="utf-8"))["cells"]
    (parameters,) = ("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", ()))
    assert (
        f"questions = {costs.CHECKED_QUESTIONS} " in parameters and f"samples = {costs.CHECKED_SAMPLES} " in parameters
    )


def test_another_model_is_looked_up(hard: config.Config, base_model: Path) -> None:
    other = with_(hard, "base_model", pretrained=str(base_model))
    assert costs.estimates(other)["H100 80 GB"].shape.hidden == 32
    assert "responses of 3,072 tokens on average and 3,072 at most" in cost_tables.report(other)
    missing = with_(hard, "base_model", pretrained=str(base_model / "nothing"))
    with pytest.raises(ConfigError, match=r"cannot be had .*: hf download"):
        costs.estimates(missing)


def test_the_tables_of_the_document_are_the_present_ones() -> None:
    written = sections.read(ROOT / "docs" / "paper_scale.md", cost_tables.SECTION)
    assert written == cost_tables.reports(ROOT / "conf"), "write them again: python -m riskpo_study.cost_tables --write"


def test_the_report_says_where_a_profile_does_not_fit(hard: config.Config) -> None:
    assert "too much" not in cost_tables.report(hard)
    assert "which is too much: lower" in cost_tables.report(with_(hard, "rollouts", gpu_memory=0.6))


def test_the_command_prints_the_present_configuration_or_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hard: config.Config
) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(hard.as_dict()))
    monkeypatch.chdir(tmp_path)
    assert cost_tables.main([]) == 0
    assert capsys.readouterr().out.startswith("`paper_hard`: deepseek-ai/")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(with_(hard, "train", layout="padded").as_dict()))
    assert cost_tables.main([]) == 1
    assert capsys.readouterr().err.count("\n") == 1
