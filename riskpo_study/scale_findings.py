"""What the tables of `12_scale` say, in words: for the notebook and for the report."""

from __future__ import annotations

import math

import pandas as pd

from riskpo_study import tables
from riskpo_study.analysis import joined

TRACKING = "what tracking adds"
"""What RiskPO loses with age more than with known quantiles."""


def tolerated(table: pd.DataFrame) -> str:
    """Of `staleness.tolerated`: how far the rule holds, and how wrong quantiles and steps then are altogether."""
    text = (
        f"Simulated, {_range(table['steps'] / table['rule'], '.2g')} times as many steps are tolerated as by the rule"
    )
    fewer = table[table["steps_high"] < table["rule"]]
    if len(fewer):
        cases = [f"{row['tracker']} at {1000 * row['drift']:g} ‰ a step" for _, row in fewer.iterrows()]
        text += f" (fewer, beyond the noise: {joined(cases)})"
    text += f". Where scores are fresh, a quantile is wrong by {_range(table['fresh'], '.2f')} of a score already and "
    text += f"the step's length by {_range(100 * table['fresh_length'], '.0f')} %"
    if table["length"].notna().any():
        text += f"; at the tolerated age the length is wrong by {_range(100 * table['length'].dropna(), '.0f')} %"
    return f"{text}."


def lost(table: pd.DataFrame) -> str:
    """Of `staleness.lost`: the oldest responses, and whether tracked quantiles have a part in it."""
    oldest = table["age"].max()
    text = f"Points of accuracy lost with responses {oldest} steps old, of the mean over a run: "
    rates = []
    for rate, part in table[(table["age"] == oldest) & (table["algorithm"] != TRACKING)].groupby("rate"):
        cells = [f"{row['algorithm']} {_points(row)}" for _, row in part.iterrows()]
        rates.append(f"at the rate {rate:g} {', '.join(cells)}")
    text += "; ".join(rates)
    added = table[table["algorithm"] == TRACKING]
    more, less = added[added["lost_low"] > 0], added[added["lost_high"] < 0]
    text += f". Tracked quantiles lose more with age than known ones in {len(more)} of {len(added)} comparisons and "
    text += f"less in {len(less)}; in the others the interval of the difference holds 0. "
    largest = added.iloc[int(added["lost"].abs().to_numpy().argmax())]
    text += f"The largest difference is {_points(largest)} points, at the rate {largest['rate']:g} and age "
    same = (table["rate"] == largest["rate"]) & (table["age"] == largest["age"])
    without = table[same & (table["algorithm"] == "Dr. GRPO")].iloc[0]
    return f"{text}{largest['age']}, where Dr. GRPO, which has no quantiles, loses {_points(without)}."


def _range(values: pd.Series, digits: str) -> str:
    """The least and the largest."""
    least, most = (
        f"{value:{digits}}" if value < math.inf else "arbitrarily many" for value in (values.min(), values.max())
    )
    return least if least == most else f"{least} to {most}"


def _points(row: pd.Series) -> str:
    value, low, high = (100 * row[name] for name in ("lost", "lost_low", "lost_high"))
    return tables.cell(value, low, high, digits=1)
