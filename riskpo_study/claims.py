"""The claims of the paper, and some of ours, against the records of a profile: a verdict each, with what decides it.

`python -m riskpo_study.claims` reads `results/<profile>/records` and writes `claims.csv`, a row a claim, and
`claims.md` for readers. The same code decides at every scale; a claim whose runs a profile lacks is not measured there.

`CLAIMS` is the list. Each is decided by one function, from one statistic or more: estimates with a bootstrap interval
over training seeds and questions, or seeds and blocks of steps for what training recorded (`evidence`). A rule of
`verdicts` judges each, and the claim holds where all hold and fails where one fails. Margins are declared here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from riskpo_study import ablations, algorithms, files, published, tables
from riskpo_study import config as configuration
from riskpo_study.config import Config, Risk
from riskpo_study.errors import DataError, exit_code
from riskpo_study.evidence import (
    COVARIANCE,
    LOG_PROB,
    NATS,
    POINTS,
    SCORE,
    SHARE,
    SLOPE,
    UNITS,
    Evidence,
    MissingRuns,
    Part,
)
from riskpo_study.records import BASE
from riskpo_study.verdicts import (
    FAILS,
    HOLDS,
    OPEN,
    UNMEASURED,
    Verdict,
    above,
    alike,
    assumed,
    below,
    higher,
    matching,
    together,
)

__all__ = ["CLAIMS", "Claim", "as_table", "counted", "decide", "read", "write"]

ALIKE = 0.015
"""Difference in shares of right answers that is too small to matter: below the 1.7 points by which the paper's
RiskPO beats GRPO on easy math (Table 2), the smaller of its two average gains over GRPO."""

ALIKE_ENTROPY = 0.05
"""The same for entropies, in nats per token. The paper's entropies could not be read, so that this one is only ours."""

COLLAPSE = 0.5
"""An entropy below this share of the base model's has collapsed."""

SAME_STEP = 1.5
"""Two steps are matched whose KL divergences are shown to differ by no more than this factor."""

BASELINES = (
    "grpo", "dr_grpo", "dapo", "gpg", "gmpo", "gspo", "rloo", "reinforce_pp", "pass_at_k", "quantile_baseline",
    "max_rl", "focal", "entropic",
)  # fmt: skip
"""The algorithms that do not come from RiskPO."""


# What decides, a function a claim


def entropy_at_equal_steps(evidence: Evidence) -> list[Part]:
    """`higher` on the difference in entropy on held-out questions after training, RiskPO − GRPO."""
    row = evidence.difference("entropy", "riskpo", "grpo")
    return [Part.of("RiskPO − GRPO", partial(higher, margin=ALIKE_ENTROPY), NATS, row)]


def entropy_at_equal_accuracy(evidence: Evidence) -> list[Part]:
    """`higher` on the difference in entropy where both first reach the accuracy that the slower one ends with."""
    row = evidence.at_equal_accuracy("entropy", "riskpo", "grpo")
    return [Part.of("RiskPO − GRPO", partial(higher, margin=ALIKE_ENTROPY), NATS, row)]


def lower_tail(evidence: Evidence) -> list[Part]:
    """`alike` on the mean reward and `higher` on CVaR, RVaR and MVaR of bundle scores, over the last half of training.

    A bundle score adds up B rewards, and so does its margin.
    """
    measures = {"risk/cvar": "CVaR", "risk/rvar": "RVaR", "risk/mvar": "MVaR"}
    if evidence.config.risk.alpha == 0:
        del measures["risk/cvar"]  # there is no lower tail
    rows = evidence.training("riskpo", "grpo", ["reward/mean", *measures])
    margin = ALIKE * evidence.config.risk.bundle_size
    reward = rows["reward/mean"]
    parts = [Part.of("Mean reward, RiskPO − GRPO", partial(alike, margin=ALIKE), POINTS, reward)]
    for column, name in measures.items():
        row = rows[column]
        parts.append(Part.of(f"{name}, RiskPO − GRPO", partial(higher, margin=margin), SCORE, row))
    return parts


