"""What the spiking transformers have in common: time, stages of feature maps, head, features for other tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before timm

# isort: split
from timm.models import register_model
from timm.models._features import FeatureGetterNet, feature_take_indices

from trainers.models.layers import mean_of_pixels
from trainers.neurons import carried_state

_TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


class SpikingTransformer(nn.Module):
    """Base of the spiking transformers.

    A family says how maps go through its stages (`forward_stages`), which layer's spikes are its embedding
    (`embedding_layer`) and what its head does with the last map.

    Args:
        num_classes: classes K; 0 leaves the head out.
        num_features: channels D of the last map.
        time_steps: time steps T of a static image; event clips bring their own.
        feature_info: per stage `num_chs`, `reduction` (stride in pixels) and `module`.
        step_by_step: in evaluation, run all layers of a time step before the next step: memory does not grow with T.
        step_logits: return the logits of each time step [T, B, K], for losses that weigh them (TET).
    """

    embedding_layer: ClassVar[str]
    embeddings_time_dim: ClassVar[int] = 0
    adds_spikes: ClassVar[bool] = True  # what goes from block to block are sums of spikes, not membranes

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int,
        time_steps: int,
        feature_info: list[dict[str, Any]],
        step_by_step: bool = False,
        step_logits: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = num_features
        self.time_steps = time_steps
        self.feature_info = feature_info
        self.step_by_step = step_by_step
        self.step_logits = step_logits
        self.run_block: Callable[[nn.Module, Tensor], Tensor] = _run

    @abstractmethod
    def forward_stages(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the map [T, B, C, H, W] that each stage of `feature_info` ends with.

        Args:
            x: [T, B, C, H, W].
        """

    def forward_head(self, x: Tensor) -> Tensor:
        """Return logits per time step [T, B, K] of the last map [T, B, D, H, W]."""
        logits: Tensor = self.head(mean_of_pixels(x))
        return logits

    def forward(self, images: Tensor, return_embeddings: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Classify images or event clips.

        Args:
            images: [B, C, H, W], shown in every time step, or clips [B, T, C, H, W].
            return_embeddings: return the tokenizer's spikes too.

        Returns:
            Logits [B, K], with `step_logits` [T, B, K], and with `return_embeddings` spikes [T, B, D, H, W].
        """
        x = self._with_time(images)
        with _Captured(self, return_embeddings) as embeddings:
            logits = self._logits_of_steps(x) if self._runs_by_step else self._logits(x)
        logits = logits if self.step_logits else logits.mean(0)
        return (logits, torch.cat(embeddings)) if return_embeddings else logits

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the last map averaged over time, [B, D, H, W], of images or clips."""
        last: Tensor = self.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
        return last

    def forward_intermediates(  # noqa: PLR0917 - timm's signature
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return the maps of the chosen stages, averaged over time (timm's interface for feature extraction).

        Args:
            images: [B, C, H, W] or [B, T, C, H, W].
            indices: stages; a number takes the last so many, None takes all.
            norm: must be False; there is no last normalisation.
            stop_early: accepted for timm; the stages after the last index are never run.
            output_fmt: must be "NCHW".
            intermediates_only: leave out the last map as a separate result.

        Returns:
            A list of [B, C, H, W], or (last map, list).

        Raises:
            ValueError: a normalisation or another format is asked for.
        """
        del stop_early
        if norm or output_fmt != "NCHW":
            raise ValueError(f"only NCHW maps without normalisation can be had, got {output_fmt}, norm={norm}")
        wanted, last = feature_take_indices(len(self.feature_info), indices)
        x = self._with_time(images)
        maps = self._maps_of_steps(x, wanted, last) if self._runs_by_step else self._maps(x, wanted, last)
        return maps if intermediates_only else (maps[-1], maps)

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Give the model a new head for `num_classes` classes; 0 leaves it out."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def _with_time(self, images: Tensor) -> Tensor:
        """Return [T, B, C, H, W]; an image is shown in every step without being copied."""
        if images.ndim == 5:
            return images.transpose(0, 1)
        return images.unsqueeze(0).expand(self.time_steps, *images.shape)

    def _logits(self, x: Tensor) -> Tensor:
        *_, last = self.forward_stages(x)
        return self.forward_head(last)

    def _logits_of_steps(self, x: Tensor) -> Tensor:
        with carried_state(self):
            return torch.cat([self._logits(step) for step in x.unsqueeze(1)])

    def _maps(self, x: Tensor, wanted: Sequence[int], last: int) -> list[Tensor]:
        found = []
        for index, stage in enumerate(self.forward_stages(x)):
            if index in wanted:
                found.append(stage.mean(0))
            if index == last:
                break
        return found

    def _maps_of_steps(self, x: Tensor, wanted: Sequence[int], last: int) -> list[Tensor]:
        with carried_state(self):
            sums: list[Tensor] = []
            for step in x.unsqueeze(1):
                maps = self._maps(step, wanted, last)
                sums = [total + one for total, one in zip(sums, maps, strict=True)] if sums else maps
        return [total / len(x) for total in sums]

    @property
    def _runs_by_step(self) -> bool:
        """Whether steps run one after the other; in training batch normalisation needs all of them at once."""
        return self.step_by_step and not self.training


class _Captured:
    """Collect what the embedding layer of a model gives inside the `with` block.

    Args:
        model: the model.
        wanted: collect anything at all.
    """

    def __init__(self, model: SpikingTransformer, wanted: bool) -> None:
        self._layer = model.get_submodule(model.embedding_layer) if wanted else None
        self._found: list[Tensor] = []

    def __enter__(self) -> list[Tensor]:
        if self._layer is not None:
            self._handle = self._layer.register_forward_hook(lambda _module, _args, spikes: self._found.append(spikes))
        return self._found

    def __exit__(self, *_: object) -> None:
        if self._layer is not None:
            self._handle.remove()


def _run(block: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = block(x)
    return out


def register(
    kind: type[SpikingTransformer], name: str, about: str, *, lif: Mapping[str, Any] | None = None, **published: Any
) -> Callable[..., nn.Module]:
    """Let `timm.create_model` build a published variant of a family.

    Args:
        kind: class of the model.
        name: name of the variant.
        about: what its defaults are, for its docstring.
        lif: arguments of its neurons by default, where they are `lif`; other kinds may have no such argument.
        published: arguments of the class that it has by default, where they are not the class's own.

    Returns:
        The function that timm calls. Besides the class's arguments it takes timm's `features_only` and `out_indices`,
        for the maps [B, C, H, W] of the stages instead of logits. It refuses `pretrained`, as nobody can download
        weights.
    """

    def variant(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if pretrained:
            raise ValueError(f"there are no weights of '{name}' to download; load a checkpoint file of your own")
        given = {key: value for key, value in kwargs.items() if key not in _TIMM_ONLY}
        neuron = lif if lif is not None and given.get("neuron", "lif") == "lif" else {}
        return build(kind, {**published, **neuron, **given})

    variant.__name__ = variant.__qualname__ = name
    variant.__module__ = kind.__module__
    variant.__doc__ = f"Build `{kind.__name__}`, by default {about}."
    registered: Callable[..., nn.Module] = register_model(variant)
    return registered


def build(kind: type[SpikingTransformer], arguments: dict[str, Any]) -> nn.Module:
    """Build a model, or with `features_only` timm's wrapper that returns the maps [B, C, H, W] of its stages.

    Args:
        kind: class of the model.
        arguments: of the class, and `features_only` and `out_indices`.

    Raises:
        ValueError: a size does not fit, or a kind is unknown.
    """
    features_only = arguments.pop("features_only", False)
    indices = arguments.pop("out_indices", None)
    model = kind(**arguments)
    if not features_only:
        return model
    model.reset_classifier(0)
    every = tuple(range(len(model.feature_info)))
    features: nn.Module = FeatureGetterNet(model, out_indices=every if indices is None else indices, prune=False)
    return features
