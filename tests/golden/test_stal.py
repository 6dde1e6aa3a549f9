"""Encoders, losses, classifiers and metrics of the STAL family against numbers of the published code.

Every case of every file is run; a component, a setting, a parameter or an expected entry that is not known here fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden_cases import GoldenCase, golden_cases
from golden_runs import Run, Settings, gradient, loss_and_gradients, trainable_inputs
from torch import Tensor

from trainers import metrics
from trainers.encoders import Encoded
from trainers.encoders.ancestor import Ancestor
from trainers.encoders.convstal import ConvStal
from trainers.encoders.latency import LatencyEncoder, linear_latency, log_latency
from trainers.encoders.rate import rate_spikes
from trainers.encoders.sps import Sps
from trainers.encoders.stal import Stal
from trainers.encoders.stal_ps import StalPs
from trainers.losses.ce_l1 import CeL1
from trainers.losses.ce_spike_sparsity import CeSpikeSparsity
from trainers.losses.encoder_loss import EncoderLoss, MultiChannelEncoderLoss
from trainers.losses.spike_sparsity import SpikeSparsity, spike_count_and_concentration
from trainers.models import RecurrentClassifier, StalSpikformer, StalSrnn
from trainers.models.stal_spikformer import Block
from trainers.neurons import make_lif

Handler = Callable[[GoldenCase], dict[str, Any]]
HANDLERS: dict[str, Handler] = {}


def handles(component: str) -> Callable[[Handler], Handler]:
    def enter(handler: Handler) -> Handler:
        HANDLERS[component] = handler
        return handler

    return enter


@pytest.mark.parametrize("case", golden_cases("stal"))
def test_equals_the_published_code(case: GoldenCase) -> None:
    assert case.component in HANDLERS, f"no test knows the component '{case.component}'"
    case.compare(HANDLERS[case.component](case))


def encoded(output: Encoded) -> dict[str, Tensor]:
    names = zip(("spikes", "Z1", "Z2"), output, strict=True)
    return {name: value for name, value in names if value is not None}


@handles("stal_encoder")
def stal_encoder(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    run = Run(
        case,
        Stal(
            window_size=s.pop("window_size"),
            n_channels=s.pop("n_channels"),
            time_steps=s.pop("n_spikes_per_timestep"),
            l1_size=s.pop("l1_sz"),
            l2_size=s.pop("l2_sz"),
            drop_p=s.pop("drop_p"),
            alpha=s.pop("alpha"),
        ),
        s.pop("mode"),
    )
    s.done()
    return run.results(encoded(run.module(run.inputs["X"])))


@handles("convstal_encoder")
def convstal_encoder(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    run = Run(
        case,
        ConvStal(
            in_channels=s.pop("in_channels"),
            img_size=s.pop("img_size"),
            time_steps=s.pop("n_spikes_per_timestep"),
            hidden_channels=s.pop("l1_sz"),
            out_channels=s.pop("l2_sz"),
            kernel_size=s.pop("kernel_size"),
            drop_p=s.pop("drop_p"),
            alpha=s.pop("alpha"),
            flatten=s.pop("flatten"),
        ),
        s.pop("mode"),
    )
    s.done()
    return run.results(encoded(run.module(run.inputs["X"])))


@handles("stal_original_variants")
def stal_original_variants(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    sizes = {
        "window_size": s.pop("omega"),
        "n_channels": s.pop("c"),
        "time_steps": s.pop("psi"),
        "l1_size": s.pop("l1_sz"),
        "l2_size": s.pop("l2_sz"),
    }
    slopes = {float(s.pop("alpha_last")), float(s.pop("alpha_stal_paper_code"))}
    mode = s.pop("mode", "eval")
    s.done()
    found: dict[str, Any] = {}
    for name in case.expected:
        if slope := re.fullmatch(r"spikes_alpha(\d+)", name):
            assert float(slope[1]) in slopes
            run = Run(case, Ancestor(**sizes, alpha=float(slope[1])), mode)
            outputs = encoded(run.module(run.inputs["X"]))
            found |= run.results({name: outputs.pop("spikes"), **outputs})
    return found


@handles("stal_ps_encoder")
def stal_ps_encoder(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    run = Run(
        case,
        StalPs(
            in_channels=s.pop("in_channels"),
            img_size=s.pop("img"),
            time_steps=s.pop("T"),
            embed_dims=s.pop("embed_dims"),
            patch_size=s.pop("patch_size"),
            alpha=s.pop("alpha"),
        ),
        s.pop("mode"),
    )
    s.done()
    tokens = run.module(run.inputs["X"])
    return run.results({"tokens": tokens, "spike_density": metrics.spike_density(tokens)})


@handles("sps_encoder")
def sps_encoder(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    neuron = {"tau": s.pop("tau"), "v_threshold": s.pop("v_threshold"), "v_reset": s.pop("v_reset")}
    run = Run(
        case,
        Sps(
            in_channels=s.pop("in_channels"),
            img_size=s.pop("img"),
            time_steps=s.pop("T"),
            embed_dims=s.pop("embed_dims"),
            lif=lambda: make_lif(**neuron),
        ),
        s.pop("mode"),
    )
    s.done()
    tokens = run.module(run.inputs["X"])
    return run.results({"tokens": tokens, "spike_density": metrics.spike_density(tokens)})


@handles("srnn_classifier")
def srnn_classifier(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    time_steps = s.pop("n_spikes_per_timestep")
    assert s.pop("reset") == "subtract"
    surrogate, word, alpha = s.pop("surrogate").split()
    assert word == "alpha"
    run = Run(
        case,
        RecurrentClassifier(
            s.pop("window_size") * s.pop("n_channels"),
            s.pop("l1_sz"),
            s.pop("n_classes"),
            beta=s.pop("lif_beta"),
            v_threshold=s.pop("threshold"),
            surrogate=surrogate,
            surrogate_alpha=float(alpha),
        ),
        s.pop("mode", "eval"),
    )
    s.done()
    x = run.inputs["X"]
    assert x.shape[1] == time_steps
    spikes, membranes = run.module(x)
    outputs = {"spk_rec": spikes, "mem_rec": membranes, "logits": spikes.sum(0)}
    return run.results(outputs, {"spk": "spk_rec", "mem": "mem_rec", "logits": "logits"})


@handles("srnn_hotswap")
def srnn_hotswap(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    encoder = s.pop("encoder")
    l1, l2 = s.pop("enc_l1"), s.pop("enc_l2")
    options = {
        "stal": {"l1_size": l1, "l2_size": l2, "drop_p": 0.0, "slot_order": "pixel_major"},
        "convstal": {"hidden_channels": l1, "out_channels": l2, "drop_p": 0.0},
    }
    run = Run(
        case,
        StalSrnn(
            num_classes=s.pop("n_classes"),
            in_channels=s.pop("in_channels"),
            img_size=s.pop("img"),
            time_steps=s.pop("n_spikes_per_timestep"),
            encoder=encoder,
            encoder_kwargs=options[encoder],
            hidden_size=s.pop("l1_sz"),
            beta=s.pop("lif_beta"),
        ),
        s.pop("mode"),
    )
    s.done()
    logits, embeddings = run.module(run.inputs["X"], return_embeddings=True)
    density = metrics.spike_density(embeddings)
    if encoder == "stal":  # published flat; here seen as [B, T, n], which in this slot order is the same memory
        embeddings = embeddings.flatten(1)
    return run.results({"logits": logits, "embeddings": embeddings, "spike_density": density})


@handles("spikformer_block")
def spikformer_block(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    block = Block(s.pop("dim"), s.pop("num_heads"), mlp_ratio=s.pop("mlp_ratio"), attn_scale=s.pop("scale"))
    run = Run(case, block, s.pop("mode"))
    x = run.inputs["X"]
    assert (x.shape[0], x.shape[2]) == (s.pop("T"), s.pop("tokens"))
    s.done()
    out = run.module(x)
    return run.results({"out": out, "residual_sum": (out - x).sum()})


@handles("spikformer_hotswap")
def spikformer_hotswap(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    encoder, alpha = s.pop("encoder"), s.pop("alpha")
    options = {"patch_size": s.pop("patch_size")} | ({} if encoder == "sps" else {"alpha": alpha})
    run = Run(
        case,
        StalSpikformer(
            num_classes=s.pop("num_classes"),
            in_channels=s.pop("in_channels"),
            img_size=s.pop("img"),
            time_steps=s.pop("T"),
            encoder=encoder,
            encoder_kwargs=options,
            embed_dims=s.pop("embed_dims"),
            num_heads=s.pop("num_heads"),
            mlp_ratio=s.pop("mlp_ratios"),
            depth=s.pop("depths"),
        ),
        s.pop("mode"),
    )
    assert len(run.module.state_dict()) == s.pop("state_dict_keys")
    s.done()
    logits, embeddings = run.module(run.inputs["X"], return_embeddings=True)
    density = metrics.spike_density(embeddings)
    return run.results({"logits": logits, "embeddings": embeddings, "spike_density": density})


# --- codes ------------------------------------------------------------------------------------------------------------


@handles("rate_latency_coding")
def rate_latency_coding(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    steps = s.pop("T")
    s.done()
    x = case.inputs["X"]
    published = LatencyEncoder(in_channels=x.shape[1], img_size=x.shape[2], time_steps=steps, variant="first_sample")
    rate = {"rate_spikes": rate_spikes(x, case.inputs["uniform_draws"])} if "uniform_draws" in case.inputs else {}
    return rate | {
        "latency_spikes_intended_BT": linear_latency(x, steps),
        "latency_spikes_thesis_quirk": published(x).spikes,
        "latency_snntorch_normalized_T_first": log_latency(x.flatten(1), steps).transpose(0, 1),
    }


# --- losses -----------------------------------------------------------------------------------------------------------


@handles("spike_sparsity_loss")
def spike_sparsity_loss(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    loss = SpikeSparsity(s.pop("omega"), s.pop("n_epochs"), s.pop("c"))
    epochs = s.pop("epochs")
    assert s.pop("layout") == "dim0 summed, dim1 averaged"
    s.done()
    embeddings = trainable_inputs(case)["embeddings"]
    count, concentration = spike_count_and_concentration(embeddings)
    values = [loss(embeddings, epoch) for epoch in epochs]
    return {
        "spike_count_l1": count,
        "concentration": concentration,
        "loss_per_epoch": torch.stack(values),
        "grad_at_last_epoch": gradient(values[-1], embeddings),
    }


@handles("ce_ss_loss")
def ce_ss_loss(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    loss = CeSpikeSparsity(s.pop("omega"), s.pop("n_epochs"), s.pop("c"))
    epochs = s.pop("epochs")
    s.done()
    x = trainable_inputs(case)
    values = [loss(x["logits"], x["targets"], embeddings=x["embeddings"], epoch=epoch) for epoch in epochs]
    return {
        "loss_per_epoch": torch.stack(values),
        "grad_logits_last": gradient(values[-1], x["logits"]),
        "grad_embeddings_last": gradient(values[-1], x["embeddings"]),
    }


@handles("ce_l1_loss")
def ce_l1_loss(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    loss = CeL1(s.pop("alpha"), s.pop("sparsity_weight"))
    s.done()
    x = trainable_inputs(case)
    value = loss(x["logits"], x["targets"], embeddings=x["embeddings"], images=x["X"])
    return loss_and_gradients(case, x, value)


VARIANTS = {
    "variant_last_default": EncoderLoss("early", use_z=False),
    "variant_last_low_spikes": EncoderLoss("early", use_z=False, area=50.0),
    "variant_last_mi_only_2channels": EncoderLoss("early", slot_scale=100.0, use_z=False, count_spikes=False),
}


@handles("encoder_loss")
def encoder_loss(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    assert case.inputs["W"].shape[1] == s.pop("psi") * case.inputs["X"].shape[1]
    for name in ("Z1", "Z2"):
        assert (name in case.inputs) == s.pop(name.lower())
    s.done("special")  # says how the inputs were chosen
    x = trainable_inputs(case)
    arguments = (x["W"], x["X"], x.get("Z1"), x.get("Z2"))
    found = {name: variant(*arguments) for name, variant in VARIANTS.items() if name in case.expected}
    return found | loss_and_gradients(case, x, EncoderLoss(z_terms="last")(*arguments))


@handles("multi_channel_encoder_loss")
def multi_channel_encoder_loss(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    x = trainable_inputs(case)
    assert x["W"].shape[1:] == (s.pop("psi"), s.pop("channels") * s.pop("h") * s.pop("w"))
    assert (x["X"].ndim == 4) == s.pop("X_is_4d")
    assert ("Z1" in x) == s.pop("with_z")
    s.done()
    published = MultiChannelEncoderLoss(z_terms="last", spike_layout="as_is")
    return loss_and_gradients(case, x, published(x["W"], x["X"], x.get("Z1"), x.get("Z2")))


# --- metrics and search -----------------------------------------------------------------------------------------------


@handles("spike_metrics")
def spike_metrics(case: GoldenCase) -> dict[str, Any]:
    s = Settings(case.settings)
    level = s.pop("threshold")
    s.done()
    embeddings = case.inputs["embeddings"]
    return {
        "spike_density": metrics.spike_density(embeddings),
        "binary_sparsity": metrics.binary_sparsity(embeddings, level),
        "temporal_sparsity": metrics.temporal_sparsity(embeddings, level),
        "activation_sparsity": metrics.activation_sparsity(embeddings),
    }


@handles("thesis_pareto")
def thesis_pareto(case: GoldenCase) -> dict[str, Any]:
    from orchestrator.reading.front import pareto_front

    s = Settings(case.settings)
    points = s.pop("points")
    front = pareto_front(points, [direction.lower() for direction in s.pop("directions")])
    s.done("values")  # says what the points are
    scores = [4 * accuracy - density for accuracy, density in points]
    return {
        "front_indices": sorted(front),
        "score": scores,
        "best_score_index": scores.index(max(scores)),
    }
