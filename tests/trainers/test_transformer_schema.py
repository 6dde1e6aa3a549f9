"""The configuration of a spiking transformer has every argument of the model, with the model's own default."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest

import trainers.models  # noqa: F401  # registers the models with timm, which it makes importable

# isort: split
from timm.models import model_entrypoint

from configs import schema
from configs.fit import NEURONS_OF_TRANSFORMERS, SPIKING_TRANSFORMERS
from configs.schema import SpikingNeuron, SpikingTransformerModel
from trainers.models import backbone
from trainers.models.neuron_options import NeuronOptions
from trainers.neurons import NEURON_KINDS

SECTIONS = {
    section.model_fields["name"].default: section
    for section in vars(schema).values()
    if inspect.isclass(section) and issubclass(section, SpikingTransformerModel) and "name" in section.model_fields
}
FROM_ELSEWHERE = {"in_channels", "img_size", "num_classes", "time_steps", "step_logits"}  # data, encoder and loss
OF_THE_FILE = {"name", "pretrained", "new_head"}
FIXED = {"layout"}  # what makes it this variant


def arguments_of(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[type, dict[str, Any]]:
    """Return the class behind a registered name and what it is built with when nothing is asked for."""
    built: list[tuple[type, dict[str, Any]]] = []

    def note(kind: type, arguments: dict[str, Any]) -> None:
        built.append((kind, arguments))

    monkeypatch.setattr(backbone, "build", note)
    model_entrypoint(name)()
    return built[0]


def test_there_is_a_section_for_every_family() -> None:
    assert set(SECTIONS) == SPIKING_TRANSFORMERS


@pytest.mark.parametrize("name", sorted(SPIKING_TRANSFORMERS))
def test_section_and_model_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, given = arguments_of(name, monkeypatch)
    parameters = inspect.signature(kind).parameters.values()
    model = {p.name: given.get(p.name, p.default) for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    section = {key: field.default for key, field in SECTIONS[name].model_fields.items() if key not in OF_THE_FILE}
    assert section == {key: value for key, value in model.items() if key not in FROM_ELSEWHERE | FIXED}


def test_every_kind_of_neuron_can_be_configured() -> None:
    kinds = {
        section.model_fields["name"].default
        for section in vars(schema).values()
        if inspect.isclass(section) and issubclass(section, SpikingNeuron) and "name" in section.model_fields
    }
    assert kinds == set(NEURON_KINDS) == NEURONS_OF_TRANSFORMERS


def test_neuron_sections_have_no_key_that_models_do_not_know() -> None:
    known = set(NeuronOptions.__annotations__) | {"name"}
    for member in get_args(get_args(schema.Neuron)[0]):
        if issubclass(member, SpikingNeuron):
            assert set(member.model_fields) <= known, member


def test_the_shared_arguments_are_those_of_the_base() -> None:
    assert {"step_by_step", "step_logits", "time_steps"} <= set(
        inspect.signature(backbone.SpikingTransformer).parameters
    )
