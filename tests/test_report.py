"""From records to the report: the analysing notebooks run on synthetic records, cell by cell in this process."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import yaml
from synthetic import records

from riskpo_study import claims, compare, config, findings, presets, report, tables, tuning
from riskpo_study.algorithms import ALGORITHMS
from riskpo_study.config import Config
from riskpo_study.errors import DataError
from riskpo_study.findings import Study
from riskpo_study.records import BASE

ROOT = Path(__file__).parents[1]
MADE = ("04_entropy", "05_quantile_logprob", "06_passk", "09_risk_profiles")
SHOWN = [section for section in report.SECTIONS if section.folder in MADE]


def project(folder: Path) -> Path:
    """An empty project of two algorithms and seeds, eight questions and four responses to each."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["runs"] |= {"algorithms": ["grpo", "riskpo"], "seeds": [0, 1]}
    values["profile"] = "test"
    values["task"] |= {"numbers": [3, 4], "questions": 4}
    values["train"] |= {"steps": 20, "curve_samples": 4}
    values["evaluation"] |= {"samples": 8, "ks": [1, 2, 4, 8], "resamples": 200}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    shutil.copy(ROOT / "dvc.yaml", folder)
    return folder


def run(*names: str, **parameters: object) -> None:
    """Execute the code cells of notebooks in the working directory, the first of them with other `parameters`."""
    for name in names:
        cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        defaults, *code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        given = [f"{parameter} = {value!r}" for parameter, value in parameters.items()]
        exec(compile("\n".join([defaults, *given, *code]), name, "exec"), {"__name__": name})
        plt.close("all")


