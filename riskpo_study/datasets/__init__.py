"""Questions with checkable answers, from the Hugging Face hub or local copies, in one schema."""

from riskpo_study.datasets.loading import Loaded, Question, load
from riskpo_study.datasets.overlap import overlap, overlap_by_source
from riskpo_study.datasets.prompts import INSTRUCTIONS, illustrated, messages
from riskpo_study.datasets.registry import DATASETS, Source

__all__ = [
    "DATASETS",
    "INSTRUCTIONS",
    "Loaded",
    "Question",
    "Source",
    "illustrated",
    "load",
    "messages",
    "overlap",
    "overlap_by_source",
]
