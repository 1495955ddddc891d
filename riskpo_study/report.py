"""The report of a profile, report.md and report.html: figures and tables in order, with a sentence each.

`python -m riskpo_study.report` composes it from what the notebooks wrote. `SECTIONS` is the one place for
titles and captions; the sentences are computed (`findings`).
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from riskpo_study import (
    ablations,
    analysis,
    claims,
    files,
    findings,
    presets,
    provenance,
    records,
    side_by_side,
    tables,
    theory_findings,
    tuning,
)
from riskpo_study import config as configuration
from riskpo_study.analysis import heading
from riskpo_study.config import Config
from riskpo_study.errors import DataError, exit_code
from riskpo_study.findings import Finding, Study

__all__ = ["SECTIONS", "as_html", "as_markdown", "compose"]


@dataclass(frozen=True)
class Figure:
    """A figure of a notebook: name of its file, title, caption, and the sentence that its numbers say.

    The caption need not say what lines, bands and bars are: where that depends on what was drawn, the file tells it.
    Sentences of `headline` figures stand at the beginning of the report as well.
    """

    name: str
    title: str
    caption: str | Finding
    finding: Finding | None = None
    headline: bool = False


@dataclass(frozen=True)
class Section:
    """What the report takes from one folder of figures and tables, of the notebook with the folder's name.

    Of each table it takes as many parts as `tables` says, None for all. A stage with items is named with its item.
    """

    folder: str
    stage: str
    title: str
    figures: tuple[Figure, ...]
    tables: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def notebook(self) -> str:
        return self.folder.partition("/")[0]

    def command(self, profile: str) -> str:
        """What makes it again from the records."""
        stage, _, item = self.stage.partition("-")
        return f"dvc repro --single-item {stage}@{profile}{item and '-'}{item}"


SECTIONS = (
    Section("00_quickstart", "quickstart", "What RiskPO optimises", (
        Figure(
            "framework", "From rewards to an update",
            "One batch, its first group of questions, clockwise: rewards, one response of each question in a bundle, "
            "quantiles of all bundle scores, advantage, credit, clipped update. Blue: the bundle of the lowest score; "
            "orange: that of the highest. All numbers are computed by the library.",
        ),
        Figure(
            "advantage", "Risk measure, advantage, one update, weights",
            "Scores of bundles of questions and the two quantiles; the advantage beside that of the mean; "
            "one update of a tabular policy over eight answers; the weight of a question by its accuracy.",
        ),
        Figure(
            "landscape", "The advantage by region",
            "Advantage less its expectation for every bundle score and mean accuracy, with the quantiles of "
            "Binomial(B, p): below the lower line the slope is 1 + ω, above the upper one it is flat. Left: the mean "
            "objective.",
        ),
    )),
    Section("04_entropy", "entropy", "Entropy during training", (
        Figure(
            "entropy", "Entropy against the training step",
            "Left: of everything generated for training. Right: on held-out questions, the same for all algorithms.",
            findings.entropy, headline=True,
        ),
        Figure(
            "entropy_accuracy", "Entropy against accuracy",
            "Changes since the start on the held-out questions of the learning curves, paired by question: "
            "algorithms on one path differ in speed only.",
            findings.equal_accuracy, headline=True,
        ),
        Figure(
            "entropy_right_wrong", "Entropy of right and wrong responses",
            "Of the responses that an update learns from.", findings.right_and_wrong,
        ),
        Figure(
            "covariance", "The covariances of Theorem 2",
            "Covariance of the log-probability with the algorithm's own advantage, whose scale differs "
            "between algorithms, and the terms L, U and ωL + U of bundles: the theorem's inequality holds "
            "where the last is at least 0. The quantiles are the tracked ones, or the batch's for algorithms that "
            "track none.", findings.tail_terms, headline=True,
        ),
        Figure(
            "reward_risk", "Mean reward and lower-tail measures", findings.what_the_bundles_are_of, findings.rewards,
        ),
        Figure(
            "quantiles", "Tracked quantiles and regions",
            "Quantiles of the bundle score as the algorithm tracks them (lines) and of each batch (marks); "
            "share of bundles below, between and above the tracked ones. The lowest seed.", findings.regions,
        ),
        Figure(
            "signal", "How much of a batch teaches",
            "Share of questions whose responses all earn the same, and of responses of zero advantage.",
            findings.signal,
        ),
    ), {"entropy": None, "steps": None, "equal_accuracy": None, "covariance": None, "training": None}),
    Section("05_quantile_logprob", "quantile_logprob", "Log-probability against reward quantiles", (
        Figure(
            "response", "Of a whole response",
            "Mean log-probability around each quantile level of the bundle score, before and along training; "
            "bands are intervals, averaged over seeds. A change of exactly 0 means that both ends of a tail "
            "rest on the same score: there is nothing to find.", findings.tails("response"),
        ),
        Figure("token", "Of a token", "The same, divided by the number of tokens.", findings.tails("token")),
    ), {"monotonicity": None}),
    Section("06_passk", "passk", "Right answers", (
        Figure(
            "pass_at_k", "Pass@k against the number of attempts k",
            "Unbiased estimates on the held-out questions after training. The interval of an algorithm alone is wider "
            "than that of its difference to another.", findings.right_answers,
        ),
        Figure(
            "gap", "The gap to GRPO by attempts",
            "Pass@k minus GRPO's, paired by seed and question. Bold: all questions, with the interval; grey: each "
            "difficulty.", findings.gap,
        ),
        Figure(
            "gains", "What training changed",
            "Differences to the base model on all questions, paired by question.",
            findings.compared("06_passk/gains"), headline=True,
        ),
        Figure(
            "differences", "The algorithms compared",
            "Differences on all questions, paired by seed and question.",
            findings.compared("06_passk/differences"), headline=True,
        ),
        Figure(
            "learning_curves", "Learning curves",
            "Avg@n and Pass@n on a fixed part of the held-out questions.", findings.learning_curves,
        ),
        Figure(
            "learning_curves_k", "Learning curves of Pass@k",
            "Few and many attempts, on the easiest and the hardest questions.", findings.learning_curves_k,
        ),
        Figure(
            "levels", "Against the best of the others",
            "GRPO and RiskPO as curves with intervals; of every other algorithm the highest point of its mean curve "
            "after the start. Drawn as in the paper, it flatters the baselines: the highest of several noisy points "
            "is too high on average.", findings.levels,
        ),
        Figure(
            "frontier", "What accuracy costs", findings.what_the_frontier_rests_on, findings.frontier,
        ),
        Figure(
            "distinct_answers", "Different right answers",
            "How many different right answers a policy gives to a question.", findings.distinct_answers,
        ),
        Figure(
            "overlap", "Which questions are solved",
            "Of the questions that a run of the row solves at least once, the share that a run of the column solves "
            "too; framed: two seeds of the same algorithm. Right: share of the questions solved, and number solved by "
            "no other algorithm, one run of each drawn; bars are intervals.", findings.solved,
        ),
    ), {
        "passk": None, "gains": 1, "differences": 1, "pairs": None, "equal_accuracy": None, "answers": 1, "solved": 1,
    }),
    Section("09_risk_profiles", "risk_profiles", "Risk profiles", (
        Figure(
            "risk_profiles", "Averse, neutral, seeking",
            "Entropy and mean reward during training, Pass@1 by difficulty after it. Algorithms that the profile does "
            "not train are named on the figure.", findings.risk_profiles,
        ),
    ), {"risk_profiles": None}),
    *(
        Section(f"08_ablation/{name}", f"ablation-{name}", f"Ablation: {family.title}", (
            Figure(
                "differences", "Minus the paper's setting",
                "Differences on all questions, paired by seed and question, on the seeds that all settings have.",
                findings.ablation(name),
            ),
        ), {"cells": None, "differences": 1})
        for name, family in ablations.FAMILIES.items()
    ),
    Section("10_theory", "theory", "The theory, checked", (
        Figure(
            "every_weight", "Which questions every algorithm learns from",
            "Weight of a question by its accuracy, over its mean. Lines: expected of the batch; thin dotted: of "
            "infinitely many responses or questions; points: measured; bars: two standard errors.",
            theory_findings.every_weight,
        ),
        Figure(
            "riskpo_weights", "Weights of the RiskPO family, exact",
            "Length of the step by mean accuracy; weight of a question by its accuracy, with random or stratified "
            "bundles and global or per-group quantiles.",
            theory_findings.riskpo_weights,
        ),
        Figure(
            "ordering", "What stratifying by the batch itself costs",
            "Weights with questions lined up by this batch, another batch or the truth, and the differences.",
            theory_findings.ordering,
        ),
        Figure(
            "noise", "What sharing an advantage costs",
            "Variance over RLOO's at the same expected update, along the reward and in all other directions.",
            theory_findings.noise,
        ),
        Figure(
            "gradient", "The advantage is the gradient",
            "Left: gradient of MVaR by its advantage and by finite differences. Right: distance of sampled gradients "
            "from it, with known quantiles and with those of the same sample.",
            theory_findings.gradient,
        ),
        Figure(
            "tracking", "Tracked quantiles under drift",
            "Binomial scores whose probability rises from 0.15 to 0.75 and falls back at once.",
            theory_findings.tracking,
        ),
        Figure(
            "entropy", "Proposition 1 and Theorem 2",
            "What the first order leaves of the change of entropy, by the step size; the terms of Theorem 2 for three "
            "policies.",
            theory_findings.entropy,
        ),
    ), {
        "every_weight": None, "released": None, "ordering": None, "noise": None, "gradient": None, "tracking": None,
        "theorem_2": None,
    }),
    Section("12_scale", "scale", "Beyond one machine", (
        Figure(
            "tolerance", "How much staleness the quantiles tolerate",
            "Simulated: error of tracked quantiles whose scores are old, above that with fresh ones, three drifts of "
            "the accuracy on one scale; the same of the expected step's length; by how ages are mixed, at 5 ‰ a step. "
            "Grey: a quarter of a score.", findings.tolerance, headline=True,
        ),
        Figure(
            "paths", "Quantiles tracked on old scores",
            "The histogram tracker with scores of three ages beside the exact quantiles of the policy that is updated.",
        ),
        Figure(
            "shards", "Quantiles and bundles by shard",
            "Left: each tracker sees one of so many parts of a batch. Right: weight of the questions of a hard shard "
            "over those of an easy one, exact.",
        ),
        Figure(
            "learning", "Learning from old responses",
            "Small policies whose responses are one token; two rates. Left: accuracy lost with the age of responses. "
            "Right: what RiskPO loses more with tracked than with known quantiles.", findings.learning_from_old,
        ),
    ), {"drift": None, "tolerated": None, "shards": None, "learning": None}),
)  # fmt: skip
"""In the order of the report, but for other tasks."""


def sections(config: Config) -> list[Section]:
    """Those of every profile, then one for each other task of this one."""
    return [*SECTIONS, *(_task(name) for name in config.runs.tasks)]


def _task(name: str) -> Section:
    """Of a profile whose results are set beside these."""
    return Section(f"11_tasks/{name}", f"tasks-{name}", f"Another task: {name}", (
        Figure(
            "differences", "Minus the reference, on both tasks",
            "Differences on all questions of either profile, paired by seed and question.",
            findings.carried_over(name),
        ),
    ), {"passk": 1, "differences": 1, "claims": 1})  # fmt: skip


# Composition


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Points:
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    path: str  # below the results of the profile
    title: str
    caption: str


@dataclass(frozen=True)
class Table:
    title: str
    table: pd.DataFrame


Block = Heading | Text | Points | Picture | Table


def compose(config: Config) -> list[Block]:
    """The report of a profile from its figures and tables; what is not there is left out.

    Raises:
        DataError: where there is nothing yet, or figures without their tables.
    """
    study = Study(config)
    body: list[Block] = []
    for section in sections(config):
        found = list(_section(section, study))
        body += [Heading(2, section.title), *found] if found else []
    if not body:
        raise DataError(f"{config.profile} has no figures and tables yet: make them first (dvc repro).")
    title = Heading(1, f"RiskPO against the GRPO family: {config.profile}")
    opening: list[Block] = [title, Text(_introduction(study)), *_verdicts(config), *_in_short(study), *_trained(study)]
    return [*opening, *_base_model(config), *body, *_side_by_side(config), *_tuning(study), *_closing(config)]


def _verdicts(config: Config) -> Iterator[Block]:
    """What becomes of the paper's claims, where they have been decided."""
    decided = claims.read(config)
    if decided is not None:
        yield Heading(2, "What holds of the claims")
        text = f"**{claims.counted(decided)}** Decided by `python -m riskpo_study.claims`; the rules, all statistics "
        text += "and the seeds that they rest on are in `claims.md`."
        if (decided["strict"] != decided["verdict"]).any():
            text += " Strictly: judged by intervals widened to Student's t over training seeds alone."
        yield Text(text)
        yield Table("Verdicts", claims.as_table(decided))


