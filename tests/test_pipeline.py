"""The pipeline's definition: every stage names its code, parameters and outputs; git holds what it made."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from papermill import inspect_notebook

from riskpo_study import config, profiles, tasks
from riskpo_study.errors import ConfigError

ROOT = Path(__file__).parents[1]
PACKAGE = "riskpo_study"
DVC = [sys.executable, "-m", "dvc"]
DEFINITION = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = DEFINITION["stages"]
SECTIONS = {"runs", "task", "programs", "geometry", "base_model", "risk", "train", "algorithms", "evaluation"}
# What these modules do (check, name, write) does not decide what is computed.
NEUTRAL = {f"{PACKAGE}/{module}.py" for module in ("__init__", "config", "errors", "files", "notebooks", "tracking")}


def words(stage: str) -> list[str]:
    """The stage's last command with `${papermill}` filled in and the other variables left as they are."""
    command = STAGES[stage]["cmd"].rpartition("&&")[2]
    return shlex.split(command.replace("${papermill}", DEFINITION["vars"][0]["papermill"]))


def notebook(stage: str) -> str | None:
    return next((word for word in words(stage) if word.startswith("notebooks/")), None)


def dependencies(stage: str) -> set[str]:
    return set(STAGES[stage].get("deps", []))


def outputs(stage: str) -> dict[str, dict[str, Any]]:
    """Path → options (`cache`, `persist`) of everything the stage writes."""
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in STAGES[stage].get(kind, [])]
    return dict(next(iter(entry.items())) if isinstance(entry, dict) else (entry, {}) for entry in entries)


def code(path: str) -> str:
    if not path.endswith(".ipynb"):
        return (ROOT / path).read_text()
    cells = json.loads((ROOT / path).read_text())["cells"]
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("%"))


def imported_modules(path: str) -> set[str]:
    """Files of the package that `path` imports when it is loaded, directly or through others."""
    found: set[str] = set()
    pending = [path]
    while pending:
        for module in _direct(code(pending.pop())):
            file = f"{module.replace('.', '/')}.py"
            for candidate in (file, f"{module.replace('.', '/')}/__init__.py"):
                if candidate not in found and (ROOT / candidate).is_file():
                    found.add(candidate)
                    pending.append(candidate)
    of_task = {f"{PACKAGE}/tasks/${{task.name}}.py"} if f"{PACKAGE}/tasks/__init__.py" in found else set()
    return found - NEUTRAL | of_task


def _direct(source: str) -> Iterator[str]:
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(PACKAGE))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if not isinstance(node, ast.FunctionDef) and not (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            pending.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_lists_its_code(stage: str) -> None:
    """The notebook or module it runs and every module loaded by it: no more, no less."""
    if path := notebook(stage):
        expected = {path} | imported_modules(path)
    else:
        module = re.search(rf"python -m ({PACKAGE}[\w.]*)", STAGES[stage]["cmd"])
        assert module, "a stage runs a notebook or a module"
        path = f"{module[1].replace('.', '/')}.py"
        expected = {path} | imported_modules(path)
    listed = {dependency for dependency in dependencies(stage) if dependency.endswith((".py", ".ipynb"))}
    assert listed == expected


def test_a_task_is_in_the_module_of_its_name() -> None:
    """So that the stages can name the module of theirs."""
    assert all((ROOT / PACKAGE / "tasks" / f"{name}.py").is_file() for name in tasks.TASKS)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if notebook(stage)])
def test_notebook_knows_its_parameters(stage: str) -> None:
    """papermill only warns about a parameter that the notebook does not have."""
    command = words(stage)
    given = {command[i + 1] for i, word in enumerate(command) if word in {"-p", "-r", "--parameters"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = set(inspect_notebook(str(ROOT / str(notebook(stage)))))
    assert given <= known


@pytest.mark.parametrize("stage", STAGES)
def test_stage_belongs_to_its_profile(stage: str) -> None:
    """The profile leads the stage's name, and every result lies under the profile's folder."""
    assert next(iter(STAGES[stage]["matrix"])) == "profile"
    assert STAGES[stage]["matrix"]["profile"] == ["${profile}"]
    results = [*outputs(stage), *(path for path in dependencies(stage) if path.startswith("results/"))]
    of_others = {"results/${item.task}/records/counts.parquet", "results/${item.task}/claims.csv"}
    assert results
    assert all(path.startswith("results/${item.profile}/") for path in results if path not in of_others)


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_exist(stage: str) -> None:
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name in STAGES[stage]["params"]:
        value = parameters
        for key in name.replace("${item.algorithm}", "riskpo").split("."):
            value = value[key]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if notebook(stage)])
def test_stage_lists_the_parameters_that_its_notebook_reads(stage: str) -> None:
    listed = set(STAGES[stage]["params"])
    for section, key in re.findall(r"\bsettings\.(\w+)\.(\w+)", code(str(notebook(stage)))):
        if section in SECTIONS:
            assert {section, f"{section}.{key}"} & listed, f"settings.{section}.{key}"


