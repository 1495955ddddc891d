"""The configuration: every shipped profile parses, every bad value is refused by name."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from riskpo_study import config, profiles, tuning
from riskpo_study.algorithms import ALGORITHMS
from riskpo_study.errors import ConfigError

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
PROFILES = profiles.available(CONF)


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    """The committed params.yaml, with the values that the messages below quote held fixed."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["risk"] = {"alpha": 0.2, "beta": 0.8, "omega": 0.5, "bundle_size": 5}
    values["train"] |= {"questions": 40, "mini_batches": 2}
    values["base_model"] |= {"width": 128, "heads": 4, "kv_heads": 2}
    values["evaluation"] |= {"samples": 64, "ks": [1, 64]}
    return values


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the shipped conf/, a params.yaml to compose and what marks a root."""
    (tmp_path / "conf").symlink_to(CONF)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text("profile: none\n")
    return tmp_path


def changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with `value` at the dotted `path`; with `...` the key is taken out."""
    result = copy.deepcopy(values)
    *sections, key = path.split(".")
    place = result
    for section in sections:
        place = place[section]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.stepz", 3, "train.stepz is not a known key; the closest is train.steps."),
        ("trian", {}, "trian is not a known key; the closest is train."),
        ("risk.omega", ..., "risk.omega is missing."),
        ("risk", 3, "risk must be a mapping of keys to values, not 3."),
        ("train.steps", "3", "train.steps = '3' must be an integer."),
        ("train.steps", 3.0, "train.steps = 3.0 must be an integer."),
        ("train.steps", True, "train.steps = True must be an integer."),
        ("train.steps", None, "train.steps = None must be an integer."),
        ("train.steps", 0, "train.steps = 0 must be at least 1."),
        (
            "train.learning_rate",
            "1e-3",
            (
                "train.learning_rate = '1e-3' must be a number; in YAML write it without quotes, with a dot and a "
                "signed exponent: 1.0e-03."
            ),
        ),
        ("train.learning_rate", "fast", "train.learning_rate = 'fast' must be a number."),
        ("train.learning_rate", 0, "train.learning_rate = 0.0 must be greater than 0."),
        ("train.learning_rate", float("nan"), "train.learning_rate = nan must be finite."),
        ("train.kl_coefficient", -0.1, "train.kl_coefficient = -0.1 must be at least 0."),
        ("train.schedule", "linear", "train.schedule = 'linear' must be one of constant, cosine."),
        ("train.responses", 1, "train.responses = 1 must be at least 2."),
        (
            "train.questions",
            42,
            "train.questions = 42 must be a multiple of risk.bundle_size = 5; the nearest are 40 and 45.",
        ),
        (
            "train.mini_batches",
            3,
            "train.questions = 40 must be a multiple of train.mini_batches = 3; the nearest are 39 and 42.",
        ),
        ("risk.alpha", 0.8, "risk.alpha = 0.8 must be smaller than risk.beta = 0.8."),
        ("risk.alpha", -0.1, "risk.alpha = -0.1 must be between 0 and 1."),
        ("risk.beta", 1.5, "risk.beta = 1.5 must be between 0 and 1."),
        (
            "evaluation.ks",
            [1, 128],
            "evaluation.ks contains 128, but pass@k needs k <= evaluation.samples = 64.",
        ),
        ("evaluation.ks", [], "evaluation.ks = [] must be a list of at least one value."),
        ("evaluation.ks", [2, 4], "evaluation.ks = [2, 4] lacks 1: the accuracy is pass@1."),
        ("evaluation.ks", 3, "evaluation.ks = 3 must be a list of at least one value."),
        ("evaluation.ks", [1, "2"], "evaluation.ks[1] = '2' must be an integer."),
        (
            "evaluation.quantile_levels",
            [0.5, 1.5],
            "evaluation.quantile_levels[1] = 1.5 must be between 0 and 1.",
        ),
        ("evaluation.confidence", 1, "evaluation.confidence = 1.0 must be between 0 and 1, both excluded."),
        ("runs.seeds", [0, 1, 0], "runs.seeds lists 0 twice."),
        ("runs.algorithms", ["grpo", "grpo"], "runs.algorithms lists 'grpo' twice."),
        (
            "algorithms.grpo",
            ...,
            "runs lists grpo: give its options as algorithms.grpo, {} for none.",
        ),
        ("algorithms.riskpo", None, "algorithms.riskpo = None must be a mapping; write {} for an empty one."),
        (
            "algorithms.riskpo",
            {"learning_rate": -1},
            "algorithms.riskpo.learning_rate = -1.0 must be greater than 0.",
        ),
        (
            "algorithms.riskpo",
            {"bundle_size": 3},
            (
                "algorithms.riskpo: 40 questions do not fill bundles of 3; choose a multiple of the bundle size, for "
                "example 42"
            ),
        ),
        (
            "algorithms.riskpo",
            {"omega": -1.0},
            "algorithms.riskpo: omega = -1.0 is no extra weight of a tail; choose a finite value of at least 0",
        ),
        (
            "algorithms.riskpo",
            {"alpha": 0.9},
            ("algorithms.riskpo: alpha = 0.9 is not below beta = 0.8; the middle of the distribution would be empty"),
        ),
        (
            "algorithms.riskpo",
            {"matched_to": "nobody"},
            "algorithms.riskpo.matched_to = 'nobody' is no algorithm of the configuration.",
        ),
        (
            "tuning.own",
            {"riskpo": [{"learning_rate": 1e-3}] * 2},
            (
                "tuning.own.riskpo has 2 candidates, tuning.candidates 1: give every algorithm equally many, or one is "
                "tuned better than the others."
            ),
        ),
        (
            "tuning.candidates",
            [{"baseline": "group"}],
            "The tuning candidate {'baseline': 'group'} has no learning_rate: give it one.",
        ),
        ("tuning.seed", 1, "tuning.seed = 1 is the seed of a run: tune with another."),
        (
            "tuning.own",
            {"riskop": [{"learning_rate": 1e-3}]},
            "tuning.own.riskop is of no algorithm of the configuration.",
        ),
        (
            "runs.further_algorithms",
            ["dapo"],
            "runs.further_algorithms = ['dapo'] and runs.further_seeds = []: give both or neither.",
        ),
        (
            "tuning.candidates",
            [{"learning_rate": 1e-3, "preset": "riskpo"}],
            "The tuning candidate {'learning_rate': 0.001, 'preset': 'riskpo'} has preset: only options are tried.",
        ),
        ("tuning.candidates", [{"learning_rate": 1e-3}] * 2, "tuning lists {'learning_rate': 0.001} twice."),
        (
            "algorithms.a/b",
            {"preset": "grpo"},
            "algorithms.a/b names files and stages: use a-z, 0-9 and _, and not base.",
        ),
        ("risk.omega", 10**400, "risk.omega has 401 digits: give a smaller number."),
        ("runs.further_seeds", 3, "runs.further_seeds = 3 must be a list."),
        ("evaluation.white_images", None, "evaluation.white_images = None must be a list."),
        ("evaluation.white_images", ["base", "base"], "evaluation.white_images lists 'base' twice."),
        (
            "base_model.patch_size",
            57,
            "base_model.patch_size = 57 must be at most 56: the vision transformer's windows are two patches wide.",
        ),
        (
            "task.name",
            "chess",
            "task.name = 'chess' is not implemented; known tasks: countdown, programs, math, code, geometry.",
        ),
        ("task.numbers", [3, 6], "task.numbers[1] = 6 must be between 2 and 5."),
        ("base_model.difficulties", [1, 3], "base_model.difficulties[0] = 1 must be between 2 and 5."),
        ("programs.operations", [3, 7], "programs.operations[1] = 7 must be between 1 and 6."),
        ("code.start", "1 May", "code.start = '1 May' must be a day such as '2024-08-01', or none."),
        ("task.name", "code", "task.name = 'code' needs a published model: name one in base_model.pretrained."),
        (
            "base_model.heads",
            3,
            "base_model.width = 128 must be a multiple of base_model.heads = 3; the nearest are 126 and 129.",
        ),
        (
            "profile",
            "../x",
            "profile = '../x' names a folder: use lower-case letters, digits, - and _.",
        ),
    ],
)
def test_bad_value_is_refused_by_name(shipped: dict[str, Any], path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.from_mapping(changed(shipped, path, value))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("riskpo", {"baseline": "nope"}),
        ("riskpo", {"bundling": "nope"}),
        ("riskpo", {"step": -0.1}),
        ("riskpo", {"tracker": "histogram", "decay": 2.0}),
        ("riskpo_released", {"omega": 3.5}),
        ("grpo", {"clip_low": -1.0}),
        ("riskpo_released", {"clip_dual": 0.0}),
        ("entropic", {"beta": 0.0}),
        ("focal", {"gamma": -1.0}),
        ("base", {"preset": "grpo"}),
        ("mine", {"preset": "riskpo", "matched_to": ["grpo"]}),
        ("pass_at_k", {"k": 20}),
        ("mvar_accuracy", {"utility": "nope"}),
        ("mine", {"preset": "nope"}),
        ("mine", {"omega": 1.0}),
    ],
)
def test_bad_option_is_refused_before_anything_runs(
    shipped: dict[str, Any], algorithm: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=rf"^algorithms\.{algorithm}\b"):
        config.from_mapping(changed(shipped, f"algorithms.{algorithm}", options))