def _in_short(study: Study) -> Iterator[Block]:
    """The sentences of the headline figures, and what is to be said of stratified bundles beside GRPO."""
    made = [figure for section in sections(study.config) for figure in _made(section, study.config)]
    points = [f"**{one.title}.** {one.finding(study)}" for one in made if one.headline and one.finding]
    needed = ("06_passk/differences", "06_passk/equal_accuracy", "04_entropy/steps")
    there = all((study.config.results / "tables" / f"{name}.csv").is_file() for name in needed)
    if there and {"riskpo_stratified", "grpo"} <= set(study.config.runs.algorithms):
        points.append(f"**Stratified bundles beside GRPO.** {findings.stratified(study)}")
    if points:
        yield Heading(2, "In short")
        yield Points(tuple(points))


def _trained(study: Study) -> Iterator[Block]:
    """What every compared algorithm is, and how long its steps were."""
    config = study.config
    steps = tables.read(config.results / "tables" / "04_entropy" / "steps.csv")
    text = ["As configured and tuned."] if steps is None else [f"As configured and tuned. {findings.lengths(study)}"]
    yield Heading(2, "The algorithms")
    yield Text(" ".join([*text, presets.ours(config, study.names)]).strip())
    yield Table("What was trained", presets.as_table(config, study.names, steps))


