"""Curves delivered to MLflow and Weights & Biases."""
