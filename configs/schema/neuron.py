"""Spiking neurons: their kinds, constants and surrogate derivatives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.base import Fraction, Positive, Section


class Surrogate(Section):
    """Derivative used for the spike's step function in the backward pass."""

    name: Literal["sigmoid", "atan", "piecewise_quadratic", "rect"] = Field(
        "sigmoid", description="shape of the surrogate derivative"
    )
    alpha: Positive = Field(4.0, description="slope; sigmoid 4 (Spikformer), atan 2 (snnTorch's RLeaky)")


class RecurrentSurrogate(Section):
    """The derivatives of the recurrent layer with its defaults."""

    name: Literal["sigmoid", "atan"] = Field("atan", description="shape of the surrogate derivative")
    alpha: Positive = Field(2.0, description="slope; atan 2 gives 1 / (1 + (pi (m - threshold))^2)")


class SpikingNeuron(Section):
    """What every kind of neuron of the transformers has: thresholds, by group of layers, and a kernel."""

    v_threshold: Positive = Field(1.0, description="firing threshold")
    attn_v_threshold: Positive = Field(0.5, description="firing threshold of the layer after attention")
    tokenizer_v_threshold: Positive | None = Field(None, description="threshold in the tokenizer; null: v_threshold")
    attention_v_threshold: Positive | None = Field(
        None, description="threshold of the attention's projections; null: v_threshold"
    )
    mlp_v_threshold: Positive | None = Field(None, description="threshold in the MLPs; null: v_threshold")
    backend: Literal["auto", "torch", "native", "triton", "cuda"] = Field(
        "auto", description="kernel that runs the neurons"
    )


class ResettingNeuron(SpikingNeuron):
    """What the kinds with a plain reset and a chosen surrogate have."""

    v_reset: float | None = Field(0.0, description="hard reset value; null subtracts the threshold (soft reset)")
    detach_reset: bool = Field(True, description="no gradient through the reset")
    surrogate: Surrogate = Surrogate()


class LeakyNeuron(ResettingNeuron):
    """What the leaky kinds have: a time constant."""

    tau: float = Field(2.0, gt=1.0, description="membrane time constant in time steps; in plif where learning starts")
    decay_input: bool = Field(True, description="divide the input by tau as well")


class LifNeuron(LeakyNeuron):
    """Leaky integrate-and-fire layer: u = v + (x - v) / tau, spike where u >= v_threshold (arXiv 2209.15425)."""

    name: Literal["lif"] = "lif"


class IfNeuron(ResettingNeuron):
    """Integrate-and-fire layer without a leak: u = v + x."""

    name: Literal["if"] = "if"


class PlifNeuron(LeakyNeuron):
    """LIF with a learned time constant per layer: 1 / tau = sigmoid(w) (PLIF, arXiv 2007.05785)."""

    name: Literal["plif"] = "plif"


class KlifNeuron(LeakyNeuron):
    """LIF whose membrane is scaled by a learned k before it fires (KLIF, arXiv 2302.09238)."""

    name: Literal["klif"] = "klif"


class ClifNeuron(SpikingNeuron):
    """LIF with a complementary potential that strengthens the soft reset (CLIF, arXiv 2402.04663)."""

    name: Literal["clif"] = "clif"
    tau: float = Field(2.0, gt=1.0, description="membrane time constant in time steps")
    surrogate: Surrogate = Surrogate()


class IlifNeuron(SpikingNeuron):
    """LIF that emits 0 to 4 spikes at once and resets softly (I-LIF, arXiv 2407.20708)."""

    name: Literal["ilif"] = "ilif"
    tau: float = Field(2.0, gt=1.0, description="membrane time constant in time steps")
    detach_reset: bool = Field(True, description="no gradient through the reset")


class GlifNeuron(SpikingNeuron):
    """LIF with learned gates between leaks, resets and inputs; thresholds are starts (GLIF, arXiv 2210.13768)."""

    name: Literal["glif"] = "glif"
    v_threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.5, description="threshold that learning starts from")
    surrogate: Surrogate = Surrogate()


class PsnNeuron(SpikingNeuron):
    """Neuron without a reset that mixes all time steps by a learned matrix (PSN, arXiv 2304.12760)."""

    name: Literal["psn"] = "psn"
    surrogate: Surrogate = Surrogate()


class RecurrentLifNeuron(Section):
    """Recurrent LIF layer of the SRNN: m = beta m + I + (R s + b) - [m > threshold] (snnTorch's RLeaky)."""

    name: Literal["rlif"] = "rlif"
    beta: Fraction = Field(0.9, description="membrane decay per time step")
    v_threshold: Positive = Field(1.0, description="firing threshold, strict")
    surrogate: RecurrentSurrogate = RecurrentSurrogate()


class NoNeuron(Section):
    """No spiking layer: what an encoder alone has."""

    name: Literal["none"] = "none"


Neuron = Annotated[
    LifNeuron
    | IfNeuron
    | PlifNeuron
    | KlifNeuron
    | ClifNeuron
    | IlifNeuron
    | GlifNeuron
    | PsnNeuron
    | RecurrentLifNeuron
    | NoNeuron,
    Field(discriminator="name"),
]