@pytest.mark.parametrize("path", ["algorithms.grop", "algorithms.riskpo.omeg", "runs.algorithms"])
def test_unknown_algorithm_or_option_lists_the_known(shipped: dict[str, Any], path: str) -> None:
    value: Any = ["grop"] if path == "runs.algorithms" else {}
    with pytest.raises(ConfigError) as error:
        config.from_mapping(changed(shipped, path, value))
    known = ["baseline", "tracker"] if "riskpo" in path else list(ALGORITHMS)
    assert all(name in str(error.value) for name in known)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("rollouts.max_model_len", 3072, "rollouts.max_model_len = 3072 is for prompt and response"),
        ("hardware.tracker", "tensorbord", "hardware.tracker = 'tensorbord' is unknown; choose one of none, "),
        ("math.training", ["gsm9k"], "math.training: dataset 'gsm9k' is unknown; choose one of dapo_math_17k, "),
        ("math.evaluation", ["gsm9k"], "math.evaluation: dataset 'gsm9k' is unknown; choose one of "),
        ("math.training", ["math_test"], "math.training and math.evaluation both list math_test"),
        ("math.instruction", "polite", "math.instruction = 'polite' is unknown; choose one of boxed, dapo, think."),
    ],
)
def test_contradictions_of_a_profile_on_mathematics_are_named(
    project: Path, path: str, value: Any, message: str
) -> None:
    pytest.importorskip("accelerate")
    settings = profiles.compose("paper_easy", project / "params.yaml").as_dict()
    settings["train"]["max_new_tokens"] = 3072
    settings["rollouts"]["max_model_len"] = 3073
    config.from_mapping(settings)
    with pytest.raises(ConfigError) as error:
        config.from_mapping(changed(settings, path, value))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "training",
            ["taco", "apps"],
            "code.training = ['taco', 'apps']: part 'apps' is unknown; choose one of taco, primeintellect, lcbv5.",
        ),
        ("release", "v5", "code.release = 'v5' is unknown; choose one of release_v1, release_v2, "),
        ("start", "2025-02-01", "code.start = '2025-02-01' is after code.end = '2025-01-31': exchange them."),
    ],
)
def test_contradictions_of_a_profile_on_programs_are_named(project: Path, key: str, value: Any, message: str) -> None:
    pytest.importorskip("accelerate")
    settings = profiles.compose("paper_code", project / "params.yaml").as_dict()
    with pytest.raises(ConfigError) as error:
        config.from_mapping(changed(settings, f"code.{key}", value))
    assert message in str(error.value)