def keep(settings: Config) -> None:
    """Write records of the configured runs."""
    for name, frame in records(settings).items():
        path = settings.results / "records" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path, index=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with everything that the notebooks make from records. Tests that change it use a copy."""
    folder = project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch, mpl.rc_context():
        patch.chdir(folder)
        keep(config.load())
        run(*MADE)
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return config.load()


# The notebooks


def test_notebooks_make_what_the_report_shows(study: Config) -> None:
    figures = {path.relative_to(study.results / "figures").as_posix() for path in study.results.rglob("*.svg")}
    sections = SHOWN
    assert figures == {f"{s.folder}/{figure.name}.svg" for s in sections for figure in s.figures}
    assert all((study.results / "figures" / name).with_suffix(".png").is_file() for name in figures)
    for section in sections:
        for table in set(section.tables) - {"pairs"}:  # of algorithms that have no runs here
            assert (study.results / "tables" / section.folder / f"{table}.csv").is_file()


def test_pairs_are_compared_where_both_have_runs(study: Config) -> None:
    with mpl.rc_context():
        run("06_passk", pairs=[["riskpo", "grpo"], ["riskpo_stratified", "max_rl"]])
    folder = study.results / "tables" / "06_passk"
    _, parts = tables.read_parts(folder / "pairs.md")
    assert list(parts) == ["After training", "Pass@4 at equal accuracy"]
    assert parts["After training"]["Pair"].tolist() == ["RiskPO − GRPO"]
    assert list(parts["After training"]) == ["Pair", "Pass@1", "Pass@4", "Pass@8", "Entropy", "Seeds"]
    pair, gaps = tables.read(folder / "pairs.csv"), tables.read(folder / "differences.csv")
    assert pair is not None and gaps is not None
    shares, same = pair[pair["metric"] != "entropy"], gaps[gaps["algorithm"] == "riskpo"]
    assert shares[["metric", "value"]].to_numpy().tolist() == same[["metric", "value"]].to_numpy().tolist()


def test_ablations_run_on_their_defaults_where_a_profile_has_none(
    study: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with mpl.rc_context():
        run("08_ablation")
    assert "No variant of riskpo in the ablation omega has runs in profile test: list some" in capsys.readouterr().out
    assert not (study.results / "tables" / "08_ablation").exists()
    assert not (study.results / "figures" / "08_ablation").exists()


def test_table_of_pass_at_k_says_what_it_rests_on(study: Config) -> None:
    table = tables.read(study.results / "tables" / "06_passk" / "passk.csv")
    assert table is not None
    assert list(table.columns) == [
        "algorithm", "difficulty", "metric", "value", "low", "high", "n", "questions", "seeds",
    ]  # fmt: skip
    assert table["algorithm"].unique().tolist() == [BASE, "grpo", "riskpo"]
    assert table["metric"].unique().tolist() == ["Pass@1", "Pass@2", "Pass@4", "Pass@8", "Avg@8", "Maj@8"]
    assert table["difficulty"].unique().tolist() == ["all", "3", "4"]
    trained = table[table["algorithm"] != BASE]
    assert trained[["n", "seeds"]].drop_duplicates().to_numpy().tolist() == [[8, "0 1"]]
    assert (table["value"].between(table["low"], table["high"])).all()


def test_headline_is_nested_by_algorithm(study: Config) -> None:
    headline = json.loads((study.results / "metrics.json").read_text())
    assert list(headline) == [BASE, "grpo", "riskpo"]
    assert all(set(values) == {"entropy", "maj@8", "pass@1", "pass@8"} for values in headline.values())


def test_tables_and_figures_come_out_the_same_again(study: Config) -> None:
    before = {path: path.read_bytes() for path in study.results.rglob("*") if path.is_file()}
    shutil.rmtree(study.results / "figures" / "05_quantile_logprob")
    shutil.rmtree(study.results / "tables" / "05_quantile_logprob")
    with mpl.rc_context():
        run("05_quantile_logprob")
    assert {path: path.read_bytes() for path in study.results.rglob("*") if path.is_file()} == before


def test_another_task_is_set_beside_this_one(study: Config) -> None:
    """Its own questions and fewer responses to each; of the algorithms those that both have."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["runs"]["tasks"] = ["elsewhere"]
    Path("params.yaml").write_text(yaml.safe_dump(values))
    elsewhere = replace(
        study,
        profile="elsewhere",
        runs=replace(study.runs, algorithms=("riskpo", "grpo")),
        evaluation=replace(study.evaluation, samples=4, ks=(1, 2, 4)),
    )
    keep(elsewhere)
    with pytest.raises(DataError, match="elsewhere has no verdicts: make them"), mpl.rc_context():
        run("11_tasks", task="elsewhere")
    claims.write(elsewhere)
    with mpl.rc_context():
        run("11_tasks", task="elsewhere")
    passk = tables.read(study.results / "tables" / "11_tasks" / "elsewhere" / "passk.csv")
    gaps = tables.read(study.results / "tables" / "11_tasks" / "elsewhere" / "differences.csv")
    assert passk is not None and gaps is not None
    assert passk["metric"].unique().tolist() == ["Pass@1", "Pass@4"]
    assert gaps["reference"].unique().tolist() == ["grpo"]
    own = tables.read(study.results / "tables" / "06_passk" / "differences.csv")
    assert own is not None
    same = own[(own["difficulty"] == "all") & (own["metric"] == "Pass@1") & (own["algorithm"] == "riskpo")]
    there = gaps[(gaps["metric"] == "Pass@1, test") & (gaps["algorithm"] == "riskpo")]
    assert there["value"].tolist() == same["value"].tolist()
    page = report.as_markdown(report.compose(config.load()))
    assert "## Another task: elsewhere" in page
    verdicts = tables.read(study.results / "tables" / "11_tasks" / "elsewhere" / "claims.csv")
    assert verdicts is not None and set(verdicts["claim"]) >= {"pass_at_1", "entropy_at_equal_steps"}
    assert "code" not in set(verdicts["claim"])  # needs a task of its own
    assert findings.carried_over("elsewhere")(Study(study)) in page
    assert "`dvc repro --single-item tasks@test-elsewhere`" in page


# The report


def test_report_has_every_figure_with_its_caption_and_sentence(study: Config) -> None:
    text = report.as_markdown(report.compose(study))
    for section in SHOWN:
        for figure in section.figures:
            caption = figure.caption if isinstance(figure.caption, str) else figure.caption(Study(study))
            assert caption in text
            assert figure.finding is not None
            assert figure.finding(Study(study)) in text
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(linked) == sum(len(section.figures) for section in SHOWN)
    assert all((study.results / path).is_file() for path in linked)
    assert "`dvc repro --single-item entropy@test`" in text
    assert "bundle_size 5" in text
    assert "nan" not in text


