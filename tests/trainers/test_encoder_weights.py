"""Weights of pre-trained encoders: where they may be found, and what is said when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from trainers import checkpoint as checkpoints
from trainers.encoder_weights import load_encoder
from trainers.encoders.stal_ps import StalPs
from trainers.models import StalSrnn
from trainers.protocol import CheckpointError


def new_model() -> StalSrnn:
    return StalSrnn(img_size=8, time_steps=3, encoder_kwargs={"hidden_channels": 6})


@pytest.fixture
def trained() -> StalSrnn:
    torch.manual_seed(5)
    return new_model()


def saved_as(form: str, model: nn.Module, folder: Path) -> Path:
    """Save a model's encoder in one of the forms it may be found in."""
    path, whole = folder / "encoder.pt", model.state_dict()
    if form == "run":
        content = {"epoch": 3, "weights": {"model": whole, "ema": None}}
        return checkpoints.save(folder, content, epoch=3, step=0, keep=1).path
    contents = {
        "encoder": model.encoder.state_dict(),
        "model": whole,
        "lightning": {"epoch": 3, "state_dict": {f"model.{name}": value for name, value in whole.items()}},
        "averaged": {"weights": {"model": {}, "ema": whole}},
    }
    torch.save(contents[form], path)
    return path


@pytest.mark.parametrize("form", ["encoder", "model", "lightning", "run", "averaged"])
def test_weights_are_taken_from_every_usual_form(form: str, trained: StalSrnn, tmp_path: Path) -> None:
    encoder = new_model().encoder
    load_encoder(encoder, saved_as(form, trained, tmp_path))
    torch.testing.assert_close(encoder.state_dict(), trained.encoder.state_dict(), rtol=0, atol=0)


def test_what_does_not_fit_is_told_apart(trained: StalSrnn, tmp_path: Path) -> None:
    weights = trained.encoder.state_dict()
    weights["Z1.convolution.weight"] = weights.pop("Z1.conv.weight")
    weights["threshold_adder"] = weights["threshold_adder"][:2]
    path = tmp_path / "encoder.pt"
    torch.save(weights, path)
    encoder = new_model().encoder
    before = encoder.threshold_adder.clone()
    with pytest.raises(CheckpointError) as caught:
        load_encoder(encoder, path)
    message = str(caught.value)
    assert str(path) in message
    assert "Z1.conv.weight is missing; the file has Z1.convolution.weight" in message
    assert "threshold_adder is [2, 1, 8, 8] there and [3, 1, 8, 8] here" in message
    assert "Z1.convolution.weight is not a weight of the encoder" in message
    assert torch.equal(encoder.threshold_adder, before)


def test_a_long_list_of_differences_is_cut(trained: StalSrnn, tmp_path: Path) -> None:
    path = saved_as("encoder", trained, tmp_path)
    with pytest.raises(CheckpointError, match=r"and \d+ more"):
        load_encoder(StalPs(in_channels=1, img_size=8, embed_dims=8), path)


def test_files_without_weights_are_named(tmp_path: Path) -> None:
    encoder = new_model().encoder
    with pytest.raises(CheckpointError, match=r"there is no encoder checkpoint .*gone\.pt"):
        load_encoder(encoder, tmp_path / "gone.pt")
    text = tmp_path / "text.pt"
    text.write_text("not a torch file")
    with pytest.raises(CheckpointError, match=r"cannot read the encoder checkpoint .*text\.pt"):
        load_encoder(encoder, text)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match=r"no weights in .*empty\.pt; its keys are epoch"):
        load_encoder(encoder, tmp_path / "empty.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_encoder(encoder, tmp_path / "list.pt")