def _base_model(config: Config) -> Iterator[Block]:
    """What the base model can do before any run, with its images and without, where it was asked."""
    found = tables.read(config.results / "tables" / "01_base_model" / "white_images.csv")
    if found is None:
        return
    yield Heading(2, "The base model looks at the images")
    yield Text(
        "Before any run, on the held-out questions, in percent; and with every image white, where what is right is "
        "guessed from the words. Over many responses guesses add up: Pass@k of a large k is to be compared with "
        f"theirs, not with 0. Made by `dvc repro white_images@{config.profile}-base`."
    )
    shown = found.assign(difficulty=found["difficulty"].map(heading))
    rates = [str(column) for column in found if str(column).startswith("Pass@")]
    shown[rates] = (100 * shown[rates]).map(lambda value: tables.cell(value, digits=1))
    yield Table("Pass@k of the base model", shown.rename(columns=str.capitalize))


def _side_by_side(config: Config) -> Iterator[Block]:
    """The paper's tables with our numbers beside its own, where they have been made."""
    filled = side_by_side.read(config)
    if filled is None:
        return
    yield Heading(2, "Beside the paper's tables")
    yield Text(
        f"Made by `dvc repro --single-item paper_tables@{config.profile}` from `notebooks/13_tables.ipynb`; sources of "
        "the paper's numbers: `riskpo_study/published`. All of it: `tables/13_tables/cells.csv`."
    )
    yield Text(side_by_side.about(config))
    for number in side_by_side.FORMS:
        one = side_by_side.shown(number, filled, config)
        yield Heading(3, one.title)
        yield Text(one.order)
        yield Table("Pass@1, %", one.table)
        yield Points(one.notes)


