"""Figures, the report, and what optuna-dashboard shows."""