def test_page_needs_no_other_file(study: Config) -> None:
    page = report.as_html(report.compose(study), study.results)
    sources = re.findall(r'src="([^"]+)"', page)
    drawings = {ElementTree.canonicalize(path.read_text()) for path in study.results.rglob("*.svg")}
    embedded = {unquote(source.removeprefix("data:image/svg+xml,")) for source in sources}
    assert {re.sub(r"\s+", " ", drawing) for drawing in drawings} == {
        re.sub(r"\s+", " ", ElementTree.canonicalize(source)) for source in embedded
    }
    assert not re.findall(r'(?:href|src)="(?!data:)', page)
    assert "url(" not in page
    assert page.count("<table>") == page.count("</table>") > 0


def test_report_is_the_same_every_time(study: Config, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for _ in range(2):
        assert report.main() == 0
        made.append([(study.results / name).read_bytes() for name in ("report.md", "report.html")])
    assert made[0] == made[1]
    assert "The report is in results/test" in capsys.readouterr().out
    assert str(Path.cwd()).encode() not in b"".join(made[0])


def test_missing_runs_are_named(study: Config) -> None:
    path = study.results / "records"
    for file in path.glob("*.parquet"):
        frame = pd.read_parquet(file)
        frame[(frame["algorithm"] != "riskpo") | (frame["seed"] != 1)].to_parquet(file)
    with mpl.rc_context():
        run("06_passk")
    text = report.as_markdown(report.compose(study))
    assert "**Missing: 1 of 4 runs** (seeds): riskpo 1." in text
    assert "missing: riskpo-1" in (study.results / "tables" / "06_passk" / "passk.md").read_text()
    gaps = tables.read(study.results / "tables" / "06_passk" / "differences.csv")
    assert gaps is not None
    assert gaps.loc[gaps["algorithm"] == "riskpo", "seeds"].unique().tolist() == ["0"]


def test_part_of_a_study_makes_a_shorter_report(study: Config) -> None:
    shutil.rmtree(study.results / "figures" / "04_entropy")
    shutil.rmtree(study.results / "tables" / "04_entropy")
    text = report.as_markdown(report.compose(study))
    assert "## Right answers" in text
    assert "## Entropy" not in text


def test_nothing_to_report_is_said(study: Config, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(study.results)
    assert report.main() == 1
    assert "test has no figures and tables yet: make them first (dvc repro)." in capsys.readouterr().err


def test_figures_without_their_tables_are_refused(study: Config) -> None:
    (study.results / "tables" / "06_passk" / "gains.csv").unlink()
    with pytest.raises(DataError, match=r"figures without tables/06_passk/gains\.csv"):
        report.compose(study)


def test_text_is_escaped_in_the_page(tmp_path: Path) -> None:
    cells = pd.DataFrame({"a<b": ["<script>"]})
    page = report.as_html([report.Heading(1, "x & `y<z`"), report.Table("t", cells)], tmp_path)
    assert "<h1>x &amp; <code>y&lt;z</code></h1>" in page
    assert "<script>" not in page


# Sentences


def rows(*estimates: tuple[str, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(estimates, columns=["algorithm", "value", "low", "high"])


def test_verdicts_follow_the_intervals(study: Config) -> None:
    found = Study(study).verdict(
        rows(("grpo", 2, 1, 3), ("riskpo", -2, -3, -1), ("dapo", 1, 0, 2), (BASE, 0.1, -1, 1)), digits=0
    )
    expected = ["higher: GRPO 2 [1, 3]", "lower: RiskPO −2 [−3, −1]"]
    assert found.split("; ") == [*expected, "not shown to differ: DAPO 1 [0, 2] and the base model 0 [−1, 1]"]


def test_long_lists_name_the_ends_and_the_followed(study: Config) -> None:
    many = rows(*((name, value, value, value) for value, name in enumerate(["rloo", "grpo", "gpg", "dapo", "gspo"])))
    said = "5 of them, from RLOO 0 [0, 0] to GSPO 4 [4, 4], with GRPO 1 [1, 1]"
    assert Study(study).listed(many.iloc[::-1], digits=0) == said
    assert Study(study).listed(many[many["algorithm"] != "grpo"], digits=0).endswith("DAPO 3 [3, 3] and GSPO 4 [4, 4]")


def test_an_interval_that_reads_as_holding_0_shows_nothing(study: Config) -> None:
    nearly = rows(("grpo", -0.01, -0.02, -0.004), ("riskpo", 0.01, 0.004, 0.02))
    assert Study(study).verdict(nearly).startswith("not shown to differ: GRPO −0.01 [−0.02, 0.00]")
    assert Study(study).verdict(nearly, digits=3).startswith("higher: RiskPO 0.010 [0.004, 0.020]; lower: GRPO")


def test_comparison_says_what_is_shown(study: Config) -> None:
    path = study.results / "tables" / "06_passk" / "differences.csv"
    table = tables.read(path)
    assert table is not None
    table[["value", "low", "high"]] = [0.05, 0.02, 0.08]
    table.loc[table["metric"] == "Pass@8", "low"] = -0.01
    tables.save(path.parent, "differences", table)
    assert findings.compared("06_passk/differences")(Study(study)) == (
        "Minus GRPO, in percentage points: Pass@1, higher: RiskPO 5.0 [2.0, 8.0]. "
        "Pass@8, not shown to differ: RiskPO 5.0 [−1.0, 8.0]."
    )


def test_equal_accuracy_names_its_reference(study: Config) -> None:
    text = findings.equal_accuracy(Study(study))
    table = tables.read(study.results / "tables" / "04_entropy" / "equal_accuracy.csv")
    assert table is not None
    gap = table[table["metric"] == "difference"].iloc[0]
    assert text.startswith(
        "Minus GRPO, in nats per token, where both first reach the lower of the accuracies that they"
    )
    assert tables.cell(gap["value"], gap["low"], gap["high"], 3) in text


def test_equal_accuracy_names_what_never_learned(study: Config) -> None:
    path = study.results / "tables" / "04_entropy" / "equal_accuracy.csv"
    table = tables.read(path)
    assert table is not None
    table[["value", "low", "high"]] = float("nan")
    tables.save(path.parent, "equal_accuracy", table)
    assert findings.equal_accuracy(Study(study)) == (
        "Minus GRPO, in nats per token, where both first reach the lower of the accuracies that they end with; nothing "
        "to compare. No such accuracy, for one of the two is not shown to end better than it started: RiskPO."
    )


def test_gap_says_at_which_k(study: Config) -> None:
    path = study.results / "tables" / "06_passk" / "differences.csv"
    table = tables.read(path)
    assert table is not None
    table = table[(table["difficulty"] == "all") & (table["algorithm"] == "riskpo")]
    table = table[table["metric"].isin(["Pass@1", "Pass@2", "Pass@8"])]
    table[["low", "high"]] = [[-0.3, -0.1], [-0.1, 0.1], [0.1, 0.3]]
    tables.save(path.parent, "differences", table)
    assert findings.gap(Study(study)) == "Minus GRPO, by attempts k: RiskPO higher at 8 and lower at 1."
    table[["low", "high"]] = [-0.1, 0.1]
    tables.save(path.parent, "differences", table)
    assert findings.gap(Study(study)) == "Minus GRPO, by attempts k: RiskPO not shown to differ at any k."


def test_the_papers_numbers_stand_beside_ours_with_their_remarks(study: Config) -> None:
    text = report.as_markdown(report.compose(study))
    assert "13_tables." in text[: text.index("\n## ")] and "Beside the paper's tables" not in text  # not made yet
    run("13_tables")
    text = report.as_markdown(report.compose(study))
    section = text[text.index("## Beside the paper's tables") :]
    assert "| RiskPO | paper, one run | 33.3 | 33.3 | 60.8 | 81.8 | 29.5 | 41.2 | – | – | 46.65 | 0.00 |" in section
    assert (
        "secondary sources disagree on the average" in section and "GMPO (ours): not trained in this profile." in text
    )
    passk = tables.read(study.results / "tables" / "06_passk" / "passk.csv")
    assert passk is not None
    ours = passk[(passk["algorithm"] == "grpo") & (passk["metric"] == "Pass@1")].set_index("difficulty")
    cells = (tables.cell(*(100 * ours.loc[key, ["value", "low", "high"]]), digits=1) for key in ("3", "4"))
    assert f"| GRPO | ours, seeds 0, 1 | – | – | – | – | – | – | {' | '.join(cells)} |" in section


def test_matched_steps_are_told(study: Config) -> None:
    """A variant matched to RiskPO, with the rate of the same step and how far both moved."""
    options = {**study.algorithms, "matched": {"preset": "grpo", "matched_to": "riskpo"}}
    candidates = ({"learning_rate": 1e-5}, {"learning_rate": 1e-4})
    study = replace(
        study,
        algorithms=options,
        runs=replace(study.runs, further_algorithms=("matched",), further_seeds=(2,)),
        tuning=replace(study.tuning, candidates=candidates),
    )
    for name in ("grpo", "riskpo"):
        rows = [
            {"algorithm": name, **one, "options": "", "accuracy": 0.1, "low": 0.0, "high": 0.2, "pass_at_4": 0.5,
             "entropy": 0.5, "kl_step": kl, "failure": "", "chosen": kl == 1e-4}
            for one, kl in zip(candidates, (1e-6, 1e-4), strict=True)
        ]  # fmt: skip
        tuning.path(study, name).parent.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(tuning.path(study, name), index=False)
    path = study.results / "records" / "metrics.parquet"
    metrics = pd.read_parquet(path)
    theirs = metrics[(metrics["algorithm"] == "riskpo") & (metrics["seed"] == 0)].assign(**{"kl/step": 2e-4})
    ours = theirs.assign(algorithm="matched", **{"kl/step": 3e-4})
    pd.concat([metrics, theirs.assign(seed=2), ours.assign(seed=2)]).to_parquet(path, index=False)
    found = list(report._matched(tuning.so_far(study)))
    assert not found  # no seed in common: riskpo has no run of seed 2 in this configuration
    study = replace(study, runs=replace(study.runs, further_algorithms=("matched", "riskpo")))
    found = list(report._matched(tuning.so_far(study)))
    table = tables.matched_table(found, tables.names(study))
    assert table.to_numpy().tolist() == [
        ["GRPO, RiskPO's step", "RiskPO", "0.0001", "0.300", "0.200", "1.50 [1.50, 1.50]", "2"]
    ]


def beside_grpo(study: Config, rates: tuple[float, float]) -> Study:
    """With tables of stratified bundles, RiskPO and GRPO, the first two at one rate and GRPO at another."""
    ours, theirs = rates
    folder = study.results / "tables"
    compared = rows(("riskpo_stratified", 0.1, 0.05, 0.15), ("riskpo", 0.2, -0.1, 0.4))
    metrics = [compared.assign(metric=metric, difficulty="all", reference="grpo") for metric in ("Pass@1", "Pass@8")]
    tables.save(folder / "06_passk", "differences", pd.concat(metrics))
    tables.save(folder / "06_passk", "equal_accuracy", compared.iloc[:1].assign(metric="difference", reference="grpo"))
    steps = rows(("riskpo_stratified", 1e-4, 1e-4, 2e-4), ("riskpo", 2e-4, 1e-4, 3e-4), ("grpo", 1e-3, 9e-4, 2e-3))
    tables.save(folder / "04_entropy", "steps", steps.assign(metric="kl/step", learning_rate=[ours, ours, theirs]))
    return Study(study)


def test_the_length_of_steps_stands_beside_what_stratified_bundles_reach(study: Config) -> None:
    text = findings.stratified(beside_grpo(study, (3e-5, 1e-4)))
    assert text == (
        "Minus GRPO, in percentage points: Pass@1, higher: RiskPO, stratified 10.0 [5.0, 15.0]. Pass@8, higher: "
        "RiskPO, stratified 10.0 [5.0, 15.0]. Pass@4 at equal accuracy, higher: RiskPO, stratified 10.0 [5.0, 15.0]. "
        "**A confound**: each trained at the rate that it was tuned to, and their steps differ in length. KL "
        "divergence within a step, in 10⁻³ nats: RiskPO, stratified 0.100 [0.100, 0.200] at the learning rate 3e-05 "
        "and GRPO 1.000 [0.900, 2.000] at the learning rate 0.0001. None of the runs compared here has GRPO with steps "
        "of that length. Others at the rate of RiskPO, stratified: Pass@8, not shown to differ: RiskPO 20.0 "
        "[−10.0, 40.0]."
    )
    outcomes = pd.DataFrame({"learning_rate": [3e-5, 1e-4], "pass_at_32": [0.6, 0.5], "chosen": [True, False]})
    outcomes = outcomes.assign(options="", failure="", low=0.0, high=1.0, entropy=0.5, kl_step=1e-4)
    for name, accuracy in (("grpo", [0.18, 0.2]), ("riskpo_stratified", [0.17, 0.14])):
        file = tuning.path(study, name)
        file.parent.mkdir(exist_ok=True)
        outcomes.assign(algorithm=name, accuracy=accuracy).to_csv(file, index=False)
    assert findings.stratified(Study(study)).endswith(
        " In the tuning, one run each, RiskPO, stratified against GRPO at the same rates: accuracy and Pass@32, in %, "
        "at 3e-05 17.0 and 60.0 against 18.0 and 60.0; at 0.0001 14.0 and 50.0 against 20.0 and 50.0."
    )


def test_equal_rates_are_no_confound(study: Config) -> None:
    assert "confound" not in findings.stratified(beside_grpo(study, (1e-4, 1e-4)))


def test_every_algorithm_is_described_and_ours_are_told_from_riskpo(study: Config) -> None:
    names = ("grpo", "riskpo", "riskpo_stratified")
    study = replace(study, runs=replace(study.runs, algorithms=names))
    table = presets.as_table(study, tables.names(study), None).set_index("Algorithm")
    assert table.loc["GRPO", ["Risk measure and bundles", "Other options"]].tolist() == [
        "–", "clip_low 0.2, clip_high 0.2",
    ]  # fmt: skip
    own = ALGORITHMS["riskpo_stratified"].risk
    assert own is not None
    said = f"α {own['alpha']:g}, β {own['beta']:g}, ω {own['omega']:g}, B 5"
    assert table.loc["RiskPO, stratified", "Risk measure and bundles"] == said
    assert "credit marginal, bundling stratified" in table.loc["RiskPO, stratified", "Other options"]
    assert presets.ours(study, tables.names(study)) == (
        "With what the paper's RiskPO has in brackets: RiskPO, stratified, with stratified bundles (ours): "
        "α 0.45 (0.2), ω 1 (0.5), credit marginal (shared), bundling stratified (random)."
    )
    every = replace(study, runs=replace(study.runs, algorithms=tuple(ALGORITHMS)))
    table = presets.as_table(every, tables.names(every), None).set_index("Key")["Risk measure and bundles"]
    assert table["`mvar_accuracy`"] == "α 0.45, β 0.8, ω 1" and table["`riskpo_released`"].endswith("ω 3.5, B 5")
    assert presets.ours(replace(study, runs=replace(study.runs, algorithms=names[:2])), tables.names(study)) == ""


def test_captions_hold_what_the_figures_say_of_themselves(study: Config) -> None:
    text = report.as_markdown(report.compose(study))
    assert (
        "the same for all algorithms. Left, bold: mean over seeds, thin: each seed; right, bands: intervals of each"
        in text
    )
    assert (
        "What accuracy costs" in text and "of Pass@4 and Avg@4 on 8 questions: not of Pass@8 and Pass@1 on all" in text
    )
    assert "that the update learns from. Bold: mean over seeds" in text  # nobody samples dynamically
    more = replace(study, runs=replace(study.runs, algorithms=("grpo", "dapo", "quantile_baseline")))
    assert findings.what_the_bundles_are_of(Study(more)).endswith(
        "learns from: DAPO and QAE, which sample dynamically, leave out those that are always or never solved."
    )


def test_runs_that_repeat_others_are_named(study: Config) -> None:
    options = {**study.algorithms, "same": {"preset": "riskpo", "baseline": "group"}, "other": {"preset": "riskpo"}}
    options["other"]["omega"] = 1.0
    runs = replace(study.runs, further_algorithms=("same", "other"), further_seeds=(1, 2))
    assert report._repeats(replace(study, algorithms=options, runs=runs)) == ["same-1"]


# Tables


def test_seeds_are_told_exactly(study: Config) -> None:
    assert [tables.seed_list(seeds) for seeds in ("0 1", "0 1 2 3", "0 2 3", "5")] == ["0, 1", "0–3", "0, 2, 3", "5"]
    named = ("grpo", "riskpo", "dapo", "gspo")
    tidy = pd.DataFrame({"algorithm": [BASE, *named], "seeds": ["none", "0 1 2 3", "0 1 2 3", "0 1 2", "3 4"]})
    assert tables.basis(tidy, study) == "Profile test · seeds 0–3; 0–2 for DAPO; 3, 4 for GSPO"
    records = pd.DataFrame({"algorithm": ["grpo", "grpo", "dapo"], "seed": [0, 1, 0]})
    assert tables.basis(records, study) == "Profile test · seeds 0, 1; 0 for DAPO"
    assert tables.basis(records[:0], study) == "Profile test"


def test_tables_have_a_column_of_seeds() -> None:
    frame = pd.DataFrame({
        "algorithm": [BASE, "grpo", "grpo", "dapo", "dapo"], "metric": ["a", "a", "b", "a", "b"],
        "value": 0.5, "low": 0.5, "high": 0.5, "seeds": ["none", "0 1 2", "0 1 2", "0", "1"],
    })  # fmt: skip
    assert tables.wide(frame, {})["Seeds"].tolist() == ["–", "0–2", "0 or 1"]


def test_a_variant_is_called_after_the_step_that_it_is_matched_to(study: Config) -> None:
    options = {**study.algorithms, "matched": {"preset": "dr_grpo", "matched_to": "riskpo"}}
    runs = replace(study.runs, algorithms=("riskpo", "dr_grpo"), further_algorithms=("matched",), further_seeds=(2,))
    tuned = replace(study, algorithms=options, runs=runs, tuning=replace(study.tuning, candidates=TWO_RATES))
    assert tables.names(tuned)["matched"] == "Dr. GRPO, RiskPO's step"
    assert tables.compared(tuned) == ["riskpo", "dr_grpo", "matched"]
    assert tables.compared(study) == ["grpo", "riskpo"]


TWO_RATES = ({"learning_rate": 1e-5}, {"learning_rate": 1e-4})


def test_tables_below_each_other_may_be_none() -> None:
    assert tables.stacked({}).index.tolist() == ["nothing to compare"]
    assert len(tables.stacked({"one": pd.DataFrame({"a": [1]}), "two": pd.DataFrame({"a": [2]})})) == 2


def test_names_tell_estimators_apart(study: Config) -> None:
    options = {**study.algorithms, "riskpo": {"baseline": "none"}, "grpo": {"clip_high": 0.28}, "gspo": {}}
    named = tables.names(config.from_mapping(study.as_dict() | {"algorithms": options}))
    assert named["riskpo"] == "RiskPO (baseline none, scale none)"
    assert named["grpo"] == "GRPO (clip_high 0.28)"
    assert named["gspo"] == "GSPO"


@pytest.mark.parametrize(
    ("estimate", "digits", "text"),
    [
        ((0.4666, 0.44, 0.5), 2, "0.47 [0.44, 0.50]"),
        ((-0.0004, -1.0, 0.0), 2, "0.00 [−1.00, 0.00]"),
        ((12.34, None, None), 1, "12.3"),
        ((float("nan"), 0.0, 0.0), 1, "–"),
    ],
)
def test_cells(estimate: tuple[float, float | None, float | None], digits: int, text: str) -> None:
    assert tables.cell(*estimate, digits=digits) == text


def test_tables_keep_the_order_of_appearance() -> None:
    frame = pd.DataFrame({
        "algorithm": ["riskpo", "grpo", "riskpo"], "metric": ["Pass@8", "Pass@8", "Avg@8"],
        "value": [0.5, 0.25, 1.0], "low": 0.0, "high": 1.0, "mark": ["*", "", ""],
    })  # fmt: skip
    table = tables.wide(frame, {"grpo": "GRPO"}, scale=100, digits=0)
    assert table.to_numpy().tolist() == [["riskpo", "50 [0, 100]*", "100 [0, 100]"], ["GRPO", "25 [0, 100]", "–"]]
    assert list(table.columns) == ["Algorithm", "Pass@8", "Avg@8"]


def test_saved_tables_read_back(tmp_path: Path) -> None:
    tidy = pd.DataFrame({"difficulty": ["3"], "seeds": ["0"], "value": [1 / 3]})
    parts = {"All | questions": pd.DataFrame({"Algorithm": ["a|b", "c"], "Pass@1": ["1.0 [0.5, 1.5]", "–"]})}
    tables.save(tmp_path, "one", tidy, "A note.", parts)
    note, found = tables.read_parts(tmp_path / "one.md")
    assert note == "A note."
    pd.testing.assert_frame_equal(found["All | questions"], parts["All | questions"])
    assert "| --- | ---: |" in (tmp_path / "one.md").read_text()
    assert (tmp_path / "one.csv").read_text() == "difficulty,seeds,value\n3,0,0.333333\n"
    read = tables.read(tmp_path / "one.csv")
    assert read is not None
    assert read["difficulty"].tolist() == ["3"]
    assert tables.read(tmp_path / "other.csv") is None


# Comparison with the reference


def estimates(*values: float, half: float = 0.03) -> pd.DataFrame:
    frame = pd.DataFrame({"metric": [f"Pass@{2**i}" for i in range(len(values))], "value": values})
    return frame.assign(algorithm="grpo", difficulty="all", low=frame["value"] - half, high=frame["value"] + half)


def test_inside_is_where_the_joint_interval_holds_zero() -> None:
    found = compare.against(estimates(0.50, 0.60, 0.70), estimates(0.50, 0.64, 0.76, half=0.04))
    assert found["agreement"].tolist() == ["inside", "inside", "outside"]  # 0.04 and 0.06 against hypot(0.03, 0.04)
    assert found["value"].tolist() == pytest.approx([0.0, -0.04, -0.06])
    assert found["high"].tolist() == pytest.approx([0.05, 0.01, -0.01])


def test_rows_of_one_side_are_new_or_gone() -> None:
    there = estimates(0.5, 0.6).assign(algorithm=["grpo", "dapo"])
    assert compare.against(estimates(0.5, 0.6), there)["agreement"].tolist() == ["inside", "new", "gone"]


def test_reference_is_missing_then_identical_then_near(study: Config, capsys: pytest.CaptureFixture[str]) -> None:
    table = study.results / "tables" / "06_passk" / "passk.csv"
    assert compare.main([]) == 0
    assert "No reference to compare with: there is no test/reference.csv yet." in capsys.readouterr().out
    assert compare.main(["--accept"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "The reference is now results/test/reference.csv; commit it.",
        "Identical to the reference, in all 54 estimates.",
    ]
    assert (study.results / "reference.csv").read_bytes() == table.read_bytes()

    frame = tables.read(table)
    assert frame is not None
    frame.loc[0, ["value", "low", "high"]] += 10.0
    tables.save(table.parent, "passk", frame)
    assert compare.main([]) == 0
    summary = "53 of 54 estimates agree with the reference within the intervals; "
    summary += "the largest difference is 1000.0 points, Pass@1 of Base model."
    assert capsys.readouterr().out.strip() == summary
    written = study.results / "tables" / "07_compare" / "against_reference"
    assert summary in written.with_suffix(".md").read_text()
    found = tables.read(written.with_suffix(".csv"))
    assert found is not None
    assert found["agreement"].value_counts().to_dict() == {"inside": 53, "outside": 1}


def test_without_a_table_nothing_is_compared(study: Config, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(study.results / "tables")
    for arguments in ([], ["--accept"]):
        assert compare.main(arguments) == 1
        assert "test has no tables/06_passk/passk.csv: make it first (dvc repro)." in capsys.readouterr().err


def test_verdicts_come_first_and_tuning_last(study: Config) -> None:
    claims.write(study)
    for algorithm, candidates in {
        "grpo": [(1e-4, "", 0.31, False), (2e-4, "", 0.33, True)],
        "riskpo": [(1e-4, '{"baseline": "batch"}', 0.30, True), (2e-4, "", 0.0, False)],
    }.items():
        table = pd.DataFrame(candidates, columns=["learning_rate", "options", "accuracy", "chosen"])
        table = table.assign(algorithm=algorithm, low=0.2, high=0.4, pass_at_32=0.6, entropy=0.5, kl_step=1e-4)
        table["failure"] = ["", "step 3: the loss is nan"] if algorithm == "riskpo" else ["", ""]
        path = tuning.path(study, algorithm)
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)
    text = report.as_markdown(report.compose(study))
    titles = ("What holds of the claims", "In short", "The algorithms", "Right answers", "Tuning")
    order = [text.index(f"\n## {title}\n") for title in titles]
    assert order == sorted(order)
    decided = claims.read(study)
    assert decided is not None and f"**{claims.counted(decided)}**" in text
    ends = "beyond which a better rate may lie, chose: GRPO (0.0002, its largest), RiskPO (0.0001, its smallest)."
    assert ends in text
    assert "| RiskPO keeps more entropy than GRPO. (Theorem 2, Fig. 5) |" in text
    assert "| RiskPO | 0.0001 | baseline batch | 30.0 [20.0, 40.0] | 60.0 | 0.50 | 0.100 | chosen |" in text
    assert "| RiskPO | 0.0002 | – | step 3: the loss is nan |" in text
    assert tables.names(study)["riskpo"] == "RiskPO (baseline batch, scale none)"
