"""Rollout engines: who draws responses from the policy."""

from riskpo_study.rollouts.engine import Engine, Generation
from riskpo_study.rollouts.transformers_engine import TransformersEngine

__all__ = ["Engine", "Generation", "TransformersEngine"]