def test_sections_are_checked_in_python_too(shipped: dict[str, Any]) -> None:
    assert config.Risk(alpha=0).alpha == 0.0
    with pytest.raises(ConfigError, match="risk.bundle_size = 0 must be at least 1"):
        config.Risk(bundle_size=0)


def test_values_take_their_declared_type(shipped: dict[str, Any]) -> None:
    loaded = config.from_mapping(changed(shipped, "train.temperature", 1))
    assert isinstance(loaded.train.temperature, float)
    assert isinstance(loaded.task.numbers, tuple)
    assert config.from_mapping(loaded.as_dict()) == loaded


def test_load_finds_the_project_from_below(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT / "conf" / "profile")
    assert config.root() == ROOT
    assert config.load() == config.load(ROOT / "params.yaml")
    assert config.load().results == ROOT / "results" / "quick"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="run from inside the project"):
        config.load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profile: [", "bad.yaml is not valid YAML: "),
        ("", "bad.yaml: The configuration must be a mapping"),
        ("profile: quick", "bad.yaml: runs is missing."),
    ],
)
def test_load_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        config.load(file)
    assert message in str(error.value)


def test_load_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read .*params\.yaml: No such file"):
        config.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_shipped_profile_parses(project: Path, profile: str) -> None:
    composed = profiles.compose(profile, project / "params.yaml")
    assert composed.profile == profile
    assert config.load(project / "params.yaml") == composed
    variants = {name for name, options in composed.algorithms.items() if "preset" in options}
    assert set(composed.algorithms) - variants == set(ALGORITHMS)


def test_study_compares_every_algorithm(project: Path) -> None:
    assert profiles.compose("study", project / "params.yaml").runs.algorithms == tuple(ALGORITHMS)