def more_accurate(rival: str) -> Callable[[Evidence], list[Part]]:
    """`higher` on the difference in Pass@1 after training, RiskPO minus a rival."""

    def decide(evidence: Evidence) -> list[Part]:
        row = evidence.difference("Pass@1", "riskpo", rival)
        return [Part.of(evidence.minus("riskpo", rival), partial(higher, margin=ALIKE), POINTS, row)]

    return decide


def more_accurate_at(*tasks: str) -> Callable[[Evidence], list[Part]]:
    """`higher` on the difference in Pass@1 after training, RiskPO minus GRPO and minus DAPO, on one of these tasks."""

    def decide(evidence: Evidence) -> list[Part]:
        if evidence.config.task.name not in tasks:
            raise MissingRuns(f"a profile of the task {' or '.join(tasks)}")
        evidence.rows("counts", "riskpo", "grpo", "dapo")  # names all that are missing
        return [part for rival in ("grpo", "dapo") for part in more_accurate(rival)(evidence)]

    return decide


def best_method(evidence: Evidence) -> list[Part]:
    """`best` of Pass@1 against each of the `BASELINES`: not only against the one that happened to come out first."""
    rivals = {name: evidence.minus("riskpo", name) for name in BASELINES if name in evidence.config.runs.names}
    return evidence.best_of("riskpo", rivals, "a baseline with a seed of riskpo")


def widening_gap(evidence: Evidence) -> list[Part]:
    """`higher` on the slope of the gap in Pass@k to GRPO against log2 k, and on the gap at the largest k.

    The slope is the least-squares one over all k, a fixed combination of the gaps, and so resampled with them; its
    margin adds up to `ALIKE` from the smallest to the largest k.
    """
    ks = sorted(evidence.config.evaluation.ks)
    if len(ks) < 2:
        raise DataError("evaluation.ks has one k: a gap that widens with k needs two.")
    doublings = np.log2(ks)
    centred = doublings - doublings.mean()
    weights = {f"Pass@{k}": float(weight) for k, weight in zip(ks, centred / (centred**2).sum(), strict=True)}
    slope = evidence.difference("slope", "riskpo", "grpo", combined=weights)
    gap = evidence.difference(evidence.reach, "riskpo", "grpo")
    margin = ALIKE / float(doublings[-1] - doublings[0])
    return [
        Part.of("Slope of RiskPO − GRPO", partial(higher, margin=margin), SLOPE, slope),
        Part.of(f"{evidence.reach}, RiskPO − GRPO", partial(higher, margin=ALIKE), POINTS, gap),
    ]


def collapse(evidence: Evidence) -> list[Part]:
    """Risk-seeking's entropy is `below` `COLLAPSE` of the base model's, and RiskPO's is `higher` than it."""
    share = evidence.share_of_base("entropy", "risk_seeking")
    gap = evidence.difference("entropy", "riskpo", "risk_seeking")
    return [
        Part.of("Risk-seeking, of the base model's", partial(below, limit=COLLAPSE), SHARE, share),
        Part.of("RiskPO − risk-seeking", partial(higher, margin=ALIKE_ENTROPY), NATS, gap),
    ]


def best_cell(family: str) -> Callable[[Evidence], list[Part]]:
    """`best` of Pass@1, the paper's setting against every other cell of an ablation that was run."""

    def decide(evidence: Evidence) -> list[Part]:
        config, of = evidence.config, ablations.family(family)
        paper, ours = asdict(Risk()), ablations.settings(config, "riskpo")
        if any(ours[option] != value for option, value in paper.items()):
            wanted = ", ".join(f"{_SYMBOLS[option]} = {value:g}" for option, value in paper.items())
            raise MissingRuns(f"riskpo with the paper's {wanted}")
        found = ablations.cells(config, of)
        centre = found.pop(of.centre)
        rivals = {name: f"{centre} minus {label}" for name, label in found.items()}
        return evidence.best_of(of.centre, rivals, f"riskpo with another {' or '.join(of.options.values())}")

    return decide


def tails(evidence: Evidence) -> list[Part]:
    """`assumed` in both tails of the base model and of RiskPO at its last step: log-probabilities of responses.

    Of `analysis.monotonicity`: the interval is over groups of questions, averaged over seeds.
    """
    levels = ablations.settings(evidence.config, "riskpo")
    parts = []
    for row in evidence.tails("riskpo", levels["alpha"], levels["beta"]):
        whose = "Base model" if row["algorithm"] == BASE else "RiskPO"
        what = f"{whose}, {row['tail']} tail ({row['assumed']}?)"
        parts.append(Part.of(what, partial(assumed, expected=row["assumed"]), LOG_PROB, row))
    return parts


