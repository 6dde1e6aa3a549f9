"""Parts of a configuration that do not go together."""

from __future__ import annotations

from typing import Any

import pytest

from configs.fit import (
    CLASSIFIER_LOSSES,
    DEFAULT_PAIRS,
    ENCODER_LOSSES,
    ENCODER_ONLY,
    ENCODERS_OF_MODEL,
    STEP_LOSSES,
    misfits,
)
from configs.keys import known_keys
from configs.schema import RunConfig

SPIKFORMER = {"name": "stal_spikformer"}
SRNN = {"name": "stal_srnn"}
ALONE = {"name": "encoder_only"}


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"model": SRNN, "neuron": {"name": "lif"}}, ["neuron.name"]),
        ({"model": ALONE, "neuron": {"name": "lif"}, "encoder": {"name": "sps"}}, ["neuron.name", "encoder.name"]),
        ({"model": {**SPIKFORMER, "embed_dims": 64, "num_heads": 3}}, ["model.num_heads"]),
        ({"model": {**SPIKFORMER, "embed_dims": 64, "num_heads": 8}}, []),
        ({"encoder": {"name": "convstal", "kernel_size": 4}}, ["encoder.kernel_size"]),
        ({"encoder": {"name": "sps"}, "data": {"name": "mnist", "image_size": 30}}, ["data.image_size"]),
        ({"encoder": {"name": "convstal"}, "data": {"name": "mnist", "image_size": 30}}, []),
        ({"model": SRNN, "data": {"name": "mnist", "image_size": 30}}, []),
        ({"model": SRNN, "encoder": {"name": "sps"}, "data": {"name": "mnist", "image_size": 30}}, ["data.image_size"]),
        (
            {"model": SPIKFORMER, "encoder": {"name": "rate"}, "data": {"name": "mnist", "image_size": 30}},
            ["data.image_size"],
        ),
        ({"model": SPIKFORMER, "encoder": {"name": "rate"}, "data": {"name": "mnist", "image_size": 32}}, []),
        ({"encoder": {"name": "stal", "l1_size": 33}, "data": {"name": "digits"}}, ["encoder.l1_size"]),
        ({"encoder": {"name": "stal", "l1_size": 128, "l2_size": 64}, "data": {"name": "digits"}}, []),
        (
            {"encoder": {"name": "stal", "l2_size": 320, "time_steps": 5}, "data": {"name": "digits"}},
            ["encoder.l2_size"],
        ),
        (
            {"encoder": {"name": "stal", "l2_size": 128, "time_steps": 5}, "data": {"name": "digits"}},
            ["encoder.l2_size"],
        ),
        ({"encoder": {"name": "stal", "l2_size": 128, "time_steps": 4}, "data": {"name": "digits"}}, []),
        ({"encoder": {"name": "stal", "l1_size": 784}, "data": {"name": "mnist"}}, []),
        ({"encoder": {"name": "stal", "l1_size": 784}, "data": {"name": "cifar10"}}, ["encoder.l1_size"]),
        (
            {"encoder": {"name": "convstal", "hidden_channels": 2}, "data": {"name": "cifar10"}},
            ["encoder.hidden_channels"],
        ),
        ({"encoder": {"name": "convstal", "hidden_channels": 4}, "data": {"name": "cifar10"}}, []),
        ({"encoder": {"name": "convstal", "hidden_channels": 2}, "data": {"name": "mnist"}}, []),
        ({"encoder": {"name": "ancestor", "l1_size": 33}, "data": {"name": "digits"}}, ["encoder.l1_size"]),
        (
            {"encoder": {"name": "ancestor", "l1_size": 0, "l2_size": 8}, "data": {"name": "digits"}},
            ["encoder.l2_size"],
        ),
        ({"encoder": {"name": "ancestor", "l1_size": 32, "l2_size": 0}, "data": {"name": "digits"}}, []),
        (
            {"encoder": {"name": "ancestor", "l1_size": 320, "time_steps": 4}, "data": {"name": "digits"}},
            ["encoder.l1_size"],
        ),
        ({"encoder": {"name": "ancestor", "l1_size": 3072, "mix_channels": True}, "data": {"name": "cifar10"}}, []),
        (
            {"encoder": {"name": "ancestor", "l1_size": 3, "mix_channels": True}, "data": {"name": "cifar10"}},
            ["encoder.l1_size"],
        ),
        ({"model": SRNN, "encoder": {"name": "ancestor"}}, []),
        ({"model": SPIKFORMER, "encoder": {"name": "ancestor"}}, []),
        ({"model": SRNN, "encoder": {"name": "convstal_ps"}}, []),
        ({"model": SRNN, "loss": {"name": "encoder_loss"}}, ["loss.name"]),
        ({"model": SRNN, "loss": {"name": "ce_l1"}}, []),
        ({"model": ALONE, "encoder": {"name": "stal"}, "loss": {"name": "encoder_loss"}}, []),
        ({"model": ALONE, "encoder": {"name": "stal"}, "loss": {"name": "multi_channel_encoder_loss"}}, ["loss.name"]),
        ({"model": ALONE, "encoder": {"name": "convstal"}, "loss": {"name": "encoder_loss"}}, ["loss.name"]),
        ({"model": ALONE, "encoder": {"name": "convstal"}, "loss": {"name": "cross_entropy"}}, ["loss.name"]),
        ({"model": ALONE, "encoder": {"name": "rate"}, "loss": {"name": "encoder_loss"}}, ["encoder.name"]),
        ({"model": ALONE, "neuron": {"name": "rlif"}}, ["neuron.name"]),
        ({"model": ALONE, "encoder": {"name": "stal", "freeze": True}}, ["encoder.freeze"]),
        ({"model": ALONE, "encoder": {"name": "ancestor", "mix_channels": True}, "data": {"name": "mnist"}}, []),
        (
            {"model": ALONE, "encoder": {"name": "ancestor", "mix_channels": True}, "data": {"name": "cifar10"}},
            ["encoder.mix_channels"],
        ),
        ({"model": SPIKFORMER, "neuron": {"name": "lif", "mlp_v_threshold": 0.5}}, ["neuron.mlp_v_threshold"]),
        ({"model": SRNN, "training": {"memory": "checkpoint"}}, ["training.memory"]),
        ({"encoder": {"name": "direct"}, "loss": {"name": "ce_l1"}, "data": {"name": "cifar10_dvs"}}, ["loss.name"]),
        ({"encoder": {"name": "direct"}, "loss": {"name": "ce_ss"}, "data": {"name": "cifar10_dvs"}}, []),
        ({"data": {"name": "digits", "val_fraction": 0.5, "test_fraction": 0.5}}, ["data.test_fraction"]),
        ({"data": {"name": "mnist_files", "train_size": 9000, "val_size": 900, "test_size": 101}}, ["data.train_size"]),
        ({"data": {"name": "mnist_files", "train_size": 9000, "val_size": 900, "test_size": 100}}, []),
        ({"augmentation": {"crop_scale": [0.0, 1.0]}}, ["augmentation.crop_scale"]),
        ({"augmentation": {"crop_scale": [0.5, 0.5]}}, []),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], keys: list[str]) -> None:
    assert [misfit.key for misfit in misfits(values)] == keys
    assert set(keys) <= known_keys().keys()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model": None, "encoder": 3, "data": []},
        {"model": {"name": ["stal_srnn"]}, "neuron": {"name": 3}},
        {"model": {**SPIKFORMER, "embed_dims": "wide", "num_heads": 0}},
        {"encoder": {"name": "stal", "l1_size": "x", "l2_size": True}, "data": {"name": "digits", "val_fraction": "x"}},
        {"augmentation": {"crop_scale": ["a", None]}},
        {"augmentation": {"crop_scale": 0.5}},
        {"data": {"name": "unheard_of", "image_size": 7}},
    ],
)
def test_values_that_are_wrong_by_themselves_are_passed_over(values: dict[str, Any]) -> None:
    assert misfits(values) == []


