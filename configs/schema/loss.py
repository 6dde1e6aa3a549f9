"""Losses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.base import NonNegative, Positive, Section


class CrossEntropyLoss(Section):
    """Mean cross-entropy of the logits."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="label smoothing")


class CeSpikeSparsityLoss(Section):
    """Cross-entropy plus omega (epoch / epochs) (L1 - c K) of the encoder's spikes (DeniBademi/Thesis)."""

    name: Literal["ce_ss"] = "ce_ss"
    omega: NonNegative = Field(1e-4, description="weight of the sparsity term")
    c: NonNegative = Field(1.0, description="weight of the concentration K inside the sparsity term")
    embedding_layout: Literal["time_first", "as_is"] = Field(
        "time_first", description="as_is sums over the batch where the encoder gives steps, as in the thesis"
    )
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="label smoothing of the cross-entropy part")


class CeL1Loss(Section):
    """Cross-entropy plus the distance of the spike count from the image's scaled area (DeniBademi/Thesis)."""

    name: Literal["ce_l1"] = "ce_l1"
    alpha: Positive = Field(25.0, description="encoder slope; above 10 spikes are counted at 0.5, without gradient")
    sparsity_weight: NonNegative = Field(0.1, description="weight of the distance")


class TetLoss(Section):
    """Temporal efficient training: cross-entropy of the logits of each step, drawn to a mean (arXiv 2202.11946)."""

    name: Literal["tet"] = "tet"
    lamb: float = Field(1e-3, ge=0.0, le=1.0, description="weight lambda of the distance of the logits from `mean`")
    mean: float = Field(1.0, description="value that the logits are drawn to")
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="label smoothing of the cross-entropy part")


ZTerms = Literal["all", "last"]


class EncoderLoss(Section):
    """Trains an encoder alone: keep information about the image, spend spikes by its area (arXiv 2407.08362)."""

    name: Literal["encoder_loss"] = "encoder_loss"
    slot_weights: Literal["late", "early", "uniform"] = Field(
        "late", description="time slots that weigh more; early in LAST, uniform in emopain-stl"
    )
    use_z: bool = Field(True, description="count the hidden layers' information about the image too")
    z_terms: ZTerms = Field("all", description="last leaves out the first of two hidden layers, as in the thesis")


class MultiChannelEncoderLoss(Section):
    """Mean over the image's channels of `encoder_loss`, for ConvSTAL (DeniBademi/Thesis)."""

    name: Literal["multi_channel_encoder_loss"] = "multi_channel_encoder_loss"
    z_terms: ZTerms = Field("all", description="last leaves out the first of two hidden layers, as in the thesis")
    spike_layout: Literal["pixel_first", "as_is"] = Field(
        "pixel_first", description="as_is takes time slots for pixels, as in the thesis"
    )


Loss = Annotated[
    CrossEntropyLoss | CeSpikeSparsityLoss | CeL1Loss | TetLoss | EncoderLoss | MultiChannelEncoderLoss,
    Field(discriminator="name"),
]
