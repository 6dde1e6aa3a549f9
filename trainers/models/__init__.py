"""Models, registered with timm: importing this package makes `timm.create_model` find them."""

from trainers.models.backbone import SpikingTransformer
from trainers.models.encoder_only import EncoderOnly, encoder_only
from trainers.models.qkformer import QkFormer, qkformer_cifar, qkformer_dvs, qkformer_imagenet
from trainers.models.sdt import Sdt, sdt
from trainers.models.spikformer import Spikformer, spikformer_cifar, spikformer_dvs, spikformer_imagenet
from trainers.models.spikingformer import (
    Spikingformer,
    spikingformer_cifar,
    spikingformer_dvs,
    spikingformer_imagenet,
)
from trainers.models.stal_spikformer import StalSpikformer, stal_spikformer
from trainers.models.stal_srnn import RecurrentClassifier, StalSrnn, stal_srnn
from trainers.models.tim import Tim, tim

__all__ = [
    "EncoderOnly",
    "QkFormer",
    "RecurrentClassifier",
    "Sdt",
    "Spikformer",
    "SpikingTransformer",
    "Spikingformer",
    "StalSpikformer",
    "StalSrnn",
    "Tim",
    "encoder_only",
    "qkformer_cifar",
    "qkformer_dvs",
    "qkformer_imagenet",
    "sdt",
    "spikformer_cifar",
    "spikformer_dvs",
    "spikformer_imagenet",
    "spikingformer_cifar",
    "spikingformer_dvs",
    "spikingformer_imagenet",
    "stal_spikformer",
    "stal_srnn",
    "tim",
]
