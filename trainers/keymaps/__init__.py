"""Key names of published checkpoints, and how their weights come into our models."""
