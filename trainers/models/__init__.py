"""Models, registered with timm: importing this package makes `timm.create_model` find them."""

from trainers.models.encoder_only import EncoderOnly, encoder_only
from trainers.models.sdt import Sdt, sdt
from trainers.models.stal_spikformer import StalSpikformer, stal_spikformer
from trainers.models.stal_srnn import RecurrentClassifier, StalSrnn, stal_srnn

__all__ = [
    "EncoderOnly",
    "RecurrentClassifier",
    "Sdt",
    "StalSpikformer",
    "StalSrnn",
    "encoder_only",
    "sdt",
    "stal_spikformer",
    "stal_srnn",
]
