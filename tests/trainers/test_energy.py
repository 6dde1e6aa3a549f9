"""Energy is counted right; each counting mistake that published code or threads show has a test of its own."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trainers.models  # noqa: F401  # registers the models with timm, which it makes importable

# isort: split
from spiking_models import lively, pictures

from spikingjelly.activation_based.op_counter import DispatchCounterMode, MACCounter, SynOpCounter

from trainers.energy import COST_TABLES, EnergyMeter, LayerEnergy, write_table
from trainers.models.attention import QkTokenAttention, SpikeDrivenSelfAttention, SpikingSelfAttention
from trainers.models.layers import SpikeProduct
from trainers.models.neuron_options import Neurons
from trainers.neurons import RecurrentLif, make_lif

AC, MAC = 0.9e-6, 4.6e-6  # uJ


class Net(nn.Module):
    """Images [B, 1, 4, 4] to spikes of a 3 x 3 convolution, then to a linear layer, over T steps."""

    def __init__(self, time_steps: int = 3) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.abs_()  # so that something fires
        self.lif = make_lif(v_threshold=0.5)
        self.fc = nn.Linear(32, 5)
        self.spikes: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        x = images.expand(self.time_steps, *images.shape).flatten(0, 1)
        spikes = self.lif(self.conv(x).view(self.time_steps, len(images), 2, 4, 4))
        self.spikes.append(spikes)
        out: Tensor = self.fc(spikes.flatten(2)).mean(0)
        return out


def measured(
    model: nn.Module, *batches: Tensor, cost_table: str = "45nm_fp32"
) -> tuple[EnergyMeter, dict[str, LayerEnergy]]:
    meter = EnergyMeter(model, cost_table, events=True)
    with meter, torch.no_grad():
        for batch in batches:
            model(batch)
    return meter, {layer.layer: layer for layer in meter.layers()}


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.01


def test_two_layers_counted_by_hand(images: Tensor) -> None:
    torch.manual_seed(0)
    net = Net()
    meter, layers = measured(net, images)
    spikes = float(torch.cat(net.spikes).sum()) / len(images)
    assert spikes > 0
    assert layers["conv"].macs == 3 * 2 * 16 * 9  # T, output channels, positions, 3 x 3 weights
    assert layers["conv"].sop == 0
    assert layers["fc"].sop == pytest.approx(spikes * 5)
    assert layers["fc"].macs == 0
    totals = meter.compute()
    assert totals["energy_uj"] == pytest.approx(864 * MAC + spikes * 5 * AC)
    assert totals["sop"] == pytest.approx(spikes * 5)
    assert totals["macs"] == 864


def test_the_spikes_that_enter_count_not_those_that_leave(images: Tensor) -> None:
    """Mistake 1: the rate of a layer's own output instead of what enters the next weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 4, 1))
    spikes = (images > 0.9).float()
    _, layers = measured(net, spikes)
    assert layers["0"].spikes == pytest.approx(float(spikes.sum()) / len(images))
    entering_second = net[0](spikes).detach()
    assert layers["1"].spiking == bool((entering_second.frac() == 0).all())
    assert not layers["1"].spiking


def test_the_mean_is_over_everything_that_ran(images: Tensor) -> None:
    """Mistake 2: a rate of one image, or of one made up."""
    torch.manual_seed(0)
    net = Net()
    together, _ = measured(net, images)
    apart, _ = measured(net, images[:1], images[1:3], images[3:])
    assert apart.compute() == pytest.approx(together.compute())
    only_first, _ = measured(net, images[:1])
    assert only_first.compute()["sop"] != pytest.approx(together.compute()["sop"])


def test_every_weight_layer_is_counted(images: Tensor) -> None:
    """Mistake 3: weights silently missing while one measures."""
    _, layers = measured(Net(), images)
    assert set(layers) == {"conv", "fc"}
    assert all(layer.inputs > 0 for layer in layers.values())


