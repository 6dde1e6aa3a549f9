"""Energy of inference: the spikes that enter every weight layer, the operations they cause, and what those cost.

Counted, per image and over everything that runs through the model inside the `with` block:

- a weight layer whose input is spikes (whole numbers): one accumulation (AC) per unit of spike and synapse it really
  reaches, padding and stride looked at. A value of 2, a sum of two spikes, is two units and one event.
- a weight layer whose input is not: one multiply-accumulation (MAC) per weight and position, in every time step. The
  first convolution of a static image runs T times under direct coding and is counted T times, also where a
  computation is shared.
- products of spikes in attention, by each product's own count; recurrent weights, by the spikes that return.

Left out, as in the papers' formulas: batch normalisation (folded into the weights), pooling, additions of shortcuts,
updates of membranes, and memory traffic. A count of spikes is no power; only a cost table makes it an energy.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from configs.problems import did_you_mean
from trainers.models.layers import SpikeProduct
from trainers.neurons import RecurrentLif

PJ_PER_UJ = 1e6


@dataclass(frozen=True, slots=True)
class CostTable:
    """Energy of one operation.

    Args:
        mac_pj: of a multiply-accumulation, in pJ.
        ac_pj: of an accumulation, in pJ.
        source: where the numbers are from.
    """

    mac_pj: float
    ac_pj: float
    source: str


_HOROWITZ = "45 nm, 0.9 V; Horowitz, Computing's energy problem, ISSCC 2014, figure 1.1.9"
COST_TABLES = {
    "45nm_fp32": CostTable(3.7 + 0.9, 0.9, _HOROWITZ),
    "45nm_fp16": CostTable(1.1 + 0.4, 0.4, _HOROWITZ),
    "45nm_int8": CostTable(0.2 + 0.03, 0.03, _HOROWITZ),
}


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """What one layer did, per image and over all time steps.

    Args:
        layer: name of the module.
        kind: `weights`, `product` (of spikes) or `recurrent`.
        spiking: its input was spikes.
        inputs: values that entered it.
        events: of them not zero; NaN where they were not counted.
        spikes: their sum, a value of 2 counting twice; NaN where the input was no spikes.
        sop: synaptic operations, each an accumulation.
        macs: multiply-accumulations.
        energy_uj: energy in uJ.
    """

    layer: str
    kind: str
    spiking: bool
    inputs: float
    events: float
    spikes: float
    sop: float
    macs: float
    energy_uj: float


class _Sums:
    """Running sums of one layer, on the device: nothing waits for them before they are read."""

    def __init__(self, kind: str, events: bool) -> None:
        self.kind = kind
        self.inputs = 0
        self.macs = 0.0
        self._events = events
        self._found: Tensor | None = None  # events, spikes, accumulations
        self._broken: Tensor | None = None  # values of the first call that are no whole number

    def add(self, x: Tensor, spikes: Tensor, accumulations: Tensor, macs: float, repeats: int = 1) -> None:
        """Add one call; whether a layer's input is spikes is looked at in the first one."""
        if self._broken is None:
            self._broken = x.frac().count_nonzero()
        events = x.count_nonzero() if self._events else spikes.new_full((), torch.nan)
        counted = torch.stack([_wide(value) for value in (events, spikes, accumulations)]) * repeats
        self._found = counted if self._found is None else self._found + counted
        self.inputs += x.numel() * repeats
        self.macs += macs * repeats

    def read(self, layer: str, images: int, costs: CostTable) -> LayerEnergy:
        """Return the means per image."""
        events, spikes, sop = (0.0,) * 3 if self._found is None else self._found.tolist()
        spiking = self._broken is None or int(self._broken) == 0
        sop, macs = (sop / images, 0.0) if spiking else (0.0, self.macs / images)
        return LayerEnergy(
            layer=layer,
            kind=self.kind,
            spiking=spiking,
            inputs=self.inputs / images,
            events=events / images,
            spikes=spikes / images if spiking else float("nan"),
            sop=sop,
            macs=macs,
            energy_uj=(sop * costs.ac_pj + macs * costs.mac_pj) / PJ_PER_UJ,
        )


