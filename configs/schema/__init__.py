"""The typed configuration of one training run: every key that exists, with its range and its default."""

from configs.schema.base import Count, Fraction, NonNegative, Positive, Section
from configs.schema.data import Data, DataBase, DigitsData, MnistFilesData, TorchvisionData
from configs.schema.encoder import (
    AncestorEncoder,
    ConvStalEncoder,
    Encoder,
    EncoderBase,
    LatencyEncoder,
    RateEncoder,
    SlotOrder,
    SpsEncoder,
    StalEncoder,
    StalPsEncoder,
)
from configs.schema.loss import (
    CeL1Loss,
    CeSpikeSparsityLoss,
    CrossEntropyLoss,
    EncoderLoss,
    Loss,
    MultiChannelEncoderLoss,
    ZTerms,
)
from configs.schema.model import EncoderOnlyModel, Model, StalSpikformerModel, StalSrnnModel
from configs.schema.neuron import LifNeuron, Neuron, NoNeuron, RecurrentLifNeuron, RecurrentSurrogate, Surrogate
from configs.schema.recipe import Augmentation, Optimizer, Schedule, Training
from configs.schema.run import RunConfig
from configs.schema.tracking import Tracking

__all__ = [
    "AncestorEncoder",
    "Augmentation",
    "CeL1Loss",
    "CeSpikeSparsityLoss",
    "ConvStalEncoder",
    "Count",
    "CrossEntropyLoss",
    "Data",
    "DataBase",
    "DigitsData",
    "Encoder",
    "EncoderBase",
    "EncoderLoss",
    "EncoderOnlyModel",
    "Fraction",
    "LatencyEncoder",
    "LifNeuron",
    "Loss",
    "MnistFilesData",
    "Model",
    "MultiChannelEncoderLoss",
    "Neuron",
    "NoNeuron",
    "NonNegative",
    "Optimizer",
    "Positive",
    "RateEncoder",
    "RecurrentLifNeuron",
    "RecurrentSurrogate",
    "RunConfig",
    "Schedule",
    "Section",
    "SlotOrder",
    "SpsEncoder",
    "StalEncoder",
    "StalPsEncoder",
    "StalSpikformerModel",
    "StalSrnnModel",
    "Surrogate",
    "TorchvisionData",
    "Tracking",
    "Training",
    "ZTerms",
]
