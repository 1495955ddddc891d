"""Rollout engines: who draws responses from the policy."""

from pathlib import Path

from riskpo_study.config import Rollouts
from riskpo_study.policy import Policy
from riskpo_study.rollouts.engine import Engine, Generation
from riskpo_study.rollouts.transformers_engine import TransformersEngine
from riskpo_study.rollouts.vllm_engine import VllmEngine

__all__ = ["Engine", "Generation", "TransformersEngine", "VllmEngine", "build"]


def build(settings: Rollouts, policy: Policy, model: Path) -> Engine:
    """The engine that the configuration names, for a policy whose architecture lies in the folder `model`."""
    return VllmEngine(policy, model, settings) if settings.engine == "vllm" else TransformersEngine(policy)
