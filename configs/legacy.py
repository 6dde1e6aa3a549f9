"""Read the configuration files of the STAL thesis (DeniBademi/Thesis) as they are.

Such a file has three sections, model, data and training, with the encoder inside the model and loss and logger inside
the training. It is translated key by key, so that every value keeps its line. What the thesis' code had fixed is laid
below it, and `compat: thesis` sets its quirks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from configs.aliases import ALIASES, ALIASES_BY_KIND
from configs.fit import default_kinds
from configs.keys import has_key, known_keys, nearest_keys, sections
from configs.layers import Entry, Layer, collect
from configs.legacy_keys import (
    CONVERTED,
    L2_WITHOUT_EFFECT,
    MODELS,
    OLD_KEYS,
    RECIPE,
    RENAMED,
    RENAMED_ALONE,
    SECTIONS,
    WITHOUT_EFFECT,
    RefusedError,
)
from configs.problems import Problem, Where, did_you_mean, shown

_log = logging.getLogger(__name__)
_INNER = ("model.encoder.", "training.loss.", "training.logger.")


@dataclass
class Import:
    """Translate the layers that are, or lie on, a file of the thesis; leave all others as they are.

    Args:
        problems: one is added for each key or value of such a layer that is not understood.
    """

    problems: list[Problem]
    files: list[Where] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    model: str = ""
    encoder: str = ""
    alone: bool = False

    def layers(self, files: Iterable[Layer], overrides: Iterable[Layer]) -> list[Layer]:
        """Return the layers with the keys and values of this project, the recipe of the thesis below each of its files.

        Args:
            files: one layer for each file, the lowest first.
            overrides: what is laid over the files; only where one of these is the thesis' are old keys understood.
        """
        found: list[Layer] = []
        for layer in files:
            if is_thesis(layer):
                self.files.append(Where(layer["model.name"].where.file))
                translated = self._translated(layer)
                found += [_recipe(translated), translated]
            else:
                found.append(self._above(layer))
        return [*found, *(self._above(layer) for layer in overrides)]

    def tell(self) -> None:
        """Log in one message which files were imported, and which of their keys do nothing."""
        if self.files:
            names = ", ".join(str(where) for where in self.files)
            head = f"{names}: layout of DeniBademi/Thesis, read with its recipe and its quirks (compat: thesis)"
            _log.warning("%s", "\n  ".join([head, *self.remarks]))

    def _above(self, layer: Layer) -> Layer:
        return self._translated(layer) if self.files else layer

    def _translated(self, layer: Layer) -> Layer:
        self.model = _text(layer, "model.name") or self.model
        implied = str(MODELS.get(self.model, {}).get("encoder.name", ""))
        self.alone = bool(implied) or self.model == "encoder_only"
        given = _text(layer, "model.encoder.name") or _text(layer, "encoder.name")
        self.encoder = given.lower() or implied or self.encoder
        return collect([pair for old, entry in layer.items() for pair in self._new(old, entry)], self.problems)

    def _new(self, old: str, entry: Entry) -> list[tuple[str, Entry]]:
        """Return what one key of a file means here: mostly one key, for some none or two."""
        reason = L2_WITHOUT_EFFECT.get((old, self.encoder, self.alone)) or WITHOUT_EFFECT.get(old)
        if reason:
            self.remarks.append(f"{entry.where}: {old} has no effect: {reason}")
            return []
        if old in SECTIONS:
            if entry.value is not None:  # a section without a line in it says nothing
                self.problems.append(Problem(entry.where, f"{old}: expected a section, got {shown(entry.value)}"))
            return []
        if old in CONVERTED:
            return self._converted(old, entry)
        new = self._renamed(old)
        if new is None:
            self.problems.append(_unknown(old, entry.where))
            return []
        return [(new, Entry(entry.value, entry.where, old))]

    def _converted(self, old: str, entry: Entry) -> list[tuple[str, Entry]]:
        try:
            values, remark = CONVERTED[old](entry.value)
        except RefusedError as refused:
            self.problems.append(Problem(entry.where, f"{old}: {refused}", refused.hint, old))
            return []
        if remark:
            self.remarks.append(f"{entry.where}: {old}: {remark}")
        return [(new, Entry(value, entry.where, old)) for new, value in values.items()]

    def _renamed(self, old: str) -> str | None:
        if self.alone and old in RENAMED_ALONE:
            return RENAMED_ALONE[old]
        ours = old in known_keys() or old in ALIASES or old in ALIASES_BY_KIND
        return RENAMED.get(old, old if ours else None)


def is_thesis(layer: Layer) -> bool:
    """Return whether a file has the thesis' layout: sections inside model or training, and no model of this project."""
    name = layer.get("model.name")
    ours = known_keys()["model.name"].values
    return name is not None and name.value not in ours and any(key.startswith(_INNER) for key in layer)


def _recipe(layer: Layer) -> Layer:
    model, encoder, data = (_text(layer, f"{section}.name") for section in ("model", "encoder", "data"))
    kinds = {**default_kinds(model, encoder), "model": model}
    kinds |= {section: kind for section, kind in (("encoder", encoder), ("data", data)) if kind}
    where = Where(next(iter(layer.values())).where.file)
    fitting = {key: value for key, value in RECIPE.items() if has_key(key, kinds.get(key.partition(".")[0]))}
    return {key: Entry(value, where, key) for key, value in fitting.items()}


def _text(layer: Layer, key: str) -> str:
    value = layer[key].value if key in layer else None
    return value if isinstance(value, str) else ""


def _unknown(old: str, where: Where) -> Problem:
    section, _, last = old.rpartition(".")
    known = SECTIONS | sections()
    if section and section not in known:
        return Problem(where, f"unknown section '{section}'", did_you_mean(section, sorted(known)), old)
    place = f" in '{section}'" if section else ""
    siblings = {key.rpartition(".")[2] for key in OLD_KEYS | known_keys().keys() if key.rpartition(".")[0] == section}
    if old in OLD_KEYS:
        hint = "only an encoder trained alone has it: model.name conv_stal or stal"
    else:
        near = did_you_mean(last, sorted(siblings))
        hint = near if near.startswith("did") else nearest_keys(old) or near
    return Problem(where, f"unknown key '{last}'{place}", hint, old)
