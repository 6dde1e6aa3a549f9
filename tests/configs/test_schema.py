"""The typed configuration."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.schema import Augmentation, LifNeuron, RecurrentLifNeuron, RunConfig, StalPsEncoder, Training


def test_a_model_brings_its_neuron_and_encoder() -> None:
    srnn = RunConfig.model_validate({"model": {"name": "stal_srnn"}})
    assert (srnn.neuron.name, srnn.encoder.name) == ("rlif", "convstal")
    spikformer = RunConfig.model_validate({"model": {"name": "stal_spikformer"}})
    assert (spikformer.neuron.name, spikformer.encoder.name) == ("lif", "stalps")


@pytest.mark.parametrize(
    ("encoder", "loss"),
    [
        ({}, "multi_channel_encoder_loss"),
        ({"name": "convstal"}, "multi_channel_encoder_loss"),
        ({"name": "stal", "l1_size": 64, "l2_size": 64}, "encoder_loss"),
        ({"name": "ancestor"}, "encoder_loss"),
    ],
)
def test_an_encoder_alone_brings_its_loss(encoder: dict[str, Any], loss: str) -> None:
    config = RunConfig.model_validate({"model": {"name": "encoder_only"}, "encoder": encoder})
    assert (config.neuron.name, config.loss.name) == ("none", loss)


def test_part_of_a_section_needs_no_name() -> None:
    values = {"model": {"name": "stal_srnn"}, "data": {"val_fraction": 0.2}, "loss": {"label_smoothing": 0.1}}
    config = RunConfig.model_validate(values)
    assert (config.data.name, config.loss.name) == ("digits", "cross_entropy")


def test_each_neuron_has_its_own_surrogate() -> None:
    surrogate = RecurrentLifNeuron.model_validate({"surrogate": {"alpha": 3}}).surrogate
    assert (surrogate.name, surrogate.alpha) == ("atan", 3.0)
    surrogate = LifNeuron.model_validate({"surrogate": {"alpha": 3}}).surrogate
    assert (surrogate.name, surrogate.alpha) == ("sigmoid", 3.0)


def test_both_names_of_stal_ps_are_one_kind() -> None:
    assert StalPsEncoder(name="convstal_ps") == StalPsEncoder(name="stalps")


@pytest.mark.parametrize(
    ("section", "values", "key", "value"),
    [
        (Training, {"epochs": 3.0}, "epochs", 3),
        (Training, {"clip_grad_norm": 1}, "clip_grad_norm", 1.0),
        (Training, {"eval_batch_size": 1e3}, "eval_batch_size", 1000),
        (Augmentation, {"crop_scale": [0.1, 1]}, "crop_scale", (0.1, 1.0)),
    ],
)
def test_numbers_and_lists_are_taken_as_yaml_writes_them(
    section: Any, values: dict[str, Any], key: str, value: object
) -> None:
    found = getattr(section.model_validate(values), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": "3"},
        {"epochs": True},
        {"epochs": 2.5},
        {"epochs": 0},
        {"epochs": [3]},
        {"deterministic": "yes"},
        {"deterministic": 1},
        {"ema_decay": "0.9"},
        {"ema_decay": float("nan")},
        {"clip_grad_norm": float("inf")},
        {"amp": False},
        {"device": "cuda:"},
        {"seeds": 3},
    ],
)
def test_another_type_is_refused_and_never_converted(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Training.model_validate(values)


def test_a_configuration_does_not_change() -> None:
    config = RunConfig.model_validate({"model": {"name": "stal_srnn"}})
    with pytest.raises(ValidationError):
        config.training.epochs = 3