def theorem_2(evidence: Evidence) -> list[Part]:
    """The mean of ωL + U over RiskPO's training is `higher` than 0, and its share of steps above 0 than a half.

    A step's terms are estimates from one batch and scatter around their mean: also where the inequality holds
    throughout, some steps come out below 0.
    """
    rows = evidence.whole_training("riskpo", ablations.settings(evidence.config, "riskpo")["omega"])
    total, share = rows["tail/sum"], rows["tail/holds"]
    return [
        Part.of("Mean of ωL + U", partial(higher, margin=0.0), COVARIANCE, total),
        Part.of("Share of steps with ωL + U ≥ 0", partial(above, limit=0.5), SHARE, share),
    ]


def risk_neutral(evidence: Evidence) -> list[Part]:
    """`alike` in Pass@1, Pass@k of the largest k and entropy: RiskPO and Dr. GRPO with RiskPO's step (`matched_to`).

    Where their steps are not shown to be alike this was not tested: the statistic that decides is then their ratio.
    """
    matched = [
        name
        for name, chosen in evidence.config.algorithms.items()
        if algorithms.preset_name(name, chosen) == "dr_grpo" and chosen.get("matched_to") == "riskpo"
    ]
    if not matched:
        raise MissingRuns("dr_grpo with matched_to riskpo")
    evidence.rows("counts", "riskpo", matched[0])  # names what is missing
    ratio = evidence.ratio("kl/step", matched[0], "riskpo")
    step = Part.of(
        "KL within a step, matched Dr. GRPO's of RiskPO's", partial(matching, factor=SAME_STEP), SHARE, ratio
    )
    parts = []
    for metric, margin, unit in (
        ("Pass@1", ALIKE, POINTS),
        (evidence.reach, ALIKE, POINTS),
        ("entropy", ALIKE_ENTROPY, NATS),
    ):
        row = evidence.difference(metric, "riskpo", matched[0])
        what = f"{metric[0].upper()}{metric[1:]}, RiskPO − matched Dr. GRPO"
        parts.append(Part.of(what, partial(alike, margin=margin), unit, row).only_if(step))
    return [*parts, step] if step.verdict == HOLDS else [step, *parts]


def reaches_further(ours: str, *theirs: str) -> Callable[[Evidence], list[Part]]:
    """`higher` on the difference in Pass@k along training where both first reach the same accuracy, for each rival.

    k is the largest with enough responses along training.
    """

    def decide(evidence: Evidence) -> list[Part]:
        evidence.rows("evaluations", ours, *theirs)  # names all that are missing
        parts = []
        for rival in theirs:
            row = evidence.at_equal_accuracy(evidence.followed, ours, rival)
            what = f"{evidence.followed}, {evidence.minus(ours, rival)}"
            parts.append(Part.of(what, partial(higher, margin=ALIKE), POINTS, row))
        return parts

    return decide


_SYMBOLS = {"alpha": "α", "beta": "β", "omega": "ω", "bundle_size": "B"}


# What the paper reports


def _gains(*rivals: str) -> str:
    """RiskPO's averages against the best of some methods, of all others by default: Tables 1 and 2."""
    suites: tuple[published.Suite, ...] = ("hard math", "easy math")
    said = []
    for suite in suites:
        means = published.averages(suite)
        others = {name: value for name, value in means.items() if name != "RiskPO" and name in (rivals or means)}
        rival = max(others, key=lambda name: others[name])
        said.append(f"{suite} {means['RiskPO']:.2f} % against {rival}'s {others[rival]:.2f} %")
    return "; ".join(said)


def _on(benchmark: str) -> str:
    """Every method's Pass@1 on a benchmark of Table 2."""
    said = (f"{method} {value:g} %" for method, value in published.scores("easy math")[benchmark].items())
    return f"{benchmark}, {', '.join(said)} (from a secondary source)"


