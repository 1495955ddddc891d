"""The base model: supervised training on demonstrations, what it saves, and that it repeats to the byte."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from riskpo_study import base_model, config, profiles, seeds, tasks
from riskpo_study.base_model import build_model, pretrain, response_loss, schedule, tokenize
from riskpo_study.config import BaseModel, Task
from riskpo_study.errors import ConfigError
from riskpo_study.policy import Policy
from riskpo_study.tasks.countdown import Countdown

TASK = Countdown(Task(name="countdown", numbers=(2, 3), largest_number=9, largest_target=30, questions=5))
CONFIG = BaseModel(
    pretrained="none",
    revision="main",
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    mlp_width=64,
    patch_size=8,
    vision_layers=1,
    vision_width=16,
    vision_mlp_width=32,
    difficulties=(2, 3),
    steps=80,
    batch_size=80,  # more than one chunk
    learning_rate=1e-2,
    warmup_steps=5,
    weight_decay=0.01,
    seed=0,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The loss frame and the folder of a trained model."""
    folder = tmp_path_factory.mktemp("base") / "model"
    return pretrain(TASK, CONFIG, folder, progress=False), folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_loss_falls(trained):
    frame, _ = trained
    assert list(frame["step"]) == list(range(1, 81))
    assert frame["loss"].iloc[0] == pytest.approx(math.log(42), rel=0.05)  # uniform: 42 words
    assert frame["loss"].iloc[-5:].mean() < 0.6 * frame["loss"].iloc[0]
    assert frame["learning_rate"].max() == CONFIG.learning_rate


def test_every_parameter_moves(trained):
    _, folder = trained
    before = build_model(CONFIG, TASK.build_tokenizer())
    after = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    assert after.keys() == dict(before.named_parameters()).keys()
    for name, parameter in before.named_parameters():
        assert parameter.requires_grad
        assert not torch.equal(parameter, after[name]), name


def test_the_folder_loads_with_the_auto_classes_and_answers(trained):
    _, folder = trained
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model) is Qwen2ForCausalLM
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sorted(contents(folder)) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    questions = TASK.questions("held_out")
    prompts = tokenizer([q.prompt for q in questions], return_tensors="pt", padding=True)
    torch.manual_seed(0)
    output = model.generate(**prompts, max_new_tokens=8, num_return_sequences=64)
    texts = tokenizer.batch_decode(output[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    verdicts = [TASK.verify(questions[i // 64], text) for i, text in enumerate(texts)]
    assert sum(v.answer is not None for v in verdicts) > 0.5 * len(verdicts)
    assert sum(v.reward for v in verdicts) > 0


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(trained, tmp_path):
    frame, folder = trained
    torch.manual_seed(12345)  # the global generator must not matter …
    state = torch.random.get_rng_state()
    again = pretrain(TASK, CONFIG, tmp_path / "again", progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)  # … nor be touched
    assert again.equals(frame)
    assert contents(tmp_path / "again") == contents(folder)
    other = pretrain(TASK, replace(CONFIG, seed=1, steps=1), tmp_path / "other", progress=False)
    assert other["loss"].item() != frame["loss"].iloc[0]


def test_the_loaded_tokenizer_is_the_task_s(trained, tmp_path):
    """Of a Qwen2 checkpoint AutoTokenizer would by itself make Qwen's tokenizer, which splits numbers."""
    _, folder = trained
    built, loaded = TASK.build_tokenizer(), AutoTokenizer.from_pretrained(folder)
    loaded.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    again = AutoTokenizer.from_pretrained(tmp_path)
    for prompt, solution in TASK.demonstrations(50, torch.Generator().manual_seed(0)):
        ids = built(f"{prompt} {solution}")["input_ids"]
        for tokenizer in (loaded, again):
            assert tokenizer(f"{prompt} {solution}")["input_ids"] == ids
            assert tokenizer.decode(ids) == built.decode(ids)


def test_response_loss_is_the_unpadded_loss_of_response_and_end(trained):
    _, folder = trained
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    demonstrations = TASK.demonstrations(100, torch.Generator().manual_seed(0), (2, 3))
    with torch.no_grad():
        chunks = list(base_model.chunks(tokenize(Policy(model, tokenizer), demonstrations)))
        padded = sum(response_loss(model, *chunk) for chunk in chunks)
        slow = torch.tensor(0.0)
        for prompt, solution in demonstrations:
            given = tokenizer(prompt)["input_ids"]
            ids = tokenizer(f"{prompt} {solution} <eos>")["input_ids"]
            scores = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            for position in range(len(given), len(ids)):
                slow -= scores[position - 1, ids[position]]
    assert len(chunks) == 2
    assert padded.item() == pytest.approx(slow.item(), rel=1e-5)


def test_schedule_warms_up_and_decays():
    rates = [schedule(step, 10, 4) for step in range(1, 11)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.1
    assert schedule(1, 10, 0) == 1.0


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    short = replace(CONFIG, steps=1)
    pretrain(TASK, short, folder, progress=False)
    before = contents(folder)

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", fail)
        with pytest.raises(KeyboardInterrupt):
            pretrain(TASK, replace(short, seed=1), folder, progress=False)
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]
    pretrain(TASK, replace(short, seed=1), folder, progress=False)
    assert contents(folder)["model.safetensors"] != before["model.safetensors"]


def test_a_head_of_odd_width_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"base_model\.width = 36 must be an even multiple of base_model\.heads = 4"):
        pretrain(TASK, replace(CONFIG, width=36), tmp_path / "model", progress=False)


@pytest.mark.parametrize("profile", ["study_programs", "study_geometry"])
def test_no_demonstrated_solution_is_longer_than_a_response_may_be(profile):
    shipped = profiles.composed(profile, config.root() / "conf")[1]
    task = tasks.build(shipped)
    shown = task.demonstrations(1000, seeds.generator(0, "longest"), shipped.base_model.difficulties)
    lengths = [len(ids) for ids in task.build_tokenizer()([solution for _, solution in shown])["input_ids"]]
    assert max(lengths) + 1 <= shipped.train.max_new_tokens
