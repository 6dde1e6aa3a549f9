"""QKFormer: stages of falling resolution, most with linear attention (Zhou et al., 2024, arXiv 2403.16552)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, Unpack

from torch import Tensor, nn

from trainers.models.attention import ProjState, SpikingAttention
from trainers.models.backbone import SpikingTransformer, register
from trainers.models.blocks import Block, SpikingMlp
from trainers.models.layers import ConvBnNeuron, check_width, draw_weights, halvings
from trainers.models.neuron_options import NeuronOptions, Neurons

Entry = TypeVar("Entry", str, int)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the published variants differ in; widths are given by what D is divided by.

    Args:
        stem: widths of the convolutions of the first embedding before its shortcut starts.
        main: widths of those that its shortcut goes around.
        pool_order: the same convolutions by number, in the order in which they get the pools that the patch needs.
        later_pool: which of the two convolutions of a later embedding pools.
        stages: widths of the stages.
        blocks: blocks of each stage but the last, which has the rest.
    """

    stem: tuple[int, ...]
    main: tuple[int, ...]
    pool_order: tuple[int, ...]
    later_pool: int
    stages: tuple[int, ...]
    blocks: tuple[int, ...]


LAYOUTS = {
    "cifar": Layout(stem=(8,), main=(4,), pool_order=(1, 0), later_pool=1, stages=(4, 2, 1), blocks=(1, 1)),
    "imagenet": Layout(stem=(8,), main=(4, 4), pool_order=(0, 1, 2), later_pool=0, stages=(4, 2, 1), blocks=(1, 2)),
    "dvs": Layout(stem=(16, 8), main=(4, 2), pool_order=(3, 2, 1, 0), later_pool=1, stages=(2, 1), blocks=(1,)),
}


class PatchEmbedding(nn.Module):
    """3 x 3 convolutions that fire, some of which halve the sides, and a 1 x 1 shortcut around the later ones.

    Args:
        widths: channels of the input and of each convolution.
        pooled: convolutions, by number, that pool between normalisation and neuron.
        start: convolution whose input the shortcut takes.
        neurons: makes the spiking layers.
    """

    def __init__(self, widths: Sequence[int], pooled: Collection[int], start: int, neurons: Neurons) -> None:
        super().__init__()
        layers = [
            ConvBnNeuron(
                widths[number],
                widths[number + 1],
                3,
                neuron=neurons.make("tokenizer"),
                pool="before_neuron" if number in pooled else "none",
            )
            for number in range(len(widths) - 1)
        ]
        self.stem = nn.Sequential(*layers[:start])
        self.main = nn.Sequential(*layers[start:])
        stride = 2 ** sum(number >= start for number in pooled)
        self.shortcut = ConvBnNeuron(widths[start], widths[-1], stride=stride, neuron=neurons.make("tokenizer"))

    def forward(self, x: Tensor) -> Tensor:
        """Return sums of spikes [T, B, C', H', W'] of [T, B, C, H, W]."""
        x = self.stem(x)
        out: Tensor = self.main(x) + self.shortcut(x)
        return out


class Stage(nn.Module):
    """An embedding and the blocks that follow it.

    Args:
        embed: the embedding.
        blocks: the blocks.
    """

    def __init__(self, embed: PatchEmbedding, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)