def _ablation(factor: published.Factor) -> str:
    said = (f"{setting}: {average:.2f} %" for setting, average in published.ablation(factor).items())
    return f"easy math, {'; '.join(said)}"


def _profiles() -> str:
    found = published.risk_profiles()
    said = (f"{name.replace('_', '-')} {start:g} % → {end:g} %" for name, (start, end) in found.items())
    return f"MATH, {'; '.join(said)}"


def _unread() -> str:
    return "in a figure; could not be read"


def _ours() -> str:
    return "not in the paper"


# The list


@dataclass(frozen=True)
class Claim:
    """A claim in words, and what decides it.

    Attributes:
        key: names the row.
        says: the claim.
        source: theorem, figure or table of the paper; `ours` for what the paper does not say.
        statistic: what decides it.
        rule: when it holds, and when not.
        published: the paper's number.
        decide: its statistics with a verdict each.
    """

    key: str
    says: str
    source: str
    statistic: str
    rule: str
    published: Callable[[], str]
    decide: Callable[[Evidence], list[Part]]


def _higher(margin: str) -> str:
    return f"holds where the interval lies above 0, does not hold where it lies below {margin}"


def _alike(margin: str) -> str:
    return f"holds where the interval lies within ±{margin}, does not hold where it lies outside"


_P, _N = f"{100 * ALIKE:g} points", f"{ALIKE_ENTROPY:g} nats"
_BEST = (
    "each difference tested by its bootstrap p-value at 1 minus the confidence, Holm-corrected for all of them: holds "
    "where every one is shown to lie above 0, does not hold where one is shown to lie below"
)

