"""A notebook-first, reproducible study of RiskPO (arXiv 2510.00911)."""

__version__ = "0.1.0"
