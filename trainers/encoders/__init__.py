"""Encoders that turn images into spikes over time, found by name."""

from trainers.encoders import ancestor, convstal, latency, rate, sps, stal, stal_ps
from trainers.encoders.base import ENCODERS, Encoded, StepEncoder, TokenEncoder, register_encoder

__all__ = [
    "ENCODERS",
    "Encoded",
    "StepEncoder",
    "TokenEncoder",
    "ancestor",
    "convstal",
    "latency",
    "rate",
    "register_encoder",
    "sps",
    "stal",
    "stal_ps",
]