CLAIMS = (
    Claim(
        "entropy_at_equal_steps", "RiskPO keeps more entropy than GRPO.", "Theorem 2, Fig. 5",
        "Entropy on the held-out questions after training, RiskPO − GRPO", _higher(_N),
        _unread, entropy_at_equal_steps,
    ),
    Claim(
        "entropy_at_equal_accuracy", "RiskPO keeps more entropy than GRPO at the same accuracy.", "ours",
        "Entropy where each first reaches the accuracy that the slower one ends with, RiskPO − GRPO", _higher(_N),
        _ours, entropy_at_equal_accuracy,
    ),
    Claim(
        "lower_tail", "RiskPO matches GRPO's mean reward and raises the lower tail above GRPO's.", "Fig. 5",
        "Over the last half of training, RiskPO − GRPO: mean reward; CVaR, RVaR and MVaR of the bundle scores",
        f"all of them: the reward {_alike(_P)}; each measure {_higher(f'{100 * ALIKE:g} points times B')}",
        _unread, lower_tail,
    ),
    Claim(
        "pass_at_1", "RiskPO has a higher Pass@1 than GRPO.", "Tables 1 and 2",
        "Pass@1 after training, RiskPO − GRPO", _higher(_P),
        lambda: _gains("GRPO"), more_accurate("grpo"),
    ),
    Claim(
        "best_method", "RiskPO has the highest Pass@1 of all methods compared.", "Tables 1 and 2",
        "Pass@1 after training, RiskPO minus each baseline that was run", _BEST,
        lambda: f"{_gains()}; {published.notes('easy math')['DAPO']}", best_method,
    ),
    *(
        Claim(
            key, f"RiskPO has a higher Pass@1 than GRPO and DAPO {where}.", "Table 2",
            "Pass@1 after training, RiskPO minus each", f"both: {_higher(_P)}",
            partial(_on, benchmark), more_accurate_at(*tasks),
        )
        for key, where, benchmark, tasks in (
            ("code", "in generating code", "LiveCodeBench", ("programs", "code")),
            ("images", "on questions about images", "Geometry3K", ("geometry", "geometry3k")),
        )
    ),
    Claim(
        "widening_gap", "RiskPO's lead over GRPO in Pass@k widens with k.", "Fig. 4",
        "Slope of the difference in Pass@k against log₂ k, and the difference at the largest k",
        f"both: the slope {_higher(f'{_P} over all k')}; the difference {_higher(_P)}",
        _unread, widening_gap,
    ),
    Claim(
        "against_risk_neutral", "Risk-averse beats risk-neutral training.", "Fig. 6",
        "Pass@1 after training, RiskPO − Dr. GRPO, whose objective is the mean reward", _higher(_P),
        _unread, more_accurate("dr_grpo"),
    ),
    Claim(
        "against_risk_seeking", "Risk-averse beats risk-seeking training.", "Fig. 6",
        "Pass@1 after training, RiskPO − risk-seeking", _higher(_P),
        _profiles, more_accurate("risk_seeking"),
    ),
    Claim(
        "collapse", "Under risk-seeking training the entropy collapses.", "Fig. 6",
        "Entropy after training: risk-seeking's as a share of the base model's, and RiskPO − risk-seeking",
        f"both: the share holds where its interval lies below {100 * COLLAPSE:g} %, does not hold where it lies above; "
        f"the difference {_higher(_N)}",
        _unread, collapse,
    ),
    Claim(
        "quantile_levels", "(α, β) = (0.2, 0.8) is the best choice.", "Table 3",
        "Pass@1 after training, RiskPO minus RiskPO with another α or β", _BEST,
        lambda: _ablation("quantile_levels"), best_cell("levels"),
    ),
    Claim(
        "bundle_size", "B = 5 is the best bundle size.", "Table 4",
        "Pass@1 after training, RiskPO minus RiskPO with another B", _BEST,
        lambda: _ablation("bundle_size"), best_cell("bundle_size"),
    ),
    Claim(
        "omega", "ω = 0.5 is the best weight of the lower tail.", "Table 5",
        "Pass@1 after training, RiskPO minus RiskPO with another ω", _BEST,
        lambda: _ablation("omega"), best_cell("omega"),
    ),
    Claim(
        "tails", "Log-probability falls with the reward in the lower tail and rises in the upper one.",
        "Assumption 1, Fig. 3",
        "Log-probability of a response at the last minus the first quantile level of each tail, base model and RiskPO",
        "all four: holds where the interval has the assumed sign, does not hold where it has the other",
        _unread, tails,
    ),
    Claim(
        "theorem_2", "The inequality of Theorem 2, ωL + U ≥ 0, holds along RiskPO's training.", "Theorem 2",
        "Mean of ωL + U over all steps, and share of the steps where it is at least 0",
        "both: holds where the interval lies above 0 (the share's above 50 %), does not hold where it lies below",
        lambda: "assumed, not measured", theorem_2,
    ),
    Claim(
        "risk_neutral", "With bundles of random questions RiskPO is Dr. GRPO with another step.", "ours",
        "RiskPO − Dr. GRPO with RiskPO's step: Pass@1, Pass@k at the largest k, entropy",
        f"all three: Pass@k {_alike(_P)}; entropy {_alike(_N)}; cannot tell unless the interval of the ratio of their "
        f"steps' mean KL divergences lies within a factor of {SAME_STEP:g}",
        _ours, risk_neutral,
    ),
    Claim(
        "stratified_against_grpo", "RiskPO on stratified bundles reaches further than GRPO at the same accuracy.",
        "ours",
        "Pass@k of the largest k along training, where both first reach the same accuracy: stratified − GRPO",
        _higher(_P), _ours, reaches_further("riskpo_stratified", "grpo"),
    ),
    Claim(
        "stratified_at_its_rate",
        "It reaches further than GRPO and MaxRL at the same accuracy where they train at its learning rate, too.",
        "ours",
        "Pass@k of the largest k along training, where both first reach the same accuracy: stratified minus each",
        f"both: {_higher(_P)}", _ours, reaches_further("riskpo_stratified", "grpo_slow", "max_rl_slow"),
    ),
    *(
        Claim(
            f"frontier_{key}", f"{name} reaches further than MaxRL and Focal at the same accuracy.", "ours",
            f"Pass@k of the largest k along training, where both first reach the same accuracy: {name} minus each",
            f"both: {_higher(_P)}",
            _ours, reaches_further(key, "max_rl", "focal"),
        )
        for key, name in (
            ("riskpo_stratified", "RiskPO on stratified bundles"),
            ("mvar_accuracy", "MVaR of accuracies"),
            ("mvar_log_accuracy", "MVaR of log accuracies"),
        )
    ),
)  # fmt: skip
"""In the order of the rows."""