def _tuning(study: Study) -> Iterator[Block]:
    """Every candidate of every algorithm, where there was more than one."""
    config = study.config
    found = [algorithm for algorithm in config.runs.algorithms if tuning.path(config, algorithm).is_file()]
    outcomes = [tuning.outcomes(config, algorithm) for algorithm in found]
    tried = [table for table in outcomes if len(table) > 1]
    if not tried:
        return
    settings = config.tuning
    yield Heading(2, "Tuning")
    yield Text(
        f"Every algorithm had {len(settings.candidates)} candidates, each trained once with seed {settings.seed} and "
        f"judged by its accuracy on {settings.questions} development questions of each difficulty × {settings.samples} "
        "responses, which no other result rests on. Made by "
        f"`dvc repro tune@{config.profile}-<algorithm>` from `notebooks/07_tuning.ipynb`. All of it: `tuning/`."
    )
    if ends := _at_the_end(study, tried):
        yield Text(ends)
    yield Table("All candidates", tables.tuning_table(pd.concat(tried, ignore_index=True), study.names))
    matched = list(_matched(tuning.so_far(config)))
    if matched:
        yield Text(
            "Variants that are matched to another algorithm have the learning rate at which, by a line through the "
            "outcomes above, their preset moves as far. How far both moved in training, on the seeds that both have:"
        )
        yield Table("Matched steps", tables.matched_table(matched, study.names))


