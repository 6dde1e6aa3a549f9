"""The list of keys, and the other names they go by."""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType

import pytest

from configs.aliases import ALIASES, ALIASES_BY_KIND, canonical
from configs.keys import has_key, known_keys, nearest_keys, sections, sections_with_kinds


def test_keys_know_their_types_and_kinds() -> None:
    keys = known_keys()
    assert keys["loss.omega"].kinds == ("ce_ss",)
    assert keys["loss.omega"].types == {float}
    assert keys["training.clip_grad_norm"].types == {float, NoneType}
    assert keys["training.epochs"].kinds == ()
    assert keys["neuron.surrogate.alpha"].kinds == ("lif", "if", "plif", "klif", "clif", "glif", "psn", "rlif")
    assert keys["neuron.backend"].values == ("auto", "torch", "native", "triton", "cuda")
    assert keys["data.name"].types == {str}
    assert set(keys["encoder.time_steps"].kinds) == {
        "stal",
        "ancestor",
        "convstal",
        "stalps",
        "convstal_ps",
        "sps",
        "rate",
        "latency",
        "direct",
    }
    assert keys["augmentation.crop_scale"].types == {tuple, NoneType}


def test_sections_hold_keys() -> None:
    assert {"training", "neuron.surrogate", "tracking"} <= sections()
    assert "" not in sections()  # `compat` stands in none
    assert sections_with_kinds() == {"model", "neuron", "encoder", "loss", "data"}


@pytest.mark.parametrize(
    ("key", "kind", "has"),
    [
        ("encoder.l2_size", "stal", True),
        ("encoder.l2_size", "convstal", False),
        ("encoder.l2_size", None, False),
        ("training.epochs", None, True),
        ("training.epoch", None, False),
    ],
)
def test_a_key_belongs_to_some_kinds(key: str, kind: str | None, has: bool) -> None:
    assert has_key(key, kind) is has


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("omega", "loss.omega"),
        ("los.omega", "loss.omega"),
        ("training.batch_sice", "training.batch_size"),
        ("model.v_threshold", "neuron.v_threshold"),
    ],
)
def test_an_unknown_key_is_near_to_others(key: str, nearest: str) -> None:
    assert f"did you mean '{nearest}'" in nearest_keys(key)


def test_nothing_is_near_to_nonsense() -> None:
    assert nearest_keys("zzzzzz") == ""


def test_every_key_says_what_it_is() -> None:
    assert [key for key, info in known_keys().items() if not info.description and not key.endswith(".name")] == []


def test_aliases_stand_for_keys_that_exist_and_hide_none() -> None:
    targets = {*ALIASES.values(), *(target for by_kind in ALIASES_BY_KIND.values() for target in by_kind.values())}
    assert targets <= known_keys().keys()
    assert not {*ALIASES, *ALIASES_BY_KIND} & known_keys().keys()
    assert {alias.partition(".")[0] for alias in (*ALIASES, *ALIASES_BY_KIND)} <= sections()
    for by_kind in ALIASES_BY_KIND.values():
        assert all(has_key(target, kind) for kind, target in by_kind.items())


def test_an_alias_may_depend_on_the_kind() -> None:
    assert canonical("encoder.l1_sz", {"encoder": "stal"}) == "encoder.l1_size"
    assert canonical("encoder.l1_sz", {"encoder": "ancestor"}) == "encoder.l1_size"
    assert canonical("encoder.l1_sz", {"encoder": "convstal"}) == "encoder.hidden_channels"
    assert canonical("encoder.l1_sz", {"encoder": "sps"}) == "encoder.l1_sz"
    assert canonical("encoder.l1_sz", {}) == "encoder.l1_sz"
    assert canonical("training.epochs", {}) == "training.epochs"


def test_the_documentation_lists_every_key_and_alias() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    listed = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    assert listed == {*known_keys(), *ALIASES, *ALIASES_BY_KIND}