@pytest.mark.parametrize("profile", ["paper_hard", "paper_easy", "paper_code"])
def test_profiles_of_the_paper_train_in_whole_bundles_on_every_gpu(project: Path, profile: str) -> None:
    composed = profiles.compose(profile, project / "params.yaml")
    assert composed.train.questions % (composed.risk.bundle_size * composed.train.mini_batches) == 0
    assert composed.task.name in ("math", "code") and composed.base_model.pretrained != "none"
    assert composed.train.max_new_tokens < composed.rollouts.max_model_len
    shared = {*composed.runs.seeds} & {*composed.runs.further_seeds}
    assert not composed.runs.ablations or shared  # the cells are compared with RiskPO, seed by seed


def test_committed_params_are_the_quick_profile(project: Path) -> None:
    profiles.compose("quick", project / "params.yaml")
    assert (project / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def test_compose_writes_the_bytes_of_dvc(project: Path) -> None:
    from dvc.utils.hydra import compose_and_dump

    theirs = project / "theirs.yaml"
    compose_and_dump(theirs, str(CONF), None, "config", str(project), ["profile=smoke", "train.steps=7"])
    profiles.compose("smoke", project / "params.yaml", ["train.steps=7"])
    assert (project / "params.yaml").read_bytes() == theirs.read_bytes()
    assert config.load(project / "params.yaml").train.steps == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nope"],
            "Unknown profile 'nope'; known: paper_code, paper_easy, paper_geometry, ",
        ),
        (["quick", "train.stepz=3"], "Cannot compose profile 'quick': "),
        (["quick", "train.steps=0"], "Profile 'quick': train.steps = 0 must be at least 1."),
    ],
)
def test_command_line_explains_itself(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(project)
    assert profiles.main(arguments) == 1
    assert message in capsys.readouterr().err
    assert (project / "params.yaml").read_text() == "profile: none\n"
    assert profiles.main(["smoke"]) == 0
    assert config.load().profile == "smoke"


@pytest.mark.parametrize("file", [CONF / "config.yaml", *(CONF / "profile").glob("*.yaml")], ids=lambda file: file.stem)
def test_every_key_has_a_comment_above(file: Path) -> None:
    lines = file.read_text().splitlines()
    sections = (
        {f"{section}:" for section in config.Config.__dataclass_fields__} - {"profile:", "runs:"}
        if file.parent.name == "profile"
        else set()
    )
    for above, line in zip(["", *lines], lines, strict=False):
        if ":" in line and not line.lstrip().startswith(("#", "-")) and line not in sections:
            same_kind = "{preset:" in line and "{preset:" in above  # variants of one option share a comment
            assert same_kind or above.lstrip().startswith("#"), f"no comment above {line!r}"


def test_a_variant_needs_a_tuned_preset(shipped: dict[str, Any]) -> None:
    values = changed(shipped, "runs.further_algorithms", ["other"])
    values["runs"]["further_seeds"] = [7]
    values["algorithms"]["other"] = {"preset": "rloo", "matched_to": "riskpo"}
    with pytest.raises(ConfigError, match=r"algorithms.other takes what rloo chose in tuning: add it to"):
        config.from_mapping(values)
    values["algorithms"]["other"]["preset"] = "grpo"
    with pytest.raises(ConfigError, match=r"algorithms.other.matched_to needs at least two tuning.candidates"):
        config.from_mapping(values)
    del values["algorithms"]["other"]["matched_to"]
    config.from_mapping(values)
    with pytest.raises(ConfigError, match=r"algorithms.gspo takes what gspo chose in tuning: add it to"):
        config.from_mapping(changed(values, "runs.further_algorithms", ["gspo"]))
    values["runs"] |= {"algorithms": ["grpo", "riskpo", "other"], "further_algorithms": [], "further_seeds": []}
    config.from_mapping(values)  # with one candidate nothing is tuned
    values = changed(values, "tuning.candidates", [{"learning_rate": 1e-5}, {"learning_rate": 1e-4}])
    with pytest.raises(ConfigError, match=r"runs.algorithms lists other, a variant that takes what grpo chose"):
        config.from_mapping(values)


def test_a_profile_is_no_other_task_of_its_own() -> None:
    settings = replace(config.load(ROOT / "params.yaml"), profile="test")
    with pytest.raises(ConfigError, match="runs.tasks lists test, this profile itself"):
        replace(settings, runs=replace(settings.runs, tasks=("test",)))


def test_other_tasks_take_the_options_that_the_study_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And their records, which the study's report reads, are committed."""
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.chdir(ROOT)
    study = tuning.so_far(profiles.compose("study", tmp_path / "params.yaml"))
    assert study.runs.tasks
    for name in study.runs.tasks:
        other = profiles.compose(name, tmp_path / "params.yaml")
        for algorithm in other.runs.algorithms:
            (carried,) = other.tuning.of(algorithm)
            assert {**other.algorithms[algorithm], **carried} == study.algorithms[algorithm]
        assert (ROOT / "results" / name / "records" / "counts.parquet").is_file()
