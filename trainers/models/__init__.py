"""Models, registered with timm: importing this package makes `timm.create_model` find them."""

from trainers.models.encoder_only import EncoderOnly, encoder_only
from trainers.models.stal_spikformer import StalSpikformer, stal_spikformer
from trainers.models.stal_srnn import RecurrentClassifier, StalSrnn, stal_srnn

__all__ = [
    "EncoderOnly",
    "RecurrentClassifier",
    "StalSpikformer",
    "StalSrnn",
    "encoder_only",
    "stal_spikformer",
    "stal_srnn",
]
