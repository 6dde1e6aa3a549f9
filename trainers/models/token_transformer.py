"""What the families with one resolution share: a tokenizer, then blocks that keep its map's size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from trainers.models.backbone import SpikingTransformer


class TokenMaps(Protocol):
    """A tokenizer: a module whose stages turn pixels into tokens."""

    feature_info: list[dict[str, Any]]  # per stage `num_chs`, `reduction` and `module`

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the map [T, B, C', H', W'] of each stage of [T, B, C, H, W]; the last one is the tokens."""


class TokenTransformer(SpikingTransformer):
    """A tokenizer and blocks at one resolution.

    Feature maps are those of the tokenizer's stages before the last, and the map of the last block.

    Args:
        tokenizer: gives the tokens.
        blocks: blocks at their resolution.
        num_classes: classes K.
        time_steps: time steps T of a static image.
        step_by_step: see `SpikingTransformer`.
        step_logits: see `SpikingTransformer`.
    """

    def __init__(
        self,
        tokenizer: TokenMaps,
        blocks: Iterable[nn.Module],
        *,
        num_classes: int,
        time_steps: int,
        step_by_step: bool,
        step_logits: bool,
    ) -> None:
        *finer, last = tokenizer.feature_info
        super().__init__(
            num_classes=num_classes,
            num_features=last["num_chs"],
            time_steps=time_steps,
            feature_info=[*finer, last | {"module": "block"}],
            step_by_step=step_by_step,
            step_logits=step_logits,
        )
        self.patch_embed = tokenizer
        self.block = nn.ModuleList(blocks)
        self.reset_classifier(num_classes)

    def forward_stages(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the maps of the tokenizer's stages before the last and of the last block, [T, B, C', H', W']."""
        *finer, _ = self.feature_info
        maps = self.patch_embed.maps(x)
        yield from (next(maps) for _ in finer)
        x = next(maps)
        for block in self.block:
            x = self.run_block(block, x)
        yield x
