"""What the tables of `10_theory` say, a sentence for each of its figures; as `findings`, whose `Study` they take."""

from __future__ import annotations

import numpy as np
import pandas as pd

from riskpo_study import tables
from riskpo_study.analysis import joined
from riskpo_study.findings import Study

__all__ = ["entropy", "every_weight", "gradient", "noise", "ordering", "riskpo_weights", "tracking"]


def every_weight(study: Study) -> str:
    """Whose weight falls with the accuracy, between the hardest and the easiest part of the questions."""
    table = study.table("10_theory/every_weight")
    if table["accuracy"].nunique() == 1:
        return "The questions from which anything can be learned are too few to compare the hardest with the easiest."
    rows = []
    for name, part in table.groupby("algorithm", sort=False):
        hard, easy = part.iloc[0], part.iloc[-1]
        gap, error = hard["weight"] - easy["weight"], np.hypot(hard["error"], easy["error"])
        rows.append((study.name(str(name)), gap, gap - 2 * error, gap + 2 * error))
    gaps = pd.DataFrame(rows, columns=["name", "value", "low", "high"]).sort_values("value", ascending=False)
    kinds = {
        "It falls with the accuracy (averse to risk over questions)": gaps["low"] > 0,
        "it rises": gaps["high"] < 0,
        "neither is shown": (gaps["low"] <= 0) & (gaps["high"] >= 0),
    }
    said = []
    for kind, chosen in kinds.items():
        found = gaps[chosen]
        named = [f"{name} {tables.cell(gap)}" for name, gap in zip(found["name"], found["value"], strict=True)]
        said += [f"{kind}: {joined(named)}"] if named else []
    distance = ((table["weight"] - table["expected"]) / table["error"]).abs()
    far = study.name(table["algorithm"].iloc[int(distance.argmax())])
    return (
        "Measured weight of the hardest part of the questions minus that of the easiest, in means of all, judged by "
        f"two standard errors. {'; '.join(said)}. The points lie at most {distance.max():.1f} standard errors off "
        f"their lines ({far})."
    )


def riskpo_weights(study: Study) -> str:
    """From the hardest to the easiest question, for each estimator."""
    table = study.table("10_theory/riskpo_weights").sort_values("accuracy", kind="stable")
    said = []
    for panel, part in table.groupby("panel", sort=False):
        ends = (
            f"{name} {tables.cell(curve['weight'].iloc[0])} to {tables.cell(curve['weight'].iloc[-1])}"
            for name, curve in part.groupby("estimator", sort=False)
        )
        said.append(f"{panel}: {'; '.join(ends)}")
    low, high = table["accuracy"].min(), table["accuracy"].max()
    return f"Weight of a question of accuracy {low:.2g} to that of one of {high:.2g}. {'. '.join(said)}."


def ordering(study: Study) -> str:
    """How much of the update the bias takes, over all questions."""
    table = study.table("10_theory/ordering")
    (whole,) = table[table["part"] == "all"].to_dict("records")
    bias, blur = (f"{tables.cell(whole[of], digits=3)} ± {2 * whole[f'{of}_error']:.3f}" for of in ("bias", "blur"))
    return (
        f"Weight of all questions together: {bias} with this batch instead of another one to line them up (bias), "
        f"{blur} with another batch instead of the truth (blur); ± two standard errors."
    )


def noise(study: Study) -> str:
    """What each credit costs with the best baseline, and without one."""
    table = study.table("10_theory/noise")
    scaled = table.assign(**{of: table[of] / table[of].iloc[0] for of in ("along", "across")})
    said = [
        f"{row['credit']} credit, baseline {row['baseline']}: {row['along']:.1f} and {row['across']:.1f}"
        for row in scaled.iloc[1:].to_dict("records")
    ]
    return f"Times RLOO's variance, along the reward and in all other directions. {'; '.join(said)}."


def gradient(study: Study) -> str:
    """How exact the formula is, and what the quantiles of the same sample cost."""
    errors = study.table("10_theory/gradient").set_index("case")["MVaR"]
    kink = errors.idxmax()
    text = f"Formula and finite differences of MVaR's gradient differ by at most {errors.drop(kink).max():.0e}"
    text += f", but for a kink ({kink}: {errors.max():.0e})."
    sampled = study.table("10_theory/sampled_gradients")
    sampled = sampled.assign(times=sampled["bias"] / sampled["error"]).sort_values("n", kind="stable")
    said = [
        f"with quantiles {origin} {', '.join(f'{times:.1f}' for times in part['times'])}"
        for origin, part in sampled.groupby("quantiles", sort=False)
    ]
    sizes = ", ".join(map(str, sampled["n"].unique()))
    return f"{text} Bias from {sizes} samples, over what chance leaves of it: {'; '.join(said)}."


def tracking(study: Study) -> str:
    """How far each tracker is from the exact quantiles, in the phases of the course."""
    table = study.table("10_theory/tracking").set_index("tracker")
    said = (f"{name}: {', '.join(tables.cell(of) for of in row)}" for name, row in table.iterrows())
    return f"Mean distance from the exact quantiles, in scores ({', '.join(table.columns)}): {'; '.join(said)}."


def entropy(study: Study) -> str:
    """The order of the residual, and where the inequality holds."""
    residuals = study.table("10_theory/entropy_residuals")
    slopes = []
    for objective, part in residuals.groupby("objective", sort=False):
        slope, _ = np.polyfit(np.log(part["rate"]), np.log(part["residual"].abs()), 1)
        slopes.append(f"{slope:.2f} ({objective})")
    policies = study.table("10_theory/theorem_2").to_dict("records")
    kept, lost = (
        joined([f"{row['policy']} ({tables.cell(row['sum'])})" for row in policies if row["holds"] is held])
        for held in (True, False)
    )
    return (
        f"The residual of the first order falls with slope {joined(slopes)}. ωL + U is at least 0, so that MVaR keeps "
        f"more entropy than the mean, for: {kept}; not for: {lost}."
    )
