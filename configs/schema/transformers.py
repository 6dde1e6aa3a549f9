"""The published families of spiking transformers; the defaults of each variant are its published ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.base import Count, Fraction, Positive, Section

AttentionKind = Literal["ssa", "sdsa", "qk_token", "qk_channel"]
PatchSize = Annotated[int, Field(ge=1, le=64)]


class SpikingTransformerModel(Section):
    """What the published families have in common."""

    embed_dims: int = Field(384, ge=8, multiple_of=8, description="width D of the last stage")
    depth: Count = Field(4, description="number of blocks")
    num_heads: Count = Field(12, description="attention heads; must divide embed_dims")
    mlp_ratio: Positive = Field(4.0, description="MLP width over width")
    patch_size: PatchSize = Field(4, description="pixels per token side in the last stage")
    step_by_step: bool = Field(False, description="evaluate one time step after the other: memory constant in T")
    pretrained: str | None = Field(None, description="checkpoint to start from: ours, an official one or STEP's")
    new_head: bool = Field(False, description="draw the head anew instead of loading it, for other classes")


class _DeadParameters(Section):
    keep_dead_parameters: bool = Field(
        True, description="keep parameters of the published code that nothing uses: equal totals and keys"
    )


class _Spikformer(SpikingTransformerModel, _DeadParameters):
    embedding: Literal["sps", "one_conv", "two_conv"] = Field("sps", description="tokenizer")
    attention: AttentionKind = Field("ssa", description="attention product")
    attn_scale: Positive = Field(0.125, description="constant factor of q k^T v")
    qkv_bias: bool = Field(True, description="bias of q, k and v")
    proj_bias: bool = Field(True, description="bias of the projection after the product")
    projection_init: Literal["trunc_normal", "convolution"] = Field(
        "trunc_normal", description="first weights of the blocks: deviation 0.02, or torch's for convolutions"
    )
    dead_positions: bool = Field(False, description="keep the unused position embedding of the event code too")


class SpikformerCifarModel(_Spikformer):
    """Spikformer of the CIFAR code, 4-384 (arXiv 2209.15425)."""

    name: Literal["spikformer_cifar"] = "spikformer_cifar"


class SpikformerImagenetModel(_Spikformer):
    """Spikformer of the ImageNet code, 8-512 (arXiv 2209.15425)."""

    name: Literal["spikformer_imagenet"] = "spikformer_imagenet"
    embed_dims: int = Field(512, ge=8, multiple_of=8, description="width D")
    depth: Count = Field(8, description="number of blocks")
    num_heads: Count = Field(8, description="attention heads; must divide embed_dims")
    patch_size: PatchSize = Field(16, description="pixels per token side")
    qkv_bias: bool = Field(False, description="bias of q, k and v")
    projection_init: Literal["trunc_normal", "convolution"] = Field(
        "convolution", description="first weights of the blocks: deviation 0.02, or torch's for convolutions"
    )


class SpikformerDvsModel(_Spikformer):
    """Spikformer of the event code, 2-256 (arXiv 2209.15425)."""

    name: Literal["spikformer_dvs"] = "spikformer_dvs"
    embed_dims: int = Field(256, ge=8, multiple_of=8, description="width D")
    depth: Count = Field(2, description="number of blocks")
    num_heads: Count = Field(16, description="attention heads; must divide embed_dims")
    patch_size: PatchSize = Field(16, description="pixels per token side")
    qkv_bias: bool = Field(False, description="bias of q, k and v")
    projection_init: Literal["trunc_normal", "convolution"] = Field(
        "convolution", description="first weights of the blocks: deviation 0.02, or torch's for convolutions"
    )
    attn_scale: Positive = Field(0.25, description="constant factor of q k^T v")
    dead_positions: bool = Field(True, description="keep the unused position embedding and normalisation too")


class SdtModel(SpikingTransformerModel, _DeadParameters):
    """Spike-driven Transformer v1 (arXiv 2307.01694)."""

    name: Literal["sdt"] = "sdt"
    embed_dims: int = Field(512, ge=8, multiple_of=8, description="width D")
    depth: Count = Field(2, description="number of blocks")
    num_heads: Count = Field(8, description="attention heads; must divide embed_dims")
    attention: AttentionKind = Field("sdsa", description="attention product")
    attn_scale: Positive = Field(0.125, description="constant factor of q k^T v; sdsa has none")
    event_pooling: bool = Field(False, description="pool k, v and the products as the released CIFAR10-DVS code does")
    inner_shortcut: bool = Field(True, description="at mlp_ratio 1 a shortcut around each half of the MLP, as released")


class _Qkformer(SpikingTransformerModel):
    num_heads: Count = Field(8, description="attention heads of every stage; must divide the first stage's width")
    attention: tuple[AttentionKind, ...] = Field(
        (), description="product per stage; empty is qk_token, and ssa in the last"
    )
    attn_scale: Positive = Field(0.125, description="constant factor of q k^T v")
    stage_depths: tuple[Count, ...] = Field((), description="blocks per stage; empty follows from depth")
    proj_state: Literal["per_sample", "batch_leak"] = Field(
        "per_sample", description="batch_leak carries the membrane over the batch, as published weights were trained"
    )


class QkformerCifarModel(_Qkformer):
    """QKFormer of the CIFAR code, 4-384 (arXiv 2403.16552)."""

    name: Literal["qkformer_cifar"] = "qkformer_cifar"


class QkformerImagenetModel(_Qkformer):
    """QKFormer of the ImageNet code, 10-384 (arXiv 2403.16552)."""

    name: Literal["qkformer_imagenet"] = "qkformer_imagenet"
    depth: Count = Field(10, description="number of blocks")
    num_heads: Count = Field(6, description="attention heads of every stage; must divide the first stage's width")
    patch_size: PatchSize = Field(16, description="pixels per token side in the last stage")


class QkformerDvsModel(_Qkformer):
    """QKFormer of the event code, 2-256 (arXiv 2403.16552)."""

    name: Literal["qkformer_dvs"] = "qkformer_dvs"
    embed_dims: int = Field(256, ge=16, multiple_of=16, description="width D of the last stage")
    depth: Count = Field(2, description="number of blocks")
    num_heads: Count = Field(16, description="attention heads of every stage; must divide the first stage's width")
    mlp_ratio: Positive = Field(1.0, description="MLP width over width; 4 for DVS128 Gesture")
    patch_size: PatchSize = Field(16, description="pixels per token side in the last stage")


class TimModel(SpikingTransformerModel, _DeadParameters):
    """Spikformer whose queries pass through a temporal interaction module (TIM, arXiv 2401.11687)."""

    name: Literal["tim"] = "tim"
    embed_dims: int = Field(256, ge=8, multiple_of=8, description="width D")
    depth: Count = Field(2, description="number of blocks")
    num_heads: Count = Field(16, description="attention heads; must divide embed_dims")
    patch_size: PatchSize = Field(16, description="pixels per token side")
    embedding: Literal["sps", "one_conv", "two_conv"] = Field("sps", description="tokenizer")
    attention: AttentionKind = Field("ssa", description="attention product")
    attn_scale: Positive = Field(0.25, description="constant factor of q k^T v")
    proj_bias: bool = Field(False, description="bias of the projection after the product")
    alpha: Fraction = Field(0.5, description="share of the past in the queries")
    thresholds: Literal["intended", "as_released"] = Field(
        "intended", description="0.3 and 0.5 of TIM's neurons, or 1.0 as run; then neuron.attn_v_threshold was 1.0 too"
    )
    detach_membrane: bool = Field(True, description="no gradient through time, as released")


class _Spikingformer(SpikingTransformerModel, _DeadParameters):
    attention: AttentionKind = Field("ssa", description="attention product")
    attn_scale: Positive = Field(0.125, description="constant factor of q k^T v")
    proj_bias: bool = Field(True, description="bias of the projection after the product")


class SpikingformerCifarModel(_Spikingformer):
    """Spikingformer of the CIFAR code, 4-384 (arXiv 2304.11954)."""

    name: Literal["spikingformer_cifar"] = "spikingformer_cifar"


class SpikingformerImagenetModel(_Spikingformer):
    """Spikingformer of the ImageNet code, 8-512 (arXiv 2304.11954)."""

    name: Literal["spikingformer_imagenet"] = "spikingformer_imagenet"
    embed_dims: int = Field(512, ge=8, multiple_of=8, description="width D")
    depth: Count = Field(8, description="number of blocks")
    num_heads: Count = Field(8, description="attention heads; must divide embed_dims")
    patch_size: PatchSize = Field(16, description="pixels per token side")


class SpikingformerDvsModel(_Spikingformer):
    """Spikingformer of the event code, 2-256; published with neuron.tau 1.5 (arXiv 2304.11954)."""

    name: Literal["spikingformer_dvs"] = "spikingformer_dvs"
    embed_dims: int = Field(256, ge=8, multiple_of=8, description="width D")
    depth: Count = Field(2, description="number of blocks")
    num_heads: Count = Field(16, description="attention heads; must divide embed_dims")
    patch_size: PatchSize = Field(16, description="pixels per token side")