def test_a_misfit_keeps_a_configuration_from_being_made() -> None:
    with pytest.raises(
        ValueError, match=r"neuron\.name: model 'encoder_only' takes neuron 'none', got 'lif'; encoder\.name"
    ):
        RunConfig.model_validate({"model": ALONE, "neuron": {"name": "lif"}, "encoder": {"name": "sps"}})


def test_the_tables_name_kinds_that_exist() -> None:
    keys = known_keys()
    assert set(DEFAULT_PAIRS) == set(ENCODERS_OF_MODEL) == set(keys["model.name"].values)
    assert {neuron for neuron, _ in DEFAULT_PAIRS.values()} <= set(keys["neuron.name"].values)
    assert set().union(*ENCODERS_OF_MODEL.values()) == set(keys["encoder.name"].values)
    assert all(encoder in ENCODERS_OF_MODEL[model] for model, (_, encoder) in DEFAULT_PAIRS.items())
    assert set(ENCODER_LOSSES) == ENCODERS_OF_MODEL[ENCODER_ONLY]
    assert {*CLASSIFIER_LOSSES, *STEP_LOSSES, *ENCODER_LOSSES.values()} == set(keys["loss.name"].values)


def test_an_encoder_that_does_not_fit_is_told_with_those_that_do() -> None:
    (misfit,) = misfits({"model": ALONE, "encoder": {"name": "sps"}})
    assert misfit.message.endswith("takes one of the encoders 'ancestor', 'convstal', 'stal', got 'sps'")


def test_a_loss_that_does_not_fit_is_told_with_those_that_do() -> None:
    (misfit,) = misfits({"model": SRNN, "loss": {"name": "encoder_loss"}})
    assert misfit.message == (
        "model 'stal_srnn' takes one of the losses 'cross_entropy', 'ce_ss', 'ce_l1', got 'encoder_loss'; "
        "'encoder_loss' trains an encoder alone, with model 'encoder_only'"
    )
    (misfit,) = misfits({"model": ALONE, "encoder": {"name": "stal"}, "loss": {"name": "ce_ss"}})
    assert misfit.message == "model 'encoder_only' with encoder 'stal' takes loss 'encoder_loss', got 'ce_ss'"