@pytest.mark.parametrize("stage", [stage for stage in STAGES if "geometry" in STAGES[stage]["params"]])
def test_stage_that_asks_depends_on_what_decides_the_questions_of_every_task(stage: str) -> None:
    shipped = config.load(ROOT / "params.yaml")
    deciding = {f"{section.key}.{key}" for section in (shipped.math, shipped.code) for key in section.deciding}
    assert {*deciding, "task", "programs.operations"} <= set(STAGES[stage]["params"])


def test_git_holds_what_is_not_cached() -> None:
    """.gitignore covers the outputs that only the DVC cache holds, and no other."""
    made_up = {
        "${item.profile}": "quick",
        "${item.algorithm}": "riskpo",
        "${item.seed}": "0",
        "${item.family}": "omega",
        "${item.task}": "study_large_numbers",
    }
    for stage in STAGES:
        for path, options in outputs(stage).items():
            for variable, value in made_up.items():
                path = path.replace(variable, value)
            ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0
            assert ignored == options.get("cache", True), path


def test_figures_need_only_what_git_holds() -> None:
    """Everything that `make figures` runs again depends on records and other figures alone."""
    held = {path for stage in STAGES for path, options in outputs(stage).items() if not options.get("cache", True)}
    targets = re.search(r"^FIGURES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    for stage in targets[1].split():
        assert all(not options.get("cache", True) for options in outputs(stage).values())
        for path in dependencies(stage):
            if path.startswith("results/"):
                path = path.replace("${item.task}", "${item.profile}")
                assert any(one == path or one.startswith(f"{path}/") for one in held)
                assert "/runs/" not in path


def test_figures_are_made_after_what_they_read() -> None:
    targets = re.search(r"^FIGURES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    order = targets[1].split()
    for position, stage in enumerate(order):
        later = {path for other in order[position:] for path in outputs(other)}
        assert not dependencies(stage) & later


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The definition alone, as a repository of its own."""
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


@pytest.mark.parametrize("profile", ["smoke", "study", "study_geometry"])
def test_dvc_reads_the_stages_of_each_profile(project: Path, profile: str) -> None:
    composed = profiles.compose(profile, project / "params.yaml")
    listed = subprocess.run(
        [*DVC, "stage", "list", "--name-only"], cwd=project, capture_output=True, text=True, check=True
    )
    runs = composed.runs
    of = {
        "${runs.algorithms}": [f"-{a}" for a in runs.algorithms],
        "${runs.algorithms} ${runs.seeds}": [f"-{a}-{s}" for a in runs.algorithms for s in runs.seeds],
        "${runs.further_algorithms} ${runs.further_seeds}": [
            f"-{a}-{s}" for a in runs.further_algorithms for s in runs.further_seeds
        ],
        "${runs.ablations}": [f"-{family}" for family in runs.ablations],
        "${runs.tasks}": [f"-{task}" for task in runs.tasks],
        "${evaluation.white_images}": [f"-{model}" for model in composed.evaluation.white_images],
        "": [""],
    }
    expected = {
        f"{stage}@{profile}{item}"
        for stage, body in STAGES.items()
        for item in of[" ".join(values for key, values in body["matrix"].items() if key != "profile")]
    }
    assert set(listed.stdout.split()) == expected


def test_dvc_draws_the_pipeline(project: Path) -> None:
    profiles.compose("smoke", project / "params.yaml")
    drawn = subprocess.run([*DVC, "dag", "--dot"], cwd=project, capture_output=True, text=True, check=True).stdout
    edges = set(re.findall(r'"([\w@-]+)" -> "([\w@-]+)"', drawn))
    assert ("base_model@smoke", "train@smoke-riskpo-0") in edges
    assert ("train@smoke-riskpo-0", "evaluate@smoke-riskpo-0") in edges
    assert ("evaluate@smoke-riskpo-0", "records@smoke") in edges
    assert ("records@smoke", "passk@smoke") in edges


def digest(path: Path) -> str:
    """DVC's hash of a file, or of a folder: that of the sorted list of its files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = [
        {"md5": digest(file), "relpath": file.relative_to(path).as_posix()}
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]
    text = json.dumps(sorted(files, key=lambda file: file["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode()).hexdigest() + ".dir"


@pytest.mark.skipif(not (ROOT / "dvc.lock").exists(), reason="the pipeline has not run yet")
def test_committed_results_come_from_the_committed_code(tmp_path: Path) -> None:
    """Every file in git that dvc.lock names, and every parameter, is as it was when the stage ran."""
    # DVC writes YAML 1.2; PyYAML would read its 5e-05 as a string.
    locks = [ROOT / "dvc.lock", *ROOT.glob("results/*/stages.lock")]
    texts = (re.sub(r"(?m)(: \d+)(e[-+]?\d+)$", r"\1.0\2", lock.read_text()) for lock in locks)
    locked = {name: entry for text in texts for name, entry in yaml.safe_load(text)["stages"].items()}
    in_git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    composed = cache(lambda profile: profiles.compose(profile, tmp_path / "params.yaml").as_dict())
    hashed = cache(lambda path: digest(ROOT / path))
    held = cache(lambda path: any(file == path or file.startswith(f"{path}/") for file in in_git))
    stale = []
    for name, entry in locked.items():
        for item in [*entry.get("deps", []), *entry["outs"]]:
            if held(item["path"]) and hashed(item["path"]) != item["md5"]:
                stale.append(f"{name}: {item['path']}")
        for key, value in entry.get("params", {}).get("params.yaml", {}).items():
            now: Any = composed(name.partition("@")[2].partition("-")[0])
            for part in key.split("."):
                now = now[part]
            if now != value:
                stale.append(f"{name}: {key}")
    assert not stale, "these changed since the stage ran: make repro, or dvc commit if no result can differ"


def test_switching_the_profile_exchanges_the_entries_of_the_lock_file(tmp_path: Path) -> None:
    """And back again, to the byte; entries that a run made meanwhile replace older ones."""
    lock = tmp_path / "dvc.lock"
    stages = {
        name: f"  {name}:\n    cmd: >-\n      a &&\n      b\n" for name in ("b@quick", "a@study-x-1", "a@quick-x-1")
    }
    head = "schema: '2.0'\nstages:\n"
    lock.write_text(head + stages["b@quick"] + stages["a@study-x-1"] + stages["a@quick-x-1"])
    profiles.exchange_lock(tmp_path, "quick")
    quick = lock.read_text()
    assert quick == head + stages["b@quick"] + stages["a@quick-x-1"]
    assert (tmp_path / "results/study/stages.lock").read_text() == head + stages["a@study-x-1"] + "# end\n"
    profiles.exchange_lock(tmp_path, "study")
    assert lock.read_text() == head + stages["a@study-x-1"]
    assert not (tmp_path / "results/study/stages.lock").exists()
    lock.write_text(lock.read_text().replace("b\n", "c\n") + "  new@smoke:\n    cmd: d\n")
    profiles.exchange_lock(tmp_path, "quick")
    assert lock.read_text() == quick
    assert "c\n" in (tmp_path / "results/study/stages.lock").read_text()
    assert (tmp_path / "results/smoke/stages.lock").read_text() == head + "  new@smoke:\n    cmd: d\n# end\n"
    profiles.exchange_lock(tmp_path, "quick")
    assert lock.read_text() == quick
    profiles.exchange_lock(tmp_path / "nothing", "quick")
    assert not (tmp_path / "nothing" / "dvc.lock").exists()


def test_a_profile_without_entries_leaves_no_lock_file_behind(tmp_path: Path) -> None:
    """DVC refuses one with empty `stages`; entries of profiles whose name begins alike are told apart."""
    lock = tmp_path / "dvc.lock"
    (tmp_path / "conf" / "profile").mkdir(parents=True)
    for name in ("my", "my-smoke"):
        (tmp_path / "conf" / "profile" / f"{name}.yaml").touch()
    text = "schema: '2.0'\nstages:\n  a@my-smoke:\n    cmd: a\n  b@my-smoke-x:\n    cmd: b\n  c@my-x:\n    cmd: c\n"
    lock.write_text(text)
    profiles.exchange_lock(tmp_path, "quick")
    assert not lock.exists()
    profiles.exchange_lock(tmp_path, "my-smoke")
    assert re.findall(r"cmd: (\w)", lock.read_text()) == ["a", "b"]
    profiles.exchange_lock(tmp_path, "my")
    assert re.findall(r"cmd: (\w)", lock.read_text()) == ["c"]


def test_the_newer_entry_wins_and_damaged_locks_are_refused(tmp_path: Path) -> None:
    lock, parked = tmp_path / "dvc.lock", tmp_path / "results" / "study" / "stages.lock"
    head = "schema: '2.0'\nstages:\n"
    parked.parent.mkdir(parents=True)
    parked.write_text(head + "  a@study:\n    cmd: old\n# end\n")  # as after an interruption, or git checkout
    lock.write_text(head + "  a@study:\n    cmd: new\n")
    profiles.exchange_lock(tmp_path, "study")
    assert lock.read_text() == head + "  a@study:\n    cmd: new\n" and not parked.exists()
    for damage in (head + "  a@study:\n    cmd: ol", "nothing of DVC", "\udcff"):
        parked.write_bytes(damage.encode(errors="surrogateescape"))
        with pytest.raises(ConfigError, match=r"stages.lock .*restore it \(git checkout"):
            profiles.exchange_lock(tmp_path, "study")
        assert lock.read_text() == head + "  a@study:\n    cmd: new\n"


def test_make_completes_an_exchange_that_was_interrupted(tmp_path: Path) -> None:
    """params.yaml says study already, and the entries of study still wait."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "params.yaml").write_text("profile: study\n")
    (tmp_path / "results" / "study").mkdir(parents=True)
    command = ["make", "--dry-run", "--old-file=.venv/.installed", "params.yaml", "PROFILE=study"]

    def planned() -> str:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "riskpo_study.profiles" not in planned()
    (tmp_path / "results" / "study" / "stages.lock").touch()
    assert "riskpo_study.profiles study" in planned()
