import math

import pytest
import torch

from trainers.guards import CHECK_EVERY, FiniteGuard, check_spikes, choose_device, finite_metrics
from trainers.protocol import DeadSpikesError, DivergedError, EpochReport, SaturatedError, TrainerError


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_cpu_guard_raises_at_the_step_itself(bad: float) -> None:
    guard = FiniteGuard(torch.device("cpu"))
    guard.watch(torch.tensor(1.0), 2, 4)
    with pytest.raises(DivergedError, match="epoch 2, step 5"):
        guard.watch(torch.tensor(bad), 2, 5)


def queued_guard() -> FiniteGuard:
    """A guard that behaves as on a GPU, on tensors that live on the CPU."""
    guard = FiniteGuard(torch.device("cpu"))
    guard._on_cpu = False
    return guard


def test_gpu_guard_names_the_first_bad_step_when_asked() -> None:
    guard = queued_guard()
    for step, loss in enumerate((1.0, math.nan, 2.0, math.inf), start=1):
        guard.watch(torch.tensor(loss), 3, step)
    with pytest.raises(DivergedError, match="epoch 3, step 2"):
        guard.check(3)


def test_gpu_guard_looks_by_itself_every_so_often() -> None:
    guard = queued_guard()
    for step in range(1, CHECK_EVERY):
        guard.watch(torch.tensor(math.nan if step == 1 else 0.0), 1, step)
    with pytest.raises(DivergedError, match="epoch 1, step 1:"):
        guard.watch(torch.tensor(0.0), 1, CHECK_EVERY)


def test_metrics_that_are_not_finite_are_left_out_but_a_loss_is_a_divergence() -> None:
    assert finite_metrics({"val_loss": 1.0, "val_f1": math.nan}, 1, "val_loss") == {"val_loss": 1.0}
    with pytest.raises(DivergedError, match="val_loss is inf after epoch 4"):
        finite_metrics({"val_loss": math.inf}, 4, "val_loss")


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(TrainerError, match=r"sees .* CUDA device"):
        choose_device("cuda:99")


def epochs_with(*rates: float | None) -> list[EpochReport]:
    return [
        EpochReport(number, 9, {} if rate is None else {"val_firing_rate": rate}, 1.0)
        for number, rate in enumerate(rates, start=1)
    ]


def test_spikes_that_carry_nothing_end_a_run_after_so_many_epochs_in_a_row() -> None:
    with pytest.raises(DeadSpikesError, match=r"no spiking layer fired for 2 epoch.s. on end, epoch 3 the last"):
        check_spikes(epochs_with(0.2, 0.0, 0.0), epochs=2, grace=0)
    with pytest.raises(SaturatedError, match="every spiking layer fired at every step for 1 epoch"):
        check_spikes(epochs_with(1.0), epochs=1, grace=0)


@pytest.mark.parametrize(
    ("rates", "epochs", "grace"),
    [
        ((0.0, 0.0, 0.0), None, 0),  # switched off
        ((0.0, 0.0), 2, 1),  # within the grace
        ((0.0, 0.1, 0.0), 2, 0),  # not on end
        ((0.0, 1.0), 2, 0),  # neither dead nor saturated
        ((None, None), 2, 0),  # a model without spiking layers
        ((1e-6, 1e-6, 0.999), 1, 0),
        ((), 1, 0),
    ],
)
def test_spikes_that_carry_something_do_not(rates: tuple[float | None, ...], epochs: int | None, grace: int) -> None:
    check_spikes(epochs_with(*rates), epochs=epochs, grace=grace)


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for name, numbers in (("auto", (0, 1)), ("cuda", (0, 1)), ("cuda:2,0", (2, 0))):
        assert [choose_device(name, process, 2) for process in (0, 1)] == [torch.device("cuda", n) for n in numbers]
    assert choose_device("cpu", 1, 2) == torch.device("cpu")
    assert choose_device("cuda:2,0") == torch.device("cuda:2")  # a measurement takes the first
    with pytest.raises(TrainerError, match=r"'cuda:3' but torch sees 3 .*lower training\.processes"):
        choose_device("auto", 3, 4)
