"""What a notebook of the study must be: valid, without outputs, with one cell of plain parameters."""

from __future__ import annotations

import ast
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import papermill
import pytest
import yaml
from ipywidgets import interactive
from papermill.exceptions import PapermillExecutionError

from riskpo_study import config
from riskpo_study.errors import ConfigError
from riskpo_study.notebooks import check_parameters, check_steps, check_task, chosen_reference

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parameters(path: Path) -> dict[str, object]:
    """Names and values in the parameters cell; fails unless there is one such cell, of literals only."""
    (cell,) = (cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", []))
    found = {}
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign)
        (target,) = statement.targets
        assert isinstance(target, ast.Name)
        found[target.id] = ast.literal_eval(statement.value)
    return found


def test_is_valid_and_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not set(cell.metadata) - {"tags"}
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)


def test_cells_are_named(path: Path) -> None:
    """Ids that say what a cell is for, instead of random ones, keep differences between versions readable."""
    names = [cell.id for cell in read(path).cells]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalpha() and len(name) < 24 for name in names)


def test_begins_with_a_title_then_its_parameters(path: Path) -> None:
    title, second, *_ = read(path).cells
    assert title.cell_type == "markdown"
    assert title.source.startswith("# ")
    assert "**Question.**" in title.source
    assert "**Method.**" in title.source
    assert second.metadata.tags == ["parameters"]
    assert parameters(path)


def test_papermill_understands_the_defaults(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # papermill warns of what it cannot parse
        inspected = papermill.inspect_notebook(str(path))
    understood = {name: ast.literal_eval(entry["default"]) for name, entry in inspected.items()}
    assert understood == parameters(path)


def test_every_cell_compiles(path: Path) -> None:
    for cell in code_cells(path):
        compile(cell.source, f"{path.name}:{cell.id}", "exec")


def test_unknown_parameters_are_refused(path: Path) -> None:
    """In the cell after the parameters, with the names of all of them."""
    _, check, *_ = code_cells(path)
    (call,) = (node for node in ast.walk(ast.parse(check.source)) if isinstance(node, ast.Call))
    assert ast.unparse(call.func) == "check_parameters"
    assert [ast.literal_eval(argument) for argument in call.args] == list(parameters(path))


def test_check_names_the_unknown_parameter_and_the_known() -> None:
    injected = '# Parameters\nseed = 1\nalgoritm = "grpo"\n'
    with pytest.raises(ConfigError, match="no parameter algoritm; choose of algorithm, seed"):
        check_parameters("algorithm", "seed", history=["", 'algorithm = "riskpo"', injected])
    check_parameters("algoritm", "seed", history=["", injected])
    check_parameters("seed", history=["", "algoritm = 1"])  # typed in JupyterLab, not set by papermill
    check_parameters("seed")  # outside of IPython there is nothing to check


@pytest.mark.parametrize(
    ("default", "given", "message"),
    [
        ("steps = []", "steps = 60", r"steps = 60 is of type int, its default \[\] of type list"),
        ("seed = 0  # of the bootstrap", "seed = '1'", "seed = '1' is of type str, its default 0 of type int"),
        ("interactive = True", "interactive = 1", "interactive = 1 is of type int, its default True of type bool"),
        ("steps = []", "steps = float('nan')", "steps = float"),
    ],
)
def test_a_parameter_of_another_type_is_refused(default: str, given: str, message: str) -> None:
    name = default.partition(" ")[0]
    with pytest.raises(ConfigError, match=message):
        check_parameters(name, history=["", default, f"# Parameters\n{given}\n", "%matplotlib inline"])


def test_a_parameter_of_the_same_type_is_taken() -> None:
    check_parameters("accuracy", history=["%load_ext one", "accuracy = 0.3", "# Parameters\naccuracy = 1\n"])
    check_parameters("steps", history=["steps = []", "# Parameters\nsteps = [60]\n"])


@pytest.mark.parametrize("steps", [60, "60", [61], [60, "120"]])
def test_steps_must_have_records(steps: object) -> None:
    with pytest.raises(ConfigError, match=r"steps = .*; choose of \[0, 60, 120\]"):
        check_steps(steps, [0, 60, 120])


def test_steps_with_records_are_taken() -> None:
    check_steps([], [0, 60])
    check_steps([60], [0, 60])


def test_task_must_be_another_profile_with_records(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    settings = config.load()
    with pytest.raises(ConfigError, match=r"task = 'other' has no records; profiles with records are none yet \(make"):
        check_task(settings, "other")
    for profile in ("test", "other", "third"):
        (project / "results" / profile / "records").mkdir(parents=True)
        (project / "results" / profile / "records" / "counts.parquet").touch()
    check_task(settings, "other")
    with pytest.raises(ConfigError, match="task = 'fourth' has no records; profiles with records are other, third"):
        check_task(settings, "fourth")
    with pytest.raises(
        ConfigError, match="task = 'test' is the present profile itself; choose another .*: other, third"
    ):
        check_task(settings, "test")


def test_reference_must_have_runs_and_is_chosen_where_none_is_named() -> None:
    settings = config.load(ROOT / "params.yaml")
    settings = replace(settings, profile="test", runs=config.Runs(("dapo", "riskpo"), (0,)))
    assert [chosen_reference(settings, "", preferred) for preferred in ("riskpo", "grpo")] == ["riskpo", "dapo"]
    assert chosen_reference(settings, "riskpo", "dapo") == "riskpo"
    with pytest.raises(ConfigError, match="reference = 'rloo' has no runs in profile test; choose of dapo, riskpo"):
        chosen_reference(settings, "rloo", "dapo")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's notebooks and parameters, as profile `test`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("dvc.yaml", "notebooks"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    values = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"profile": "test"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def execute(project: Path, name: str, **given: object) -> nbformat.NotebookNode:
    """Run a notebook in its own folder, as JupyterLab does; the pipeline runs it in the root."""
    notebook = project / "notebooks" / f"{name}.ipynb"
    return papermill.execute_notebook(
        notebook,
        project / f"{name}.ipynb",
        given,
        kernel_name="python3",
        progress_bar=False,
        cwd=notebook.parent,
        execution_timeout=120,  # seconds for a cell: a test must not wait for ever
    )


def test_quickstart_has_sliders_and_runs_in_the_folder_of_the_notebooks(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in JupyterLab, but in this process: widgets can hang a kernel that nobody looks at."""
    monkeypatch.chdir(project / "notebooks")
    shown: list[object] = []
    monkeypatch.setattr("ipywidgets.widgets.interaction.display", shown.append)
    code = "\n".join(cell.source for cell in code_cells(ROOT / "notebooks" / "00_quickstart.ipynb"))
    with mpl.rc_context():
        exec(compile(code.replace("accuracy = 0.3", "accuracy = 0.4"), "00_quickstart", "exec"), {})
        plt.close("all")
    figures = project / "results" / "test" / "figures" / "00_quickstart"
    drawn = {"advantage", "framework", "landscape"}
    assert {file.name for file in figures.iterdir()} == {f"{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    assert "accuracy 0.4" in (figures / "advantage.svg").read_text()
    (box,) = shown
    assert isinstance(box, interactive)
    assert [control.description for control in box.children[:-1]] == ["α, β", "ω", "accuracy"]


def test_a_notebook_stops_at_a_parameter_it_does_not_have(project: Path) -> None:
    with pytest.raises(PapermillExecutionError, match="no parameter algoritm; choose of algorithm, seed, existing"):
        execute(project, "02_train", algoritm="grpo")
    assert not (project / "results").exists()
