"""Read the weights of a published checkpoint into one of our models, by a table of its key names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from torch import Tensor, nn

from trainers.protocol import CheckpointError

LAST_PARTS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
MOST_NAMED = 12  # keys of one kind that a message names
NEAR = 0.6  # likeness from which a key is offered for another
OTHER_BLOCK = 0.3  # taken off the likeness of keys of another block or stage

BRAINCOG_ONLY = (r".*\.threshold", r".*\.act_fun\.alpha")  # constants that Brain-Cog's neurons keep among the weights


def layer_rules(published: str, ours: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of a layer: its convolution or linear layer, its normalisation and its neuron.

    Args:
        published: expression of the layer's published names, with `{}` for `conv`, `linear`, `bn` or `lif`.
        ours: what takes the place of it in our names, before `.conv`, `.bn` or `.neuron`.
    """
    return (
        (published.replace("{}", "(?:conv|linear)") + r"\.(?P<rest>.+)", ours + r".conv.\g<rest>"),
        (published.replace("{}", "bn") + r"\.(?P<rest>.+)", ours + r".bn.\g<rest>"),
        (published.replace("{}", "lif") + r"(?P<rest>\..+)?", ours + r".neuron\g<rest>"),
    )


@dataclass(frozen=True, slots=True)
class KeyMap:
    """The key names of one published code base, as rules that turn them into ours.

    Args:
        source: repository, or repository and folder, whose keys these are.
        rules: (regular expression, replacement) pairs; the first that matches a whole key gives our name of it.
        ignored: expressions of keys that hold no weights (thresholds, slopes, gates that nothing reads).
        dead: expressions of our names of parameters that take no part in the forward pass; a model without them loads
            a checkpoint that has them.
    """

    source: str
    rules: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()

    def rename(self, key: str) -> str | None:
        """Return our name of a key or of a neuron, or None where no rule knows it.

        Args:
            key: a key of the published state dict, or the dotted name of one of its modules.
        """
        for pattern, replacement in self.rules:
            if re.fullmatch(pattern, key):
                return re.sub(pattern, replacement, key)
        return None

    def known(self, keys: Iterable[str], wanted: Collection[str]) -> float:
        """Return the share of keys that can be loaded or ignored, to tell which code a checkpoint is of.

        Args:
            keys: those of the published state dict.
            wanted: those of ours.
        """
        keys = list(keys)
        return sum(self.rename(key) in wanted or self._ignores(key) for key in keys) / max(len(keys), 1)

    def convert(self, weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Return the weights under our names and in our shapes, complete and without leftovers.

        A linear layer [O, I] and a 1-D convolution [O, I, 1] become a 1 x 1 convolution [O, I, 1, 1].

        Args:
            weights: the published state dict.
            model: the model that is to load them.

        Raises:
            CheckpointError: keys are missing, unexpected or of another shape; the message names them and the nearest.
        """
        wanted = model.state_dict()
        converted: dict[str, Tensor] = {}
        unexpected, shapes, given = [], [], set()
        for key, value in weights.items():
            name = self.rename(key)
            if name is None or name not in wanted:
                if not self._ignores(key) and not (name and _matches(self.dead, name)):
                    unexpected.append(key)
                continue
            given.add(name)
            fitted = _fitted(value, wanted[name])
            if fitted is None:
                shapes.append(f"{key}: {list(value.shape)}, the model has {list(wanted[name].shape)}")
            else:
                converted[name] = fitted
        missing = [name for name in wanted if name not in given]
        if missing or unexpected or shapes:
            raise CheckpointError(_complaint(self.source, missing, unexpected, shapes, list(weights)))
        return converted

    def _ignores(self, key: str) -> bool:
        return _matches(self.ignored, key)


def _matches(patterns: Iterable[str], key: str) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def _fitted(value: Tensor, wanted: Tensor) -> Tensor | None:
    """Return the value in the wanted shape, or None; only axes of length 1 at the end may differ."""
    if value.shape == wanted.shape:
        return value
    longer, shorter = sorted((value.shape, wanted.shape), key=len, reverse=True)
    fits = longer[: len(shorter)] == shorter and all(side == 1 for side in longer[len(shorter) :])
    return value.reshape(wanted.shape) if fits and len(shorter) >= 2 else None


def nearest_key(name: str, keys: Iterable[str]) -> str | None:
    """Return the key that most likely is what another code base calls a parameter, or None where none is like it.

    How parts are parted says nothing: `attn.qconv`, `attn.q_conv` and `attn.q.conv` are alike. The last part must not
    be that of another parameter, a weight is no bias; misspelt it may be.

    Args:
        name: the parameter's name.
        keys: those that it is looked for in.
    """
    last = name.rpartition(".")[2]
    best: tuple[float, str] | None = None
    for key in keys:
        of = key.rpartition(".")[2]
        if of != last and of in LAST_PARTS:
            continue
        likeness = max(_likeness(key, name), _likeness(_bare(key), _bare(name)))
        likeness -= OTHER_BLOCK * (_block(key) != _block(name))
        if likeness >= NEAR and (best is None or likeness > best[0]):
            best = likeness, key
    return best and best[1]


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def _bare(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.lower())


def _block(key: str) -> str:
    """Return the number that stands by itself in a key: of the block or stage, "" where there is none."""
    return next((part for part in key.split(".") if part.isdecimal()), "")


def _complaint(source: str, missing: list[str], unexpected: list[str], shapes: list[str], given: list[str]) -> str:
    lines = [f"the checkpoint does not fit the model (keys of {source}):"]
    for title, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)):
        if names:
            lines.append(f"  {len(names)} {title}:")
            for name in names[:MOST_NAMED]:
                near = nearest_key(name, unexpected or given) if title == "missing" else None
                lines.append(f"    {name}" + (f" (nearest in the file: {near})" if near else ""))
            if len(names) > MOST_NAMED:
                lines.append(f"    and {len(names) - MOST_NAMED} more")
    lines.append(
        "  check width, depth, heads, MLP ratio, classes and the variant of the model against the checkpoint's"
    )
    return "\n".join(lines)
