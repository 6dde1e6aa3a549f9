"""How far a run has come: position, running sums, finished epochs, and the clock."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from trainers.protocol import EpochReport


class Progress:
    """Position and measurements of a run, as they go into its checkpoints.

    Args:
        device: where the running sums are kept, so that adding to them does not wait for a GPU.
        classifies: there are right and wrong answers to count.
    """

    def __init__(self, device: torch.device, *, classifies: bool = True) -> None:
        self._classifies = classifies
        self.epoch = 0  # epochs completed
        self.step = 0  # batches done in the current epoch
        self.history: list[EpochReport] = []
        # sums over the epoch's images of loss, right answers and ones; Apple GPUs have no float64
        self._sums = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        self._started = perf_counter()
        self._seconds_before = 0.0  # of this epoch, spent before the run was continued

    def start_clock(self) -> None:
        """Begin to time what is left of the current epoch."""
        self._started = perf_counter()

    def seconds(self) -> float:
        """Return the time spent on the current epoch, in all its parts."""
        return self._seconds_before + perf_counter() - self._started

    def count(self, loss: Tensor, logits: Tensor | None, targets: Tensor) -> None:
        """Add one batch.

        Args:
            loss: scalar mean over the batch.
            logits: `[B, K]`; None where nothing is classified.
            targets: `[B]` classes or `[B, K]` probabilities; the likeliest class counts as the right answer.
        """
        self._sums[0] += loss * len(targets)
        if logits is not None:
            classes = targets if targets.ndim == 1 else targets.argmax(1)
            self._sums[1] += (logits.argmax(1) == classes).sum()
        self._sums[2] += len(targets)
        self.step += 1

    @property
    def sums(self) -> Tensor:
        """Sums over this process's images of the epoch of loss, right answers and ones, on the CPU."""
        return self._sums.cpu()

    def take_sums(self, sums: Tensor) -> None:
        """Go on from other sums than those of the checkpoint, which are the leader's."""
        self._sums.copy_(sums)

    def train_metrics(self, others: Sequence[Tensor] = ()) -> dict[str, float]:
        """Return the means over the epoch so far.

        Args:
            others: sums of the other processes that train the run.
        """
        total = self.sums
        for more in others:
            total = total + more
        loss, right, count = total.tolist()
        accuracy = {"train_accuracy": right / count} if self._classifies else {}
        return {"train_loss": loss / count, **accuracy}

    def finish_epoch(self, report: EpochReport) -> None:
        """Enter a finished epoch and start the next from nothing."""
        self.history.append(report)
        self.epoch += 1
        self.step = 0
        self._sums.zero_()
        self._seconds_before = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain values and tensors."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "seconds": self.seconds() if self.step else 0.0,
            "history": [
                {"epoch": past.epoch, "epochs": past.epochs, "metrics": past.metrics, "seconds": past.seconds}
                for past in self.history
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state of `state_dict`."""
        self.epoch, self.step = state["epoch"], state["step"]
        self._sums.copy_(state["sums"])
        self._seconds_before = state["seconds"]
        self.history = [EpochReport(**past) for past in state["history"]]