def _at_the_end(study: Study, tried: Sequence[pd.DataFrame]) -> str:
    """Which algorithms chose the smallest or largest rate that they had: beyond it might lie a better one."""
    said = []
    for table in tried:
        rates = table["learning_rate"]
        chosen = float(rates[table["chosen"]].iloc[0])
        for end, word in ((rates.min(), "smallest"), (rates.max(), "largest")):
            if chosen == end:
                said.append(f"{study.name(table['algorithm'].iloc[0])} ({tables.rate(chosen)}, its {word})")
    return f"At the end of its grid, beyond which a better rate may lie, chose: {', '.join(said)}." if said else ""


def _matched(config: Config) -> Iterator[dict[str, Any]]:
    """`analysis.ratio` of the steps of every algorithm with `matched_to` that shares a seed with the other."""
    resampler = analysis.Resampler(config.evaluation.resamples, config.evaluation.confidence)
    for name in config.runs.names:
        other = config.algorithms[name].get("matched_to")
        if other is None:
            continue
        steps = records.read(config.results, "metrics", config, algorithms=[name, other])
        seeds = [set(steps.loc[steps["algorithm"] == one, "seed"]) for one in (name, other)]
        if seeds[0] & seeds[1]:
            found = analysis.ratio(steps, "kl/step", name, other, resampler)
            yield found | {"algorithm": name, "other": other, **config.algorithms[name]}


def _closing(config: Config) -> Iterator[Block]:
    yield Heading(2, "Settings")
    yield Table("From params.yaml", _settings(config))
    made = provenance.read(config)
    if made is not None:
        yield Heading(2, "How the committed results were made")
        yield Table("Versions, hardware and time", provenance.as_table(made))


