"""Models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.base import Count, Positive, Section
from configs.schema.transformers import (
    QkformerCifarModel,
    QkformerDvsModel,
    QkformerImagenetModel,
    SdtModel,
    SpikformerCifarModel,
    SpikformerDvsModel,
    SpikformerImagenetModel,
    SpikingformerCifarModel,
    SpikingformerDvsModel,
    SpikingformerImagenetModel,
    TimModel,
)


class StalSrnnModel(Section):
    """Two recurrent LIF layers over the encoder's spikes; logits are summed spikes (DeniBademi/Thesis)."""

    name: Literal["stal_srnn"] = "stal_srnn"
    hidden_size: Count = Field(56, description="width of the hidden recurrent layer (l1_sz in the thesis)")
    embed_dims: int = Field(
        128, ge=8, multiple_of=8, description="token width D; in stal_srnn of an encoder that gives tokens"
    )


class StalSpikformerModel(Section):
    """Spikformer with a swappable encoder (arXiv 2209.15425)."""

    name: Literal["stal_spikformer"] = "stal_spikformer"
    embed_dims: int = Field(128, ge=8, multiple_of=8, description="token width D")
    num_heads: Count = Field(4, description="attention heads; must divide embed_dims")
    mlp_ratio: Positive = Field(4.0, description="MLP width over token width")
    depth: Count = Field(6, description="number of blocks")
    attn_scale: Positive = Field(0.125, description="constant factor of q k^T v")


class EncoderOnlyModel(Section):
    """An encoder trained alone, for a classifier to load as `encoder.checkpoint` (arXiv 2407.08362)."""

    name: Literal["encoder_only"] = "encoder_only"


Model = Annotated[
    StalSrnnModel
    | StalSpikformerModel
    | EncoderOnlyModel
    | SpikformerCifarModel
    | SpikformerImagenetModel
    | SpikformerDvsModel
    | SdtModel
    | QkformerCifarModel
    | QkformerImagenetModel
    | QkformerDvsModel
    | TimModel
    | SpikingformerCifarModel
    | SpikingformerImagenetModel
    | SpikingformerDvsModel,
    Field(discriminator="name"),
]
