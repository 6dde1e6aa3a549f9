"""Spiking neurons."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.base import Fraction, Positive, Section


class Surrogate(Section):
    """Derivative used for the spike's step function in the backward pass."""

    name: Literal["sigmoid", "atan"] = Field("sigmoid", description="shape of the surrogate derivative")
    alpha: Positive = Field(4.0, description="slope; sigmoid 4 (Spikformer), atan 2 (snnTorch's RLeaky)")


class RecurrentSurrogate(Surrogate):
    """The same two derivatives with the defaults of the recurrent layer."""

    name: Literal["sigmoid", "atan"] = Field("atan", description="shape of the surrogate derivative")
    alpha: Positive = Field(2.0, description="slope; atan 2 gives 1 / (1 + (pi (m - threshold))^2)")


class LifNeuron(Section):
    """Leaky integrate-and-fire layer: u = v + (x - v) / tau, spike where u >= v_threshold (arXiv 2209.15425)."""

    name: Literal["lif"] = "lif"
    tau: float = Field(2.0, gt=1.0, description="membrane time constant in time steps")
    v_threshold: Positive = Field(1.0, description="firing threshold")
    attn_v_threshold: Positive = Field(0.5, description="firing threshold of the layer after attention")
    v_reset: float | None = Field(0.0, description="hard reset value; null subtracts the threshold (soft reset)")
    decay_input: bool = Field(True, description="divide the input by tau as well")
    detach_reset: bool = Field(True, description="no gradient through the reset")
    surrogate: Surrogate = Surrogate()
    backend: Literal["auto", "torch", "triton", "cuda"] = Field("auto", description="kernel that runs the neurons")


class RecurrentLifNeuron(Section):
    """Recurrent LIF layer of the SRNN: m = beta m + I + (R s + b) - [m > threshold] (snnTorch's RLeaky)."""

    name: Literal["rlif"] = "rlif"
    beta: Fraction = Field(0.9, description="membrane decay per time step")
    v_threshold: Positive = Field(1.0, description="firing threshold, strict")
    surrogate: RecurrentSurrogate = RecurrentSurrogate()


class NoNeuron(Section):
    """No spiking layer: what an encoder alone has."""

    name: Literal["none"] = "none"


Neuron = Annotated[LifNeuron | RecurrentLifNeuron | NoNeuron, Field(discriminator="name")]
