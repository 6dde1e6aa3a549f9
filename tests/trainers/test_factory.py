"""From a configuration to a model and a loss, and weights of pre-trained encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from configs.schema import RunConfig
from trainers import checkpoint as checkpoints
from trainers import factory
from trainers.factory import build_loss, build_model
from trainers.losses.ce_l1 import CeL1
from trainers.losses.ce_spike_sparsity import CeSpikeSparsity
from trainers.losses.cross_entropy import CrossEntropy
from trainers.models import StalSpikformer, StalSrnn
from trainers.protocol import CheckpointError, TrainerError

CPU = torch.device("cpu")
SMALL_ENCODERS: dict[str, dict[str, Any]] = {
    "stal": {"l1_size": 64, "l2_size": 64},
    "convstal": {"hidden_channels": 6},
    "rate": {},
    "latency": {},
    "stalps": {},
    "convstal_ps": {},
    "sps": {},
}


def config(model: dict[str, Any], kind: str, **sections: Any) -> RunConfig:
    """A small run on 8 x 8 digits."""
    options = {"name": kind, "time_steps": 3, **SMALL_ENCODERS[kind], **sections.pop("encoder", {})}
    return RunConfig.model_validate({"model": model, "encoder": options, **sections})


def srnn(kind: str = "convstal", **sections: Any) -> RunConfig:
    return config({"name": "stal_srnn", "hidden_size": 12}, kind, **sections)


def spikformer(kind: str = "stalps", **sections: Any) -> RunConfig:
    return config({"name": "stal_spikformer", "embed_dims": 16, "depth": 1}, kind, **sections)


def build(run: RunConfig) -> StalSrnn | StalSpikformer:
    return build_model(run, (1, 8, 8), 10, CPU)


# --- models and losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run",
    [
        *(srnn(name) for name in ("stal", "convstal", "rate", "latency")),
        *(spikformer(name) for name in ("stalps", "convstal_ps", "sps")),
    ],
    ids=lambda run: run.encoder.name,
)
def test_every_pair_of_the_schema_can_be_built(run: RunConfig) -> None:
    model = build(run)
    assert isinstance(model, StalSrnn if run.model.name == "stal_srnn" else StalSpikformer)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert model.encoder.time_steps == 3
    assert model.neuron_backend == "torch"


def test_the_sections_reach_the_model() -> None:
    surrogate = {"name": "atan", "alpha": 3.0}
    neuron = {"name": "lif", "tau": 4.0, "v_threshold": 0.9, "v_reset": None, "surrogate": surrogate}
    model = build(spikformer(neuron=neuron, encoder={"threshold_passes": 1, "alpha": 9.0, "freeze": True}))
    lif = model.block[0].attn.q_lif
    assert (lif.dynamics.tau, lif.dynamics.v_threshold, lif.dynamics.v_reset) == (4.0, 0.9, None)
    assert (lif.dynamics.surrogate, lif.dynamics.alpha) == ("atan", 3.0)
    assert (model.encoder.threshold_passes, model.encoder.alpha, model.freeze_encoder) == (1, 9.0, True)
    recurrent = build(srnn(neuron={"name": "rlif", "beta": 0.3})).classifier.rlif1.dynamics
    assert (recurrent.beta, recurrent.surrogate, recurrent.alpha) == (0.3, "atan", 2.0)


def test_the_backend_is_chosen_once_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(factory, "choose_backend", lambda *request: asked.append(request) or "triton")
    assert build(spikformer(neuron={"name": "lif", "backend": "triton"})).neuron_backend == "triton"
    assert asked == [("triton", CPU)]
    assert build(spikformer()).block[0].attn.q_lif.backend == "auto"


def test_images_must_be_square() -> None:
    with pytest.raises(TrainerError, match="square images, got 28 x 32; set"):
        build_model(srnn(), (1, 28, 32), 10, CPU)


def test_sizes_that_do_not_fit_the_images_are_explained() -> None:
    with pytest.raises(TrainerError, match=r"'stal_spikformer' with encoder 'stalps' .* 1 x 10 x 10: .* multiple of 4"):
        build_model(spikformer(), (1, 10, 10), 10, CPU)


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ({"name": "cross_entropy", "label_smoothing": 0.1}, CrossEntropy),
        ({"name": "ce_ss", "omega": 0.2, "c": 3.0, "embedding_layout": "as_is"}, CeSpikeSparsity),
        ({"name": "ce_l1", "alpha": 5.0}, CeL1),
    ],
)
def test_losses_are_built(section: dict[str, Any], kind: type[nn.Module]) -> None:
    loss = build_loss(srnn(loss=section, training={"epochs": 7}))
    assert isinstance(loss, kind)
    if isinstance(loss, CeSpikeSparsity):
        assert (loss.sparsity.omega, loss.sparsity.c, loss.sparsity.n_epochs) == (0.2, 3.0, 7)


# --- pre-trained encoders ---------------------------------------------------------------------------------------------


@pytest.fixture
def trained() -> StalSrnn:
    torch.manual_seed(5)
    model = build(srnn())
    assert isinstance(model, StalSrnn)
    return model


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
def test_encoder_weights_are_taken_from_every_usual_form(form: str, trained: StalSrnn, tmp_path: Path) -> None:
    path = saved_as(form, trained, tmp_path)
    model = build(srnn(encoder={"checkpoint": str(path), "freeze": True}))
    torch.testing.assert_close(model.encoder.state_dict(), trained.encoder.state_dict(), rtol=0, atol=0)
    assert not torch.equal(model.classifier.fc1.weight, trained.classifier.fc1.weight)


def test_weights_that_do_not_fit_are_told_apart(trained: StalSrnn, tmp_path: Path) -> None:
    weights = trained.encoder.state_dict()
    weights["Z1.convolution.weight"] = weights.pop("Z1.conv.weight")
    weights["threshold_adder"] = weights["threshold_adder"][:2]
    path = tmp_path / "encoder.pt"
    torch.save(weights, path)
    with pytest.raises(CheckpointError) as caught:
        build(srnn(encoder={"checkpoint": str(path)}))
    message = str(caught.value)
    assert str(path) in message
    assert "Z1.conv.weight is missing; the file has Z1.convolution.weight" in message
    assert "threshold_adder is [2, 1, 8, 8] there and [3, 1, 8, 8] here" in message
    assert "Z1.convolution.weight is not a weight of the encoder" in message


def test_a_long_list_of_differences_is_cut(trained: StalSrnn, tmp_path: Path) -> None:
    path = saved_as("encoder", trained, tmp_path)
    with pytest.raises(CheckpointError, match=r"and \d+ more"):
        build(spikformer(encoder={"checkpoint": str(path)}))


def test_files_without_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no encoder checkpoint .*gone\.pt"):
        build(srnn(encoder={"checkpoint": str(tmp_path / "gone.pt")}))
    text = tmp_path / "text.pt"
    text.write_text("not a torch file")
    with pytest.raises(CheckpointError, match=r"cannot read the encoder checkpoint .*text\.pt"):
        build(srnn(encoder={"checkpoint": str(text)}))
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match=r"no weights in .*empty\.pt; its keys are epoch"):
        build(srnn(encoder={"checkpoint": str(tmp_path / "empty.pt")}))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        build(srnn(encoder={"checkpoint": str(tmp_path / "list.pt")}))
