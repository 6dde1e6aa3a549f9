"""Models, registered with timm: importing this package makes `timm.create_model` find them."""

from trainers.models.stal_spikformer import StalSpikformer, stal_spikformer
from trainers.models.stal_srnn import RecurrentClassifier, StalSrnn, stal_srnn

__all__ = ["RecurrentClassifier", "StalSpikformer", "StalSrnn", "stal_spikformer", "stal_srnn"]
