"""From a configuration to a model and a loss, and weights of pre-trained encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from configs.fit import ENCODERS_OF_MODEL, PATCH_ENCODERS
from configs.schema import RunConfig
from trainers import factory
from trainers.factory import build_loss, build_model
from trainers.losses.ce_l1 import CeL1
from trainers.losses.ce_spike_sparsity import CeSpikeSparsity
from trainers.losses.cross_entropy import CrossEntropy
from trainers.losses.encoder_loss import EncoderLoss, MultiChannelEncoderLoss
from trainers.models import EncoderOnly, StalSpikformer, StalSrnn
from trainers.neurons import backend_of
from trainers.protocol import CheckpointError, TrainerError
from trainers.tasks import make_task

CPU = torch.device("cpu")
SMALL_ENCODERS: dict[str, dict[str, Any]] = {
    "stal": {"l1_size": 64, "l2_size": 64},
    "convstal": {"hidden_channels": 6},
    "ancestor": {"l1_size": 32, "l2_size": 64},
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
    return config({"name": "stal_srnn", "hidden_size": 12, "embed_dims": 16}, kind, **sections)


def spikformer(kind: str = "stalps", **sections: Any) -> RunConfig:
    return config({"name": "stal_spikformer", "embed_dims": 16, "depth": 1}, kind, **sections)


def build(run: RunConfig) -> StalSrnn | StalSpikformer:
    return build_model(run, (1, 8, 8), 10, CPU)


# --- models and losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(SMALL_ENCODERS))
@pytest.mark.parametrize(("make", "classifier"), [(srnn, StalSrnn), (spikformer, StalSpikformer)])
def test_every_classifier_takes_every_encoder(
    make: Callable[..., RunConfig], classifier: type[nn.Module], kind: str
) -> None:
    model = build(make(kind))
    assert isinstance(model, classifier)
    assert model.encoder.time_steps == 3
    assert getattr(model.encoder, "embed_dims", 16) == 16
    assert model.neuron_backend == backend_of(model, CPU)
    logits = model(torch.rand(2, 1, 8, 8))
    assert logits.shape == (2, 10)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("layout", ["time_first", "as_is"])
@pytest.mark.parametrize("kind", sorted(SMALL_ENCODERS))
@pytest.mark.parametrize("make", [srnn, spikformer])
def test_every_pair_trains_in_either_layout(make: Callable[..., RunConfig], kind: str, layout: str) -> None:
    torch.manual_seed(0)
    run = make(kind, loss={"name": "ce_ss", "omega": 1e-3, "embedding_layout": layout})
    model = build(run).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in model.named_parameters()}
    output = make_task(run, CPU).step(model, torch.rand(4, 1, 8, 8), torch.arange(4), epoch=1)
    output.loss.backward()
    optimizer.step()
    gives_tokens = kind in PATCH_ENCODERS
    assert output.embeddings.shape[:2] == ((4, 3) if layout == "as_is" and not gives_tokens else (3, 4))
    assert torch.isfinite(output.loss)
    assert all(torch.isfinite(value).all() for value in model.parameters())
    changed = {
        name.partition(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    expected = {"classifier"} if make is srnn else {"block", "head"} if gives_tokens else {"patches", "block", "head"}
    assert changed - {"encoder"} == expected
    assert ("encoder" in changed) == (kind not in {"rate", "latency"})


@pytest.mark.parametrize("kind", sorted(ENCODERS_OF_MODEL["encoder_only"]))
def test_every_encoder_of_the_schema_can_be_built_alone(kind: str) -> None:
    model = build(config({"name": "encoder_only"}, kind))
    assert isinstance(model, EncoderOnly)
    assert model.neuron_backend == "torch"
    assert [name for name, _ in model.named_children()] == ["encoder"]
    encoded = model(torch.rand(2, 1, 8, 8))
    assert model.encoder.steps(encoded.spikes).flatten(2).shape == (2, 3, 64)
    assert encoded.z2.flatten(1).shape == (2, 64)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_srnn_takes_an_ancestor_that_mixes_channels(channels: int) -> None:
    run = srnn("ancestor", encoder={"mix_channels": True, "l1_size": 0, "l2_size": 0, "alpha": 100.0})
    model = build_model(run, (channels, 8, 8), 10, CPU)
    assert model(torch.rand(2, channels, 8, 8)).shape == (2, 10)
    assert (model.encoder.step_size, model.encoder.alpha) == (64, 100.0)


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
    asked.clear()
    assert build(srnn("sps")).encoder.proj_lif.backend == "auto"
    build(srnn())
    assert asked == [("auto", CPU), ("torch", CPU)]


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


def test_the_losses_of_an_encoder_alone_are_built() -> None:
    section = {"name": "encoder_loss", "slot_weights": "early", "use_z": False, "z_terms": "last"}
    loss = build_loss(config({"name": "encoder_only"}, "stal", loss=section))
    assert isinstance(loss, EncoderLoss)
    assert (loss.slot_weights, loss.use_z, loss.z_terms) == ("early", False, "last")
    loss = build_loss(config({"name": "encoder_only"}, "convstal", loss={"spike_layout": "as_is", "z_terms": "last"}))
    assert isinstance(loss, MultiChannelEncoderLoss)
    assert (loss.spike_layout, loss.encoder_loss.z_terms) == ("as_is", "last")


def test_a_pre_trained_encoder_is_loaded(tmp_path: Path) -> None:
    trained = build(srnn())
    path = tmp_path / "encoder.pt"
    torch.save(trained.encoder.state_dict(), path)
    model = build(srnn(encoder={"checkpoint": str(path), "freeze": True}))
    torch.testing.assert_close(model.encoder.state_dict(), trained.encoder.state_dict(), rtol=0, atol=0)
    assert not torch.equal(model.classifier.fc1.weight, trained.classifier.fc1.weight)
    with pytest.raises(CheckpointError, match="do not fit the encoder"):
        build(spikformer(encoder={"checkpoint": str(path)}))


def test_memory_is_saved_where_the_configuration_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(factory, "save_memory", lambda model, how: asked.append(how))
    build(RunConfig.model_validate({"model": {"name": "spikformer_cifar"}, "training": {"memory": "checkpoint"}}))
    assert asked == ["checkpoint"]