class QkFormer(SpikingTransformer):
    """QKFormer; the defaults are the 4-384 of CIFAR-10.

    Args:
        layout: published variant whose stages the model has: `cifar`, `imagenet` (both three) or `dvs` (two).
        in_channels: channels C of the input.
        img_size: side of the input in pixels, a multiple of the patch size.
        num_classes: classes K.
        embed_dims: width D of the last stage, a multiple of 8 (`dvs`: 16).
        depth: blocks of all stages; what the earlier ones do not take is the last one's.
        num_heads: heads of every stage; must divide the width of the first.
        mlp_ratio: hidden width of the MLPs, in their stage's width.
        time_steps: time steps T of a static image.
        patch_size: pixels per side of a token of the last stage: 4, 8 or 16 (`imagenet`: or 32; `dvs`: 2 to 32).
        attention: per stage, a product of `trainers.models.attention.PRODUCTS`; by default `qk_token`, and `ssa` last.
        attn_scale: factor of the product of `ssa`, a constant in the published code, not d^-1/2.
        stage_depths: blocks per stage, instead of what the layout makes of `depth`.
        proj_state: what the last neuron of `ssa` takes as time. `per_sample` is what the paper says. The published
            code lets the T*B images of a batch follow each other in one membrane, and all published weights were
            trained so: `batch_leak` does it too. Logits then depend on the batch's size and order; scored
            `per_sample`, the ImageNet weights lose 4.5 (10_384: 78.7 to 74.2) to 5.5 points (10_768: 84.3 to 78.7).
        step_by_step: see `SpikingTransformer`.
        step_logits: see `SpikingTransformer`.
        neuron: see `NeuronOptions`.

    Raises:
        ValueError: a size does not fit, or the layout is unknown.
    """

    embedding_layer = "stages.0.embed.main"

    def __init__(
        self,
        *,
        layout: str = "cifar",
        in_channels: int = 3,
        img_size: int = 32,
        num_classes: int = 10,
        embed_dims: int = 384,
        depth: int = 4,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        time_steps: int = 4,
        patch_size: int = 4,
        attention: Sequence[str] = (),
        attn_scale: float = 0.125,
        stage_depths: Sequence[int] = (),
        proj_state: ProjState = "per_sample",
        step_by_step: bool = False,
        step_logits: bool = False,
        **neuron: Unpack[NeuronOptions],
    ) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"unknown layout '{layout}'; known: {', '.join(LAYOUTS)}")
        plan = LAYOUTS[layout]
        check_width(embed_dims, plan.stem[0])
        count = len(plan.stages)
        widths = [embed_dims // divisor for divisor in plan.stages]
        super().__init__(
            num_classes=num_classes,
            num_features=embed_dims,
            time_steps=time_steps,
            feature_info=[
                {"num_chs": width, "reduction": patch_size >> (count - 1 - stage), "module": f"stages.{stage}"}
                for stage, width in enumerate(widths)
            ],
            step_by_step=step_by_step,
            step_logits=step_logits,
        )
        neurons = Neurons(time_steps, **neuron)
        pools = halvings(img_size, patch_size, count - 1, count - 1 + len(plan.pool_order)) - (count - 1)
        embeds = _embeddings(plan, in_channels, embed_dims, pools, neurons)
        products = _per_stage("attention", attention or ("qk_token",) * (count - 1) + ("ssa",), count)
        depths = _per_stage("stage_depths", stage_depths or _depths(plan, depth), count)
        self.stages = nn.ModuleList(
            Stage(
                embed,
                [
                    Block(
                        SpikingAttention(
                            width,
                            num_heads,
                            neurons,
                            product=product,
                            scale=attn_scale,
                            proj_state=proj_state if product == "ssa" else "per_sample",  # the leak is in this one
                        ),
                        SpikingMlp(width, int(width * mlp_ratio), neurons),
                    )
                    for _ in range(blocks)
                ],
            )
            for embed, width, product, blocks in zip(embeds, widths, products, depths, strict=True)
        )
        self.reset_classifier(num_classes)
        draw_weights(self, nn.Linear)

    def forward_stages(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the map [T, B, D, H', W'] of each stage of [T, B, C, H, W]."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x = stage.embed(x)
            for block in stage.blocks:
                x = self.run_block(block, x)
            yield x


def _embeddings(plan: Layout, in_channels: int, dim: int, pools: int, neurons: Neurons) -> Iterator[PatchEmbedding]:
    first = [in_channels, *(dim // divisor for divisor in (*plan.stem, *plan.main))]
    yield PatchEmbedding(first, plan.pool_order[:pools], len(plan.stem), neurons)
    for before, divisor in zip(plan.stages, plan.stages[1:], strict=False):
        yield PatchEmbedding([dim // before, dim // divisor, dim // divisor], {plan.later_pool}, 0, neurons)


def _depths(plan: Layout, depth: int) -> tuple[int, ...]:
    rest = depth - sum(plan.blocks)
    if rest < 1:
        raise ValueError(f"depth must be at least {sum(plan.blocks) + 1} blocks, got {depth}")
    return (*plan.blocks, rest)


def _per_stage(name: str, values: Sequence[Entry], count: int) -> Sequence[Entry]:
    if len(values) != count:
        raise ValueError(f"{name} must have {count} entries, one for each stage, got {len(values)}")
    return values


qkformer_cifar = register(QkFormer, "qkformer_cifar", "the 4-384 of CIFAR with patches of 4")
qkformer_imagenet = register(
    QkFormer,
    "qkformer_imagenet",
    "the 10-384 of ImageNet with patches of 16 and 6 heads; 512 channels have 8 heads, 768 have 12",
    layout="imagenet",
    img_size=224,
    num_classes=1000,
    depth=10,
    num_heads=6,
    patch_size=16,
)
qkformer_dvs = register(
    QkFormer,
    "qkformer_dvs",
    "the two blocks of 128 and 256 channels of CIFAR10-DVS; DVS128 Gesture has mlp_ratio 4",
    layout="dvs",
    in_channels=2,
    img_size=128,
    patch_size=16,
    embed_dims=256,
    depth=2,
    num_heads=16,
    mlp_ratio=1.0,
    time_steps=16,
)
