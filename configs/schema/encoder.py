"""Encoders: what turns images into spikes over time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from configs.schema.base import Count, Positive, Section


class EncoderBase(Section):
    """Keys that every encoder has."""

    time_steps: Count = Field(5, description="time steps T (psi, n_spikes_per_timestep in the STAL papers)")
    checkpoint: str | None = Field(None, description="file with weights of a pre-trained encoder")
    freeze: bool = Field(False, description="keep the encoder's weights fixed")


SlotOrder = Literal["time_major", "pixel_major"]


class StalEncoder(EncoderBase):
    """STAL: two linear blocks and learnable thresholds per pixel and slot (arXiv 2407.08362)."""

    name: Literal["stal"] = "stal"
    l1_size: Count = Field(784, description="width of the first linear block")
    l2_size: Count = Field(784, description="width of the second; must divide pixels x time_steps and be smaller")
    drop_p: float = Field(0.1, ge=0.0, lt=1.0, description="dropout probability")
    alpha: Positive = Field(25.0, description="slope of the threshold sigmoid")
    slot_order: SlotOrder = Field("time_major", description="pixel_major feeds the classifier the order of the thesis")


class AncestorEncoder(EncoderBase):
    """The encoders STAL grew from: SpikeThresholdLearning (freek1/emopain-stl), LAST and CAST (freek1/stal-v2)."""

    name: Literal["ancestor"] = "ancestor"
    l1_size: int = Field(0, ge=0, description="width of the first linear layer; 0 compares the pixels themselves")
    l2_size: int = Field(0, ge=0, description="width of the second linear layer; 0 leaves it out")
    drop_p: float = Field(0.0, ge=0.0, lt=1.0, description="dropout probability")
    alpha: Positive = Field(25.0, description="slope of the threshold sigmoid; 25 in emopain-stl, 100 in stal-v2")
    mix_channels: bool = Field(False, description="first mix the image's channels into one (CAST)")
    slot_order: SlotOrder = Field("time_major", description="pixel_major feeds the classifier the order of the thesis")


class ConvStalEncoder(EncoderBase):
    """ConvSTAL: two convolution blocks, thresholds per time step and pixel (DeniBademi/Thesis)."""

    name: Literal["convstal"] = "convstal"
    hidden_channels: Count = Field(784, description="channels of the first block (l1_sz in the thesis)")
    kernel_size: Count = Field(3, description="odd convolution kernel size")
    drop_p: float = Field(0.1, ge=0.0, lt=1.0, description="dropout probability")
    alpha: Positive = Field(25.0, description="slope of the threshold sigmoid")


class StalPsEncoder(EncoderBase):
    """STAL-PS (ConvSTAL-PS): Spikformer's patch splitting with ReLU and learnable thresholds (DeniBademi/Thesis)."""

    name: Literal["stalps", "convstal_ps"] = "stalps"
    patch_size: Literal[4] = Field(4, description="pixels per token side; the two max-pools fix it to 4")
    alpha: Positive = Field(25.0, description="slope of the threshold sigmoid")
    threshold_passes: Literal[1, 2] = Field(2, description="2 applies the threshold twice, as in the thesis")

    @field_validator("name")
    @classmethod
    def _one_spelling(cls, _: str) -> str:
        return "stalps"


class SpsEncoder(EncoderBase):
    """SPS: Spikformer's spiking patch splitting on T copies of the image (arXiv 2209.15425)."""

    name: Literal["sps"] = "sps"
    patch_size: Literal[4] = Field(4, description="pixels per token side")


class RateEncoder(EncoderBase):
    """Rate coding: a spike where a uniform draw is below the pixel."""

    name: Literal["rate"] = "rate"


class LatencyEncoder(EncoderBase):
    """Latency coding: one spike per pixel, earlier for brighter ones."""

    name: Literal["latency"] = "latency"
    variant: Literal["linear", "log", "first_sample"] = Field(
        "linear", description="log is snnTorch's; first_sample is the thesis' code, which shows one image for all"
    )


class DirectEncoder(Section):
    """Direct coding: an image is shown in every time step, an event clip as it is; the model's tokenizer spikes."""

    name: Literal["direct"] = "direct"
    time_steps: Count = Field(4, description="time steps T; of event clips the number of frames")


Encoder = Annotated[
    StalEncoder
    | AncestorEncoder
    | ConvStalEncoder
    | StalPsEncoder
    | SpsEncoder
    | RateEncoder
    | LatencyEncoder
    | DirectEncoder,
    Field(discriminator="name"),
]
