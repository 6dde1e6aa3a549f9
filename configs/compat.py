"""What the code of the STAL thesis does beside its description, and the switch that reproduces each such quirk.

`compat: thesis` sets every switch of the table that a configuration leaves open. The numbers Q1 to Q9 are those of
docs/stal.md; Q7 and Q9 have no switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from configs.data_fit import image_shape
from configs.misfit import kind_of

Compat = Literal["none", "thesis"]


@dataclass(frozen=True, slots=True)
class Quirk:
    """One switch.

    Args:
        number: its number in docs/stal.md.
        key: dotted key of the switch.
        published: the value that gives the thesis' numbers; None for the number of channels of the data set's images.
        only: section -> the kinds it must have for the switch to be there.
    """

    number: str
    key: str
    published: str | int | None
    only: Mapping[str, frozenset[str]]


def _kinds(**sections: str) -> Mapping[str, frozenset[str]]:
    return {section: frozenset(kinds.split()) for section, kinds in sections.items()}


QUIRKS = (
    Quirk("Q1", "loss.embedding_layout", "as_is", _kinds(model="stal_srnn", loss="ce_ss")),
    Quirk("Q2", "loss.z_terms", "last", _kinds(loss="encoder_loss multi_channel_encoder_loss")),
    Quirk("Q3", "loss.spike_layout", "as_is", _kinds(loss="multi_channel_encoder_loss")),
    Quirk("Q4", "encoder.slot_order", "pixel_major", _kinds(model="stal_srnn", encoder="stal ancestor")),
    Quirk("Q5", "encoder.l2_size", None, _kinds(model="encoder_only", encoder="stal")),
    Quirk("Q6", "encoder.threshold_passes", 2, _kinds(encoder="stalps convstal_ps")),
    Quirk("Q8", "encoder.variant", "first_sample", _kinds(encoder="latency")),
)


def with_quirks(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose open switches are set as its `compat` says.

    Args:
        values: the configuration as plain data, every section with its kind; anything malformed stays as it is.
    """
    filled = dict(values)
    if filled.get("compat") != "thesis":
        return filled
    for quirk in QUIRKS:
        section, _, key = quirk.key.partition(".")
        given = filled.get(section)
        if not isinstance(given, Mapping) or key in given or not _has_switch(quirk, filled):
            continue
        published = quirk.published if quirk.published is not None else _channels(filled.get("data"))
        if published is not None:
            filled[section] = {**given, key: published}
    return filled


def reopened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without its switches, for another `compat` to set."""
    opened = dict(values)
    for quirk in QUIRKS:
        section, _, key = quirk.key.partition(".")
        if _has_switch(quirk, opened):
            opened[section] = {name: value for name, value in opened[section].items() if name != key}
    return opened


def _has_switch(quirk: Quirk, values: Mapping[str, Any]) -> bool:
    return all(kind_of(values.get(section)) in kinds for section, kinds in quirk.only.items())


def _channels(data: object) -> int | None:
    shape = image_shape(data) if isinstance(data, Mapping) else None
    return shape[0] if shape else None
