"""Metrics against hand numbers and scikit-learn, and firing rates through hooks."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor, nn

from configs.metrics import METRICS, is_metric
from trainers import metrics
from trainers.energy import EnergyMeter
from trainers.metrics import EvaluationMetrics, FiringRates
from trainers.models import StalSrnn
from trainers.neurons import RecurrentLif, make_lif


def one_hot_logits(predictions: list[int], classes: int) -> Tensor:
    return nn.functional.one_hot(torch.tensor(predictions), classes).float()


def add(
    to: EvaluationMetrics, predictions: list[int], targets: Tensor, embeddings: Tensor | None = None, loss: float = 0.0
) -> None:
    spikes = torch.zeros(2, len(predictions), 1) if embeddings is None else embeddings
    to.update(one_hot_logits(predictions, to.num_classes), targets, spikes, torch.tensor(loss))


def test_where_nothing_is_classified_loss_and_sparsities_are_left() -> None:
    measured = EvaluationMetrics(None)
    measured.update(None, torch.tensor([0, 1]), torch.ones(2, 2, 3), torch.tensor(1.0))
    measured.update(None, torch.tensor([0]), torch.zeros(2, 1, 3), torch.tensor(4.0))
    found = measured.compute()
    assert list(found) == ["loss", *metrics.SPARSITIES]
    assert (found["loss"], found["spike_density"]) == (pytest.approx(2.0), pytest.approx(2 / 3))


# --- classification ---------------------------------------------------------------------------------------------------


def test_classification_by_hand() -> None:
    measured = EvaluationMetrics(3)
    add(measured, [0, 1], torch.tensor([0, 0]))
    add(measured, [1, 1], torch.tensor([1, 1]))
    found = measured.compute()
    assert found["accuracy"] == 0.75
    assert found["precision"] == pytest.approx((1 + 2 / 3) / 2)  # class 2 never occurs and is left out
    assert found["recall"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_classification_equals_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 6, (200,), generator=generator)
    predictions = torch.where(torch.rand(200, generator=generator) < 0.6, targets, targets.flip(0)) % 5
    measured = EvaluationMetrics(6)
    for some, wanted in zip(predictions.split(64), targets.split(64), strict=True):
        add(measured, some.tolist(), wanted)
    found = measured.compute()
    reference = precision_recall_fscore_support(targets, predictions, average="macro", zero_division=0)
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(reference[:3])
    assert found["accuracy"] == pytest.approx((targets == predictions).double().mean().item())


def test_soft_targets_count_by_their_largest_share() -> None:
    measured = EvaluationMetrics(2)
    add(measured, [0, 1], torch.tensor([[0.7, 0.3], [0.6, 0.4]]))
    assert measured.compute()["accuracy"] == 0.5


def test_batches_weigh_by_their_samples() -> None:
    measured = EvaluationMetrics(2)
    add(measured, [0] * 3, torch.zeros(3, dtype=torch.long), torch.ones(4, 3, 2), loss=1.0)
    add(measured, [0], torch.zeros(1, dtype=torch.long), torch.zeros(4, 1, 2), loss=3.0)
    found = measured.compute()
    assert found["loss"] == pytest.approx(1.5)
    assert found["spike_density"] == pytest.approx(0.75)
    assert found["temporal_sparsity"] == pytest.approx(3.0)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="the split is empty"):
        EvaluationMetrics(2).compute()


# --- sparsity ---------------------------------------------------------------------------------------------------------


def test_sparsities_by_hand() -> None:
    embeddings = torch.tensor([[[0.9, 0.5]], [[0.6, 0.0]]])  # [T=2, B=1, 2]
    assert metrics.spike_density(embeddings).item() == pytest.approx(0.5)
    assert metrics.binary_sparsity(embeddings).item() == 0.5  # 0.5 itself is no spike
    assert metrics.temporal_sparsity(embeddings).item() == 1.0  # two spikes in one of two places
    l2 = math.sqrt(0.81 + 0.25 + 0.36)
    assert metrics.activation_sparsity(embeddings).item() == pytest.approx(1 - 2.0 / (l2 * 2))


def test_temporal_sparsity_depends_on_the_layout() -> None:
    embeddings = torch.ones(5, 8, 3)
    assert metrics.temporal_sparsity(embeddings).item() == 5
    assert metrics.temporal_sparsity(embeddings.transpose(0, 1)).item() == 8  # batch first: over the batch


def test_no_spikes_are_as_sparse_as_can_be() -> None:
    assert metrics.activation_sparsity(torch.zeros(2, 3)).item() == 1.0
    assert metrics.activation_sparsity(torch.ones(2, 3)).item() == pytest.approx(0.0, abs=1e-6)


def test_metrics_do_not_keep_the_graph() -> None:
    measured, embeddings = EvaluationMetrics(2), torch.ones(2, 2, 1, requires_grad=True)
    add(measured, [0, 1], torch.tensor([0, 1]), embeddings)
    assert measured._sums is not None
    assert not measured._sums.requires_grad


# --- firing rates -----------------------------------------------------------------------------------------------------


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lif = make_lif(tau=2.0)
        self.unused = make_lif()
        self.recurrent = RecurrentLif(2)
        nn.init.zeros_(self.recurrent.recurrent.weight)
        nn.init.zeros_(self.recurrent.recurrent.bias)

    def forward(self, x: Tensor) -> Tensor:
        spikes, _ = self.recurrent(2 * self.lif(x))
        return spikes.sum(0)


def test_firing_rates_by_hand() -> None:
    model = TwoLayers()
    always, never = torch.full((4, 3, 2), 2.0), torch.zeros(4, 1, 2)
    with FiringRates(model) as rates:
        model(always)
        model(never)
    model(always)  # after the block: not counted
    found = rates.compute()
    assert found.keys() == {"firing_rate", "firing_rate.lif", "firing_rate.recurrent"}
    assert found["firing_rate.lif"] == pytest.approx(0.75)  # 24 of 32 values
    assert found["firing_rate"] == pytest.approx((found["firing_rate.lif"] + found["firing_rate.recurrent"]) / 2)
    assert found["firing_rate.recurrent"] == pytest.approx(0.75)


def test_firing_rates_stop_to_watch_after_an_error() -> None:
    model = TwoLayers()
    with pytest.raises(RuntimeError, match="stop"), FiringRates(model) as rates:
        raise RuntimeError("stop")
    model(torch.ones(2, 1, 2))
    assert rates.compute() == {}


def test_all_names_are_declared() -> None:
    model = StalSrnn(img_size=8, encoder_kwargs={"hidden_channels": 4})
    measured = EvaluationMetrics(10)
    with FiringRates(model) as rates, EnergyMeter(model) as energy, torch.inference_mode():
        logits, embeddings = model(torch.rand(3, 1, 8, 8), return_embeddings=True)
        measured.update(logits, torch.tensor([1, 2, 3]), embeddings.transpose(0, 1), torch.tensor(1.0))
    found = {f"val_{name}" for name in {**measured.compute(), **rates.compute(), **energy.compute()}}
    assert all(is_metric(name) for name in found)
    assert {name for name in METRICS if name.startswith("val_")} <= found