def _introduction(study: Study) -> str:
    config = study.config
    runs, confidence = config.runs, 100 * config.evaluation.confidence
    text = (
        f"Profile `{config.profile}`: {len(runs.algorithms)} algorithms, {len(runs.seeds)} seeds each or more, "
        f"{len(runs.all)} runs of {config.train.steps} training steps. Brackets hold {confidence:g}% bootstrap "
        "intervals; a difference is called higher or lower only where its interval, as it is written, leaves out 0. "
        "With few seeds the intervals understate how much another training would differ; sentences are not corrected "
        "for many comparisons, the tables' stars are. Figures and tables name the seeds that they rest on."
    )
    if repeats := _repeats(config):
        text += f" Variants whose options are those of their preset repeat its runs: {', '.join(repeats)}."
    unmade = [of.notebook for of in sections(config) if _expected(of, config) and not _made(of, config)]
    unmade += ["13_tables"] if side_by_side.read(config) is None else []
    if unmade:
        text += f" **Not made yet** (`dvc repro`): {', '.join(dict.fromkeys(unmade))}."
    absent = records.missing(config.results, "counts", config, runs.names)
    if not absent:
        return text
    seeds: dict[str, list[str]] = {}
    for algorithm, _, seed in (run.rpartition("-") for run in absent):
        seeds.setdefault(algorithm, []).append(seed)
    listed = "; ".join(f"{algorithm} {', '.join(missing)}" for algorithm, missing in seeds.items())
    return f"{text} **Missing: {len(absent)} of {len(runs.all)} runs** (seeds): {listed}."


def _repeats(config: Config) -> list[str]:
    """Runs that another one repeats, since a variant changes nothing of its preset."""
    same = {
        name: own["preset"]
        for name, own in config.algorithms.items()
        if name in config.runs.names and "preset" in own and own["preset"] in config.algorithms
    }
    options = {of: ablations.settings(config, of) | {"preset": None} for of in {*same, *same.values()}}
    return [
        f"{name}-{seed}"
        for name, seed in config.runs.all
        if name in same and options[name] == options[same[name]] and (same[name], seed) in config.runs.all
    ]


def _expected(section: Section, config: Config) -> bool:
    """Whether the profile makes it: an ablation only where it is asked for."""
    stage, _, family = section.stage.partition("-")
    return stage != "ablation" or family in config.runs.ablations


def _made(section: Section, config: Config) -> list[Figure]:
    folder = config.results / "figures" / section.folder
    return [figure for figure in section.figures if (folder / f"{figure.name}.svg").is_file()]


def _section(section: Section, study: Study) -> Iterator[Block]:
    config = study.config
    figures = _made(section, config)
    if figures:
        yield Text(f"Made by `{section.command(config.profile)}` from `notebooks/{section.notebook}.ipynb`.")
    for figure in figures:
        yield Heading(3, figure.title)
        if figure.finding:
            yield Text(figure.finding(study))
        path = f"figures/{section.folder}/{figure.name}.svg"
        caption = figure.caption if isinstance(figure.caption, str) else figure.caption(study)
        drawn = _description((config.results / path).read_text(encoding="utf-8"))
        yield Picture(path, figure.title, f"{caption} {drawn[:1].upper()}{drawn[1:]}." if drawn else caption)
    for name, count in section.tables.items():
        place = f"tables/{section.folder}/{name}"
        if (config.results / f"{place}.md").is_file():
            note, parts = tables.read_parts(config.results / f"{place}.md")
            yield Text(f"{note} All of it: `{place}.csv`.")
            yield from (Table(title, part) for title, part in list(parts.items())[:count])


