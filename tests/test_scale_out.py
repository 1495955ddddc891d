"""What runs take on many GPUs: the formulas by hand, how they scale, and what docs/scale_out.md says of them."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from riskpo_study import config, profiles, records, scale_out, sections, staleness
from riskpo_study.gpus import GIB
from riskpo_study.scale_out import GPU_COUNTS, SIZES, Run, ScaleOut

ROOT = config.root()
PAGE = (ROOT / "docs" / "scale_out.md").read_text(encoding="utf-8")
SCRIPT = (ROOT / "examples" / "verl" / "run.sh").read_text(encoding="utf-8")


def on(size: str, gpus: int) -> ScaleOut:
    shape, tensor_parallel = SIZES[size]
    return ScaleOut(shape, tensor_parallel, gpus)


def seconds(size: str, gpus: int) -> float:
    return sum(on(size, gpus).step().values())


def apart(size: str, gpus: int) -> float:
    division = on(size, gpus).apart()
    assert division is not None
    return division[1]


# By hand


def test_memory_of_seven_billion_parameters_on_eight_gpus() -> None:
    parts = on("7B", 8).memory()
    n = SIZES["7B"][0].parameters
    assert parts["generation"] == {
        "weights, moments": 12 * n / 8, "reserve": 3 * GIB, "vLLM": pytest.approx(0.6 * 79.1 * GIB),
    }  # fmt: skip
    update = parts["update"]
    assert update["gradients"] == 4 * n / 8
    assert update["logits"] == 6 * 16_384 * 152_064
    # 2D a block and token, one block's 20D + 4K + 8F, and the backward pass's 4F + 8D.
    assert update["activations"] == 16_384 * (28 * 2 * 3584 + 28 * 3584 + 4 * 512 + 12 * 18944)
    assert on("7B", 8).peak("update") == sum(update.values())


def test_time_of_generation_by_hand() -> None:
    """One engine of four GPUs that answers 150 responses: all find room, so 3 072 steps."""
    found = on("32B", 128)
    t, tokens, context = 4, 150 * 0.85 * 3072, 150 + 0.85 * 3072 / 2
    reading = 3.35e12 * 0.6
    weights = (64 * (5120 * (2 * 5120 + 2 * 1024 + 3 * 27648)) + 152_064 * 5120) / t
    assert 150 * context < found.engine.cached_tokens()
    expected = 3072 * 2 * weights / reading + tokens * context * 4 * 64 * 1024 / t / reading
    expected += 2 * 64 * (3072 * 15e-6 + 1.5 * 2 * 5120 * tokens / (450e9 * 0.7)) + 3072 * 3e-3 + tokens * 15e-6
    assert found.generate() == pytest.approx(expected)


def test_collectives_limit_small_updates() -> None:
    """With one short micro-batch an update and GPU, sending 8 bytes a parameter takes longer than computing."""
    found = replace(on("32B", 256), run=Run(questions=5))
    sending = 8 * found.shape.parameters * 255 / 256 / (50e9 * 0.7)
    assert found.learn() == pytest.approx(4 * sending, rel=0.01)
    assert on("32B", 256).learn() > found.learn()  # where computing limits


def test_a_cache_without_room_means_more_steps() -> None:
    """7B on 8 GPUs: 600 responses an engine and room for fewer."""
    found = on("7B", 8)
    context = found.assumed.prompt + found.response / 2
    assert found.engine.cached_tokens() / context < 600
    roomy = replace(found, run=replace(found.run, engine_memory=0.9))
    assert roomy.engine.cached_tokens() > found.engine.cached_tokens() and roomy.generate() < found.generate()


# How they scale


@pytest.mark.parametrize("size", SIZES)
def test_more_gpus_are_faster_and_dearer(size: str) -> None:
    times = [seconds(size, gpus) for gpus in GPU_COUNTS if on(size, gpus).fits()]
    assert len(times) >= 5
    for before, after in pairwise(times):
        assert before / 2.01 < after < before
    memory = [on(size, gpus).peak("update") for gpus in GPU_COUNTS]
    assert memory == sorted(memory, reverse=True)


def test_what_fits() -> None:
    assert [(size, gpus) for size in SIZES for gpus in GPU_COUNTS if not on(size, gpus).fits()] == [("32B", 8)]
    assert not replace(on("32B", 64), tensor_parallel=1).fits()  # 65 GB of weights in 0.6 of a GPU


@pytest.mark.parametrize(("size", "gpus"), [("1.5B", 64), ("7B", 128), ("32B", 256)])
def test_the_best_division_is_no_worse_than_any_other(size: str, gpus: int) -> None:
    """One worked out by hand from runs on fewer GPUs; the best, and its neighbours, of all."""
    found = on(size, gpus)
    division = found.apart()
    assert division is not None
    drawing, best = division
    assert 0 < drawing < gpus and drawing % found.tensor_parallel == 0
    engines = replace(found, gpus=drawing, run=replace(found.run, engine_memory=0.85))
    trainers = replace(found, gpus=gpus - drawing)
    sending = 2 * found.shape.parameters / (50e9 * 0.7)
    assert best == pytest.approx(max(engines.generate(), trainers.score() + trainers.learn()) + sending)
    for other in (drawing - found.tensor_parallel, drawing + found.tensor_parallel, gpus // 2):
        assert found.divided(other) >= best


def test_what_no_division_has_room_for_is_told() -> None:
    assert on("32B", 16).apart() is None and scale_out._cells(on("32B", 16))[-1] == "2891"  # no two cells after it
    assert replace(on("1.5B", 8), run=Run(longest=10_000_000)).apart() is None  # no cache holds such a response


# The page


def test_the_table_of_the_page_is_the_present_one() -> None:
    written = sections.read(ROOT / "docs" / "scale_out.md", scale_out.SECTION)
    assert written == scale_out.table(), "python -m riskpo_study.scale_out writes it"


def test_the_run_is_that_of_the_script() -> None:
    hard = SCRIPT[SCRIPT.index("hard)") : SCRIPT.index("easy)")]
    run = Run()
    assert f"QUESTIONS:-{run.questions}}}" in hard and f"MINI_BATCH:-{run.questions // run.updates}}}" in hard
    assert f"RESPONSES={run.responses} RESPONSE_TOKENS={run.longest} STEPS={run.steps}" in hard
    assert f"gpu_memory_utilization={run.engine_memory}" in SCRIPT and f"max_num_seqs={run.sequences}" in SCRIPT
    assert f"data.max_prompt_length={run.longest_prompt}\n" in SCRIPT
    assert "ppo_max_token_len_per_gpu" not in re.sub(r"#.*", "", SCRIPT)  # verl's default, 16 384


def test_batches_divide_among_the_gpus_as_the_script_says() -> None:
    """verl wants the responses of an update to divide among the GPUs, eight a node."""
    divide = []
    for run in ("hard", "easy"):
        section = SCRIPT[SCRIPT.index(f"\n{run})") :]
        found = [re.search(rf"\b{name}\D+(\d+)", section) for name in ("QUESTIONS", "MINI_BATCH", "RESPONSES")]
        questions, mini_batch, responses = (int(number[1]) for number in found if number)
        assert questions % mini_batch == 0 and mini_batch % 5 == 0
        divide.append([nodes for nodes in range(1, 7) if mini_batch * responses % (8 * nodes) == 0])
    assert divide == [[1, 2, 3, 5, 6], [1, 2, 3, 4, 5, 6]]
    text = " ".join(SCRIPT.replace("\n#", "").split())
    assert "among the GPUs of up to 6 nodes, but for `hard` on 4: QUESTIONS=640 MINI_BATCH=160 is right there" in text
    assert 640 % 160 == 160 * Run().responses % (8 * 4) == 160 % 5 == 0


def test_larger_batches_of_the_page_are_those_that_the_script_asks_for() -> None:
    """The smallest multiples of the bundle size that divide, four updates each."""
    run = Run()
    text = " ".join(PAGE.split())
    asked = {}
    for gpus in GPU_COUNTS:
        fits = next(n for n in range(120, 10_000, 5) if n * run.responses % gpus == 0)
        asked[gpus] = fits * run.updates
    assert list(asked.values()) == [480, 480, 640, 640, 1280, 2560]
    assert "640 questions on 32 or 64 GPUs, 1 280 on 128 and 2 560 on 256" in text


def test_what_the_page_says_of_the_table() -> None:
    floors = {size: replace(on(size, 256), run=Run(questions=1, responses=1)).generate() for size in SIZES}
    said = "take 14 s (1.5B), 31 s (7B) or 40 s (32B)"
    assert said == "take {:.0f} s (1.5B), {:.0f} s (7B) or {:.0f} s (32B)".format(*floors.values())
    assert said in " ".join(PAGE.split())
    for size in ("1.5B", "7B"):
        for gpus in (64, 128):
            assert seconds(size, 2 * gpus) > 2 / 3 * seconds(size, gpus)
        assert apart(size, 64) == pytest.approx(0.75 * seconds(size, 64), rel=0.04)
        assert apart(size, 16) > 0.94 * seconds(size, 16)
    assert apart("7B", 128) == pytest.approx(2 / 3 * seconds("7B", 128), rel=0.04)
    assert round(on("1.5B", 8).response) == 2611


def test_what_the_page_says_of_staleness_is_of_the_studys_runs() -> None:
    study = profiles.composed("study", ROOT / "conf")[1]
    metrics = records.read(ROOT / "results" / "study", "metrics", study)
    fastest = staleness.measured(metrics, 40, study.risk).sort_values("drift").iloc[-1]
    text = " ".join(PAGE.split())
    assert f"moves by {1000 * fastest['drift']:.1f} ‰ a step, which makes {fastest['rule']:.0f} steps" in text


def test_what_the_page_says_of_unlike_shards() -> None:
    study = profiles.composed("study", ROOT / "conf")[1]
    found = staleness.unlike_shards(0.5, torch.linspace(0, 0.4, 81), study.risk).set_index("design")
    own = found.loc["bundles and quantiles of one shard"]
    ratio = own["hard"] / own["easy"]
    assert f"weighs {ratio.min():.1f} to {ratio.max():.1f} times an easy one" in " ".join(PAGE.split())