def test_pixels_cost_multiplications_in_every_time_step(images: Tensor) -> None:
    """Mistake 4: the first convolution of real pixels as accumulations, or once although it runs T times."""
    _, one = measured(Net(time_steps=1), images)
    _, four = measured(Net(time_steps=4), images)
    assert one["conv"].macs > 0
    assert one["conv"].sop == 0
    assert four["conv"].macs == 4 * one["conv"].macs
    _, events = measured(Net(), (images * 3).round())  # event counts are spikes
    assert events["conv"].macs == 0
    assert events["conv"].sop > 0


def test_a_shared_computation_counts_as_often_as_it_stands_for(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1))
    _, once = measured(net, images)
    net[0].repeats = 4  # type: ignore[assignment]
    _, shared = measured(net, images)
    assert shared["0"].macs == 4 * once["0"].macs


def test_q_k_and_v_have_counts_of_their_own() -> None:
    """Mistake 5: one mean rate for all three in the attention."""
    q, k, v = (torch.zeros(1, 1, 1, 2, 3) for _ in range(3))  # [T, B, heads, d, N]
    q[..., 0, 0] = q[..., 1, 2] = 1
    k[..., 0, :] = 1
    v[..., 1, :2] = 1
    product = SpikingSelfAttention(Neurons(), 0.125)
    # q k^T: the spike of q in channel 0 meets 3 spikes of k, the one in channel 1 none; token 0 then adds v of
    # the three tokens it looks at: 2 spikes
    assert float(product.accumulations(q, k, v)) == 3 + 2
    assert float(product.accumulations(k, q, v)) != float(product.accumulations(v, k, q))
    assert float(SpikeDrivenSelfAttention(Neurons()).accumulations(q, k, v)) == 0  # k and v never fire together
    assert float(QkTokenAttention(Neurons()).accumulations(q, k)) == 2


def test_sums_of_spikes_are_one_event_and_several_units() -> None:
    """Mistake 6: a residual sum of 2 or 3 counted as one spike."""
    x = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    _, layers = measured(nn.Sequential(nn.Linear(4, 10)), x)
    assert (layers["0"].events, layers["0"].spikes, layers["0"].sop) == (3, 6, 60)


def test_what_is_left_out_is_said(images: Tensor) -> None:
    """Mistake 7: normalisation, pooling and shortcuts left out without a word."""
    import trainers.energy as module

    assert module.__doc__ is not None
    for word in ("batch normalisation", "pooling", "shortcuts", "membranes", "memory"):
        assert word in module.__doc__
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.MaxPool2d(2)).eval()
    bare = nn.Sequential(net[0])
    assert measured(net, images)[0].compute() == measured(bare, images)[0].compute()