# The rows


def decide(config: Config, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """A row for each of the claims.

    Returns:
        claim (its key), says, source, statistic, rule; measured (of what the value is), value, low and high in `unit`:
        the statistic that decides, of several the first with the claim's verdict; also: the others, as text, with their
        seeds where these are others; seeds, questions and n (responses to each) or steps that it rests on; verdict;
        strict, the verdict where every interval is widened to that over training seeds alone (`evidence.over_seeds`);
        confound: where one of the two that it compares is shown to move further in a step, how far; published: the
        paper's number; missing: runs without records, for want of which a claim is not measured or rests on less.

    Raises:
        DataError: where the profile has no records, or records that cannot be compared.
    """
    evidence = Evidence(config)
    return pd.DataFrame([_row(claim, evidence) for claim in claims]).astype({"questions": "Int64", "n": "Int64"})


def _row(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    about = {"claim": claim.key, "says": claim.says, "source": claim.source}
    about |= {"statistic": claim.statistic, "rule": claim.rule}
    evidence.asked.clear()
    try:
        parts = claim.decide(evidence)
    except MissingRuns as runs:
        nothing = {
            "strict": UNMEASURED,
            "measured": "",
            "value": np.nan,
            "low": np.nan,
            "high": np.nan,
            "unit": "",
            "also": "",
            "seeds": "",
            "confound": "",
        }
        found: dict[str, Any] = nothing | {"questions": None, "n": None, "steps": "", "verdict": UNMEASURED}
        missing = str(runs)
    else:
        verdict = together([part.verdict for part in parts])
        deciding = next(part for part in parts if part.verdict == verdict)
        # As many digits as the file has: what is shown is then the same from `decide` and from `read`.
        value, low, high = (float(f"{deciding.unit.scale * end:.6g}") for end in deciding.estimate)
        found = {
            "measured": deciding.what, "value": value, "low": low, "high": high, "unit": deciding.unit.name,
            "also": "; ".join(_also(part, deciding) for part in parts if part is not deciding),
            "seeds": deciding.seeds, "questions": deciding.questions, "n": deciding.n, "steps": deciding.steps,
            "verdict": verdict, "strict": together([part.strict for part in parts]),
        }  # fmt: skip
        missing = ", ".join(evidence.absent())
        found["confound"] = evidence.unequal_steps(*deciding.pair) if deciding.pair else ""
    return about | found | {"published": claim.published(), "missing": missing}


def _also(part: Part, deciding: Part) -> str:
    """A further statistic, with its seeds where they are not those of the deciding one."""
    seeds = "" if part.seeds == deciding.seeds else f", {_seeds(part.seeds)}"
    return f"{part} ({part.verdict}{seeds})"


def _seeds(seeds: str) -> str:
    found = seeds.split()
    return "base model" if found == ["none"] else f"seed{'s' * (len(found) > 1)} {tables.seed_list(seeds)}"


# For readers


def as_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The claims for humans, from `decide` or `read`: what is claimed, what decides it, what came out."""
    columns = ["Claim (source)", "What decides it", "Here", "Verdict", "The paper's number"]
    rows = [
        [f"{row['says']} ({row['source']})", row["statistic"], _here(row), _verdict(row), row["published"]]
        for row in frame.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=columns)


def _verdict(row: Mapping[Any, Any]) -> str:
    return row["verdict"] if row["strict"] == row["verdict"] else f"{row['verdict']}; strictly: {row['strict']}"


def _here(row: Mapping[Any, Any]) -> str:
    if row["verdict"] == UNMEASURED:
        return f"needs runs of {row['missing']}"
    estimated = tables.cell(row["value"], row["low"], row["high"], UNITS[row["unit"]].digits)
    confound = f". {row['confound']}" if row["confound"] else ""
    return f"{row['measured']}: {estimated} {row['unit']}{confound}"


def _details(frame: pd.DataFrame) -> pd.DataFrame:
    rows = [
        [row["says"], row["rule"][0].upper() + row["rule"][1:], row["also"] or "–", _basis(row)]
        for row in frame.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=["Claim", "Rule", "Further estimates", "Rests on"])


def _basis(row: Mapping[Any, Any]) -> str:
    """Seeds, and questions or steps, of the statistic that decided."""
    if row["verdict"] == UNMEASURED:
        return "–"
    parts = [_seeds(row["seeds"])]
    if row["steps"]:
        parts.append(f"steps {row['steps']}")
    else:
        responses = "" if pd.isna(row["n"]) else f" × {row['n']} responses"
        parts.append(f"{row['questions']} questions{responses}")
    if row["missing"]:
        parts.append(f"missing: {row['missing']}")
    return " · ".join(parts)


_COUNTED: dict[Verdict, str] = {
    HOLDS: "hold",
    FAILS: "do not hold",
    OPEN: "cannot be told at this scale",
    UNMEASURED: "are not measured in this profile",
}

NOTE = """\
# The claims: verdicts at the scale of profile {profile}

{counted} A verdict is about this task, this model and these runs, not about the paper's.

Brackets hold {confidence:g} % bootstrap intervals over training seeds and questions (over seeds and blocks of steps for
what training recorded, over groups of questions for the tails of the log-probability), paired by seed and question
wherever two algorithms are compared, on the seeds that both have. A gain is denied, too, where the whole interval lies
below a margin: whatever gain there may be is then too small to matter. What neither holds nor does not hold cannot be
told at this scale; nor can what rests on one seed. Where one of two algorithms is shown to move further in a step, the
table says so: what is found may then be a matter of the length of steps. Of a claim with several statistics the first
table shows the one that decided. Verdicts are not corrected for the number of claims. The paper's numbers are of its
own models and tasks, from single runs, without intervals.

With few seeds the intervals are too narrow where trainings differ more than questions do. In the extreme that only
trainings differ, by normal chance, an interval that should leave out 0 in 5 % of the cases does so in half of them with
two seeds, in a quarter with three and in about 16 % with five. The strict verdict guards against this: it asks the same
of intervals widened to Student's t over the training seeds alone. Where it differs the table says so."""


def counted(frame: pd.DataFrame) -> str:
    """`Of 19 claims 3 hold, 7 do not hold, …`, from `decide` or `read`; and how many strictly cannot be told either."""
    found = frame["verdict"].value_counts()
    said = ", ".join(f"{found[verdict]} {of}" for verdict, of in _COUNTED.items() if verdict in found)
    changed = int((frame["strict"] != frame["verdict"]).sum())
    return f"Of {len(frame)} claims {said}." + (f" Strictly, {changed} more cannot be told." if changed else "")


def write(config: Config) -> pd.DataFrame:
    """Decide, and write claims.csv and claims.md to the folder of the profile's results; returns the rows."""
    frame = decide(config)
    note = NOTE.format(profile=config.profile, counted=counted(frame), confidence=100 * config.evaluation.confidence)
    tables.save(
        config.results, "claims", frame, note, {"Verdicts": as_table(frame), "How each is decided": _details(frame)}
    )
    return frame


def read(config: Config) -> pd.DataFrame | None:
    """The rows that `write` wrote for the profile; None where there are none."""
    path = config.results / "claims.csv"
    if not path.is_file():
        return None
    texts = dict.fromkeys(("also", "seeds", "steps", "confound", "missing"), "str")
    kinds: dict[str, str] = {**texts, "questions": "Int64", "n": "Int64"}
    frame = files.read_table(path, f"make it again (dvc repro claims@{config.profile})", ["claim", *kinds], dtype=kinds)
    written = [column for column in frame if column not in ("value", "low", "high", "questions", "n")]
    return frame.assign(**{str(column): frame[column].fillna("") for column in written})


def measured(config: Config) -> pd.DataFrame:
    """Of the rows of `read` those that the profile measures; DataError where there are none at all."""
    frame = read(config)
    if frame is None:
        raise DataError(f"{config.profile} has no verdicts: make them (make repro PROFILE={config.profile}).")
    return frame[frame["verdict"] != UNMEASURED].reset_index(drop=True)


def _write() -> None:
    config = configuration.load()
    frame = write(config)
    print(f"The verdicts on {len(frame)} claims are in {config.results.relative_to(configuration.root())}/claims.md.")


def main() -> int:
    return exit_code(_write)


if __name__ == "__main__":
    sys.exit(main())
