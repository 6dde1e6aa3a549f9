"""Guards of the training loop: what ends a run before its time, and the device it asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.protocol import DeadSpikesError, DivergedError, EpochReport, SaturatedError, TrainerError

_ROUNDING = 1e-9  # of a mean of means
CHECK_EVERY = 32  # steps between two looks at a GPU's flag; each look waits for the GPU once


class FiniteGuard:
    """Watch the loss of every step and raise at the first that is NaN or infinite.

    On a CPU each loss is looked at at once. On a GPU that would stall the queue every step, so the number of the first
    bad step stays on the device and is fetched every `CHECK_EVERY` steps and before anything is saved.

    Args:
        device: where the losses live.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self._watched = 0

    def watch(self, loss: Tensor, epoch: int, step: int) -> None:
        """Take note of one step's loss.

        Args:
            loss: scalar.
            epoch: 1-based epoch the step belongs to.
            step: 1-based number of the step within its epoch.

        Raises:
            DivergedError: this loss is not finite, or one since the last look was not.
        """
        if self._on_cpu:
            if not math.isfinite(loss.item()):
                raise _diverged(epoch, step)
            return
        fresh = ~torch.isfinite(loss.detach()) & (self._first_bad < 0)
        self._first_bad = torch.where(fresh, step, self._first_bad)
        self._watched += 1
        if self._watched % CHECK_EVERY == 0:
            self.check(epoch)

    def check(self, epoch: int) -> None:
        """Fetch the flag; call it before saving or validating what the steps have made.

        Raises:
            DivergedError: a loss since the last look was not finite.
        """
        if not self._on_cpu and (step := int(self._first_bad.item())) >= 0:
            raise _diverged(epoch, step)


def _diverged(epoch: int, step: int) -> DivergedError:
    return DivergedError(
        f"the training loss became NaN or infinite in epoch {epoch}, step {step}: try a lower optimizer.learning_rate, "
        "set training.clip_grad_norm, or use training.amp=bf16 or off in place of fp16"
    )


def finite_metrics(metrics: dict[str, float], epoch: int, loss_name: str) -> dict[str, float]:
    """Return the finite metrics; a loss that is not finite means the run has diverged.

    Args:
        metrics: name to value.
        epoch: 1-based epoch they were measured in.
        loss_name: the metric that must be finite.

    Raises:
        DivergedError: `metrics[loss_name]` is NaN or infinite.
    """
    if not math.isfinite(metrics[loss_name]):
        raise DivergedError(f"{loss_name} is {metrics[loss_name]} after epoch {epoch}: the weights have diverged")
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def check_spikes(history: Sequence[EpochReport], epochs: int | None, grace: int) -> None:
    """Raise when no spiking layer has carried any information for some epochs on end.

    Args:
        history: the finished epochs, the first one first; `val_firing_rate` is what counts.
        epochs: how many of them in a row must be dead or saturated; None switches the guard off.
        grace: first epochs that do not count.

    Raises:
        DeadSpikesError: every spiking layer was silent on the whole validation split.
        SaturatedError: every neuron of every spiking layer fired at every time step.
    """
    if epochs is None or len(history) - grace < epochs:
        return
    rates = [report.metrics.get("val_firing_rate") for report in history[-epochs:]]
    told = f"for {epochs} epoch(s) on end, epoch {history[-1].epoch} the last (training.spike_guard_epochs)"
    if all(rate is not None and rate <= 0.0 for rate in rates):
        raise DeadSpikesError(f"no spiking layer fired {told}: try a lower neuron.v_threshold")
    if all(rate is not None and rate >= 1.0 - _ROUNDING for rate in rates):
        raise SaturatedError(f"every spiking layer fired at every step {told}: try a higher neuron.v_threshold")


def choose_device(name: str, process: int = 0, processes: int = 1) -> torch.device:
    """Return the device a configuration asks for; `auto` is the current CUDA device, or the CPU where there is none.

    Several processes take the GPUs that are named ("cuda:0,2") or the first ones, each one of its own.

    Args:
        name: the configuration's `training.device`.
        process: number of this process among those that train the run.
        processes: how many these are.

    Raises:
        TrainerError: the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, numbers = name.partition(":")
    if processes > 1 and name == "cuda":
        numbers = ",".join(map(str, range(processes)))
    if numbers:
        name = f"{kind}:{numbers.split(',')[process]}"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise TrainerError(
                f"training.device is '{name}' but torch sees {count} CUDA device(s): use 'auto' or 'cpu'"
                f"{', lower training.processes (one GPU each)' if processes > 1 else ''}, or check "
                "CUDA_VISIBLE_DEVICES and that torch was installed for this driver (`spikebench doctor`)"
            )
        return torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise TrainerError("training.device is 'mps' but torch sees no Apple GPU: use 'auto' or 'cpu'")
    return device