def test_energy_is_a_matter_of_the_cost_table_not_of_spikes_alone(images: Tensor) -> None:
    """Mistake 8: the number of spikes sold as power."""
    torch.manual_seed(0)
    net = Net()
    dear, _ = measured(net, images)
    cheap, _ = measured(net, images, cost_table="45nm_int8")
    assert cheap.compute()["sop"] == dear.compute()["sop"]
    assert cheap.compute()["energy_uj"] < dear.compute()["energy_uj"] / 10
    assert COST_TABLES["45nm_fp32"].mac_pj == pytest.approx(4.6)
    with pytest.raises(ValueError, match="unknown cost table '45nm_fp23'; did you mean '45nm_fp32'"):
        EnergyMeter(net, "45nm_fp23")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, 3, stride=2),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=2),
        nn.Conv2d(4, 6, 1, stride=4),
        nn.Conv1d(4, 6, 5, padding=2),
        nn.Linear(8, 3),
    ],
    ids=str,
)
def test_operations_equal_spikingjellys_counters(layer: nn.Module) -> None:
    spikes = (torch.rand(3, 4, 9, 8, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    spikes = spikes[:, :, 0] if isinstance(layer, nn.Conv1d) else spikes
    _, layers = measured(nn.Sequential(layer), spikes)
    counter = SynOpCounter()
    with DispatchCounterMode([counter]), torch.no_grad():
        layer(spikes)
    assert layers["0"].sop * len(spikes) == pytest.approx(counter.get_total())
    _, layers = measured(nn.Sequential(layer), spikes + 0.25)
    counter = MACCounter()
    with DispatchCounterMode([counter]), torch.no_grad():
        layer(spikes + 0.25)
    assert layers["0"].macs * len(spikes) == pytest.approx(counter.get_total())


def test_recurrent_weights_see_the_spikes_that_return() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rlif = RecurrentLif(4, v_threshold=0.5)
            self.spikes = torch.empty(0)

        def forward(self, current: Tensor) -> Any:
            self.spikes, membrane = self.rlif(current.transpose(0, 1))
            return membrane

    net = Recurrent()
    _, layers = measured(net, torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(2)))
    assert set(layers) == {"rlif"}
    assert layers["rlif"].sop == float(net.spikes[:-1].sum()) * 4 / 2
    assert layers["rlif"].sop > 0


def test_nothing_that_ran_is_an_error() -> None:
    meter = EnergyMeter(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no image has run"):
        meter.compute()


def test_the_table_has_a_line_per_layer(images: Tensor, tmp_path: Path) -> None:
    meter, layers = measured(Net(), images)
    write_table(meter.layers(), tmp_path / "energy.csv")
    with (tmp_path / "energy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["conv", "fc"]
    assert float(rows[0]["macs"]) == layers["conv"].macs


FAMILIES: dict[str, dict[str, Any]] = {
    "spikformer_cifar": {},
    "spikformer_dvs": {"in_channels": 3},
    "sdt": {},
    "qkformer_cifar": {"depth": 3},
    "qkformer_dvs": {"in_channels": 3},
    "tim": {"in_channels": 3},
    "spikingformer_cifar": {},
}
TIME_STEPS = 3


def small(name: str) -> tuple[nn.Module, Tensor]:
    """Return a small model of a family that fires in every layer, and images for it."""
    sizes = {"img_size": 16, "patch_size": 4, "embed_dims": 32, "depth": 2, "num_heads": 4, "time_steps": TIME_STEPS}
    return lively(name, **{**sizes, **FAMILIES[name]}), pictures(16)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_layer_of_a_family_is_counted(name: str) -> None:
    model, images = small(name)
    _, layers = measured(model, images)
    weights = {n for n, m in model.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)}
    products = {n for n, m in model.named_modules() if isinstance(m, SpikeProduct)}
    dead = {n for n in weights if "talking_heads" in n}
    assert products
    assert set(layers) == weights | products
    assert {name for name, layer in layers.items() if layer.inputs == 0} == dead
    first = next(n for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    head = {"head"} if name != "sdt" else set()  # a mean over tokens is no spike; SDT's head has neurons of its own
    assert {n for n, layer in layers.items() if not layer.spiking} == {first} | head
    conv = model.get_submodule(first)
    assert layers[first].macs == TIME_STEPS * conv.weight.numel() * 16 * 16


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_energy_does_not_depend_on_the_order_of_execution(name: str) -> None:
    model, images = small(name)
    by_layer, _ = measured(model, images)
    model.step_by_step = True
    by_step, _ = measured(model, images)
    assert by_step.compute() == pytest.approx(by_layer.compute())


def test_the_operations_of_a_whole_model_equal_spikingjellys_counter() -> None:
    """SDT alone sends nothing but zeros and ones into its weights, which is all that spikingjelly counts."""
    model, images = small("sdt")
    _, layers = measured(model, images)
    counter = SynOpCounter()
    with DispatchCounterMode([counter]), torch.no_grad():
        model(images)
    ours = sum(layer.sop for layer in layers.values() if layer.kind == "weights")
    assert ours > 0
    assert ours * len(images) == pytest.approx(counter.get_total())
