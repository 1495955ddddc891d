"""Every golden number is compared with something, or is listed here with the reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from golden import ENTRIES

# Variants of other codebases, kept in golden.json beside ours for the contrast.
NOT_OURS = {
    "linear_type7": "interpolated quantiles, which only riskpo_released takes",
    "harrell_davis": "another quantile estimator",
    "jitter_pm_half_mid": "another quantile estimator",
    "max_abs_diff_if_float32": "an error of the reference itself",
    "advantages_if_track_with_q_down_0.5_q_up_1.5": "tracked quantiles, unseen by the released advantage",
    "reinforcepp": "REINFORCE++ without the group baseline",
    "grpo_population_std": "GRPO with the population std",
    "gpg_verl_alpha_from_nonzero_rewards": "α of verl, which counts other groups than the paper",
    "gpg_verl_alpha_bsz_over_nonzero": "α of verl, which counts other groups than the paper",
    "qae_K0.4_adv_unbiased_std": "QAE divided by the std",
    "biased_plugin_1-(1-c/n)^k": "resampling with replacement, which is biased",
    "maj@1_with_replacement": "resampling with replacement",
    "maj@2_with_replacement": "resampling with replacement",
    "maj@3_with_replacement": "resampling with replacement",
    "kl_k1_token_mean": "another estimator of the divergence",
    "kl_k2_token_mean": "another estimator of the divergence",
}


def leaves(outputs: dict[str, Any]) -> set[str]:
    """The keys that hold numbers, however deep."""
    return {leaf for key, value in outputs.items() for leaf in (leaves(value) if isinstance(value, dict) else [key])}


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["name"] for entry in ENTRIES])
def test_every_golden_number_is_used(entry: dict[str, Any]) -> None:
    here = Path(__file__)
    tests = "".join(p.read_text(encoding="utf-8") for p in here.parent.glob("test_*.py") if p != here)
    assert f'"{entry["name"]}"' in tests, "no test names this entry"
    unused = {key for key in leaves(entry["outputs"]) - NOT_OURS.keys() if f'"{key}"' not in tests}
    assert not unused, f"no test names {unused}"


def test_every_exception_exists() -> None:
    assert NOT_OURS.keys() <= set().union(*(leaves(entry["outputs"]) for entry in ENTRIES))
