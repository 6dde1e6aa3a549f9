"""How a model is told about its neurons: one set of keyword arguments that all families share."""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack

from torch import nn

from trainers.neurons import make_neuron

Group = Literal["tokenizer", "attention", "mlp", "head"]


class NeuronOptions(TypedDict, total=False):
    """Keyword arguments of every model for its spiking layers; see `trainers.neurons.make_neuron`.

    Args:
        neuron: kind of the neurons ("lif", "plif", ...).
        tau: membrane time constant in time steps, > 1.
        v_threshold: firing threshold.
        attn_v_threshold: firing threshold of the neuron that fires on the attention product.
        tokenizer_v_threshold: threshold of the tokenizer's neurons instead of `v_threshold`.
        attention_v_threshold: the same for the neurons of the attention's projections.
        mlp_v_threshold: the same for the neurons of the MLPs.
        v_reset: value of the hard reset.
        soft_reset: subtract the threshold instead; a switch of its own because `timm.create_model` drops every None.
        decay_input: divide the input by tau as well.
        detach_reset: let no gradient through the reset.
        surrogate: shape of the surrogate derivative.
        surrogate_alpha: its slope.
        backend: kernel that runs the layers.
    """

    neuron: str
    tau: float
    v_threshold: float
    attn_v_threshold: float
    tokenizer_v_threshold: float
    attention_v_threshold: float
    mlp_v_threshold: float
    v_reset: float
    soft_reset: bool
    decay_input: bool
    detach_reset: bool
    surrogate: str
    surrogate_alpha: float
    backend: str


class Neurons:
    """Make the spiking layers of one model.

    Args:
        time_steps: time steps T, for the kinds of neurons that have parameters for each.
        detach_membrane: let no gradient go from one time step to the step before.
        options: see `NeuronOptions`.

    Raises:
        TypeError: an option is unknown.
        ValueError: an option does not fit the kind of neuron.
    """

    def __init__(
        self, time_steps: int | None = None, detach_membrane: bool = False, **options: Unpack[NeuronOptions]
    ) -> None:
        unknown = options.keys() - NeuronOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"unknown arguments: {', '.join(sorted(unknown))}")
        threshold = options.get("v_threshold", 1.0)
        self._thresholds: dict[Group, float] = {
            "tokenizer": options.get("tokenizer_v_threshold", threshold),
            "attention": options.get("attention_v_threshold", threshold),
            "mlp": options.get("mlp_v_threshold", threshold),
            "head": threshold,
        }
        self._attention_product = options.get("attn_v_threshold", 0.5)
        self._kind = options.get("neuron", "lif")
        self._tau = options.get("tau", 2.0)
        self._v_reset = None if options.get("soft_reset", False) else options.get("v_reset", 0.0)
        self._decay_input = options.get("decay_input", True)
        self._detach_reset = options.get("detach_reset", True)
        self._detach_membrane = detach_membrane
        self._surrogate = options.get("surrogate", "sigmoid")
        self._surrogate_alpha = options.get("surrogate_alpha", 4.0)
        self._backend = options.get("backend", "auto")
        self._time_steps = time_steps

    def make(self, group: Group) -> nn.Module:
        """Make a layer over [T, ...] with the threshold of its group."""
        return self.at_threshold(self._thresholds[group])

    def after_product(self) -> nn.Module:
        """Make the layer that fires on the attention product."""
        return self.at_threshold(self._attention_product)

    def at_threshold(self, v_threshold: float) -> nn.Module:
        """Make a layer with a threshold of its own."""
        return make_neuron(
            self._kind,
            tau=self._tau,
            v_threshold=v_threshold,
            v_reset=self._v_reset,
            decay_input=self._decay_input,
            detach_reset=self._detach_reset,
            detach_membrane=self._detach_membrane,
            surrogate=self._surrogate,
            surrogate_alpha=self._surrogate_alpha,
            backend=self._backend,
            time_steps=self._time_steps,
        )