class EnergyMeter:
    """Measure a model while it runs inside the `with` block.

    Args:
        model: called with images [B, C, H, W] or clips [B, T, C, H, W].
        cost_table: a name in `COST_TABLES`.
        events: count the values that are not zero, too, which costs as much as all the rest; else they are NaN.

    Raises:
        ValueError: there is no such cost table.
    """

    def __init__(self, model: nn.Module, cost_table: str = "45nm_fp32", *, events: bool = False) -> None:
        if cost_table not in COST_TABLES:
            raise ValueError(f"unknown cost table '{cost_table}'; {did_you_mean(cost_table, sorted(COST_TABLES))}")
        self._model = model
        self._costs = COST_TABLES[cost_table]
        self._events = events
        self._images = 0
        self._sums: dict[str, _Sums] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        """Start to count."""
        self._handles.append(self._model.register_forward_pre_hook(self._count_images))
        returning = {
            f"{name}.recurrent" for name, layer in self._model.named_modules() if isinstance(layer, RecurrentLif)
        }
        for name, layer in self._model.named_modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) and name not in returning:
                self._watch(name, "weights", layer, _weights)
            elif isinstance(layer, SpikeProduct):
                self._watch(name, "product", layer, _product)
            elif isinstance(layer, RecurrentLif):
                self._watch(name, "recurrent", layer, _recurrent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to count."""
        while self._handles:
            self._handles.pop().remove()

    def layers(self) -> list[LayerEnergy]:
        """Return what each layer did, per image, in the order of the model's modules.

        Raises:
            ValueError: nothing has run.
        """
        if not self._images:
            raise ValueError("no image has run through the model: there is no energy to tell")
        return [sums.read(name, self._images, self._costs) for name, sums in self._sums.items()]

    def compute(self) -> dict[str, float]:
        """Return the totals per image: `energy_uj`, `sop` and `macs`.

        Raises:
            ValueError: nothing has run.
        """
        layers = self.layers()
        return {name: sum(getattr(layer, name) for layer in layers) for name in ("energy_uj", "sop", "macs")}

    def _watch(self, name: str, kind: str, layer: nn.Module, count: Any) -> None:
        sums = self._sums[name] = _Sums(kind, self._events)
        self._handles.append(
            layer.register_forward_hook(lambda module, args, output: count(sums, module, args, output))
        )

    def _count_images(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._images += len(args[0])


def write_table(layers: Iterable[LayerEnergy], path: Path) -> None:
    """Write what each layer did as a CSV file, one line per layer and a head with the names of the columns.

    Args:
        layers: of `EnergyMeter.layers`.
        path: the file; its folder must be there.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(LayerEnergy)])
        writer.writeheader()
        writer.writerows(asdict(layer) for layer in layers)


def _wide(value: Tensor) -> Tensor:
    """Return a number or a few in the type that counts are kept in."""
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)


def _total(x: Tensor) -> Tensor:
    """Return the sum of small whole numbers: exact where it is summed along the last axis in single precision."""
    return _wide(x.sum(-1, dtype=torch.float32)).sum()


def _weights(sums: _Sums, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
    x = args[0].detach()
    repeats = getattr(layer, "repeats", 1)  # time steps that share one computation
    if isinstance(layer, nn.Linear):
        spikes = _total(x)
        sums.add(x, spikes, spikes * layer.out_features, float(x.numel() * layer.out_features), repeats)
        return
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    # Summed over images and channels in single precision, several times as fast as in double and as exact below 2^24
    per_position = _wide(x.sum((0, 1), dtype=torch.float32))
    reached = (per_position * _reach(layer, x, output)).sum() * (layer.out_channels // layer.groups)
    kernel = layer.weight[0, 0].numel()
    macs = float(output.numel() * kernel * (layer.in_channels // layer.groups))
    sums.add(x, per_position.sum(), reached, macs, repeats)


def _reach(layer: nn.Conv1d | nn.Conv2d, x: Tensor, output: Tensor) -> Tensor:
    """Return how many output positions each input position takes part in: [H, W] or [L]."""
    transposed = F.conv_transpose1d if isinstance(layer, nn.Conv1d) else F.conv_transpose2d
    padding = tuple(pad for pad in layer.padding if isinstance(pad, int))
    sides = zip(x.shape[2:], layer.kernel_size, layer.stride, padding, layer.dilation, strict=True)
    left = [(side + 2 * pad - step * (size - 1) - 1) % stride for side, size, stride, pad, step in sides]
    ones = x.new_ones(1, 1, *output.shape[2:])
    kernel = x.new_ones(1, 1, *layer.kernel_size)
    reach = transposed(
        ones,
        kernel,
        stride=layer.stride,
        padding=padding,
        output_padding=tuple(left),
        dilation=layer.dilation,
    )
    return reach.view(x.shape[2:])


def _product(sums: _Sums, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    assert isinstance(layer, SpikeProduct)
    inputs = [x.detach() for x in args]
    together = torch.stack(inputs)
    sums.add(together, _total(together), layer.accumulations(*inputs), 0.0)


def _recurrent(sums: _Sums, layer: nn.Module, args: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    del args
    assert isinstance(layer, RecurrentLif)
    returning = output[0].detach()[:-1]  # the last step's spikes [B, H] come back to nobody
    size, spikes = layer.recurrent.out_features, _total(returning)
    sums.add(returning, spikes, spikes * size, float(returning.numel() * size))
