"""Data sets, their splits, augmentation and the order of their batches."""

from trainers.data.bundle import DataBundle, Samples, Split
from trainers.data.loading import load_data

__all__ = ["DataBundle", "Samples", "Split", "load_data"]