def _description(svg: str) -> str:
    """How to read a drawing, as it says itself; empty where it does not (`plot_parts.save`)."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", svg, re.DOTALL)
    return html.unescape(found[1]) if found else ""


def _settings(config: Config) -> pd.DataFrame:
    sections = ((of.name, getattr(config, of.name)) for of in fields(config))
    rows = [(name, _plain(values)) for name, values in sections if is_dataclass(values)]
    options = {name: config.algorithms[name] for name in config.runs.names if config.algorithms[name]}
    rows.append(("algorithms", _plain(options) if options else "the presets of riskpo_study.algorithms"))
    return pd.DataFrame(rows, columns=["Section", "Values"])


def _plain(value: Any) -> str:
    if is_dataclass(value):
        return ", ".join(f"{of.name} {_plain(getattr(value, of.name))}" for of in fields(value))
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} ({_plain(of)})" if isinstance(of, Mapping) else f"{key} {of}" for key, of in value.items()
        )
    if isinstance(value, tuple):
        return " ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# Rendering


def as_markdown(blocks: Sequence[Block]) -> str:
    """The report as Markdown; figures are linked, relative to the results of the profile."""

    def render(block: Block) -> str:
        match block:
            case Heading(level, text):
                return f"{'#' * level} {text}"
            case Text(text):
                return text
            case Points(texts):
                return "\n".join(f"- {text}" for text in texts)
            case Picture(path, title, caption):
                return f"![{title}]({path})\n\n*{caption}*"
            case Table(title, table):
                return f"**{title}**\n\n{tables.as_markdown(table)}".rstrip()

    return "\n\n".join(map(render, blocks)) + "\n"


_STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.25; } h3 { margin-top: 2rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ddd; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: 0.9rem; }
.scroll { overflow-x: auto; margin-bottom: 1.5rem; }
table { border-collapse: collapse; font-size: 0.85rem; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid #e4e4e4; text-align: left; vertical-align: top; }
th.number, td.number { text-align: right; } td.number { white-space: nowrap; }
td:not(.number) { min-width: 10rem; }
code { font-size: 0.9em; }
"""


def as_html(blocks: Sequence[Block], results: Path) -> str:
    """The report as one file that holds its figures; `results` is the folder of the profile."""

    def render(block: Block) -> str:
        match block:
            case Heading(level, text):
                return f"<h{level}>{_inline(text)}</h{level}>"
            case Text(text):
                return f"<p>{_inline(text)}</p>"
            case Points(texts):
                return f"<ul>{''.join(f'<li>{_inline(text)}</li>' for text in texts)}</ul>"
            case Picture(path, title, caption):
                image = _image(results / path, title)
                return f"<figure>{image}<figcaption>{_inline(caption)}</figcaption></figure>"
            case Table(title, table):
                captioned = f"<table><caption>{_inline(title)}</caption>"
                return f'<div class="scroll">{tables.as_html(table).replace("<table>", captioned, 1)}</div>'

    title = next(_inline(block.text) for block in blocks if isinstance(block, Heading))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(map(render, blocks))
        + "\n</body>\n</html>\n"
    )


def _image(path: Path, title: str) -> str:
    """The drawing itself, at nearly twice its size on paper where the window is wide enough."""
    svg = path.read_text(encoding="utf-8")
    size = re.search(r'<svg [^>]*\bwidth="([\d.]+)pt"', svg)
    width = f' width="{1.8 * float(size[1]):.0f}"' if size else ""
    address = quote(re.sub(r"\s+", " ", svg), safe=_UNQUOTED)
    return f'<img alt="{html.escape(title)}"{width} src="data:image/svg+xml,{address}">'


_UNQUOTED = " !*+,-./:;=?@[]^_`{|}~"
"""Characters that stay as they are in the address of a drawing: in base64 it would be larger."""


def _inline(text: str) -> str:
    """Escaped, with `code` and **strong** marked up."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", marked)


def _write() -> None:
    config = configuration.load()
    blocks = compose(config)
    report = {"report.md": as_markdown(blocks), "report.html": as_html(blocks, config.results)}
    for name, text in report.items():
        with files.atomic(config.results / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(f"The report is in {config.results.relative_to(configuration.root())}: report.html and report.md.")


def main() -> int:
    return exit_code(_write)


if __name__ == "__main__":
    sys.exit(main())
