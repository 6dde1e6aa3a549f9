"""Several processes that train one run together, each on its slice of every batch (torch's DistributedDataParallel)."""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.determinism import isolated_rng
from trainers.processes import Helpers
from trainers.protocol import TrainerError

FOREVER = timedelta(days=7)  # a process that dies is noticed at once, one that hangs by `training.hang_seconds`
# The older of the two names warns where there is the newer.
_NAMES = ("forward_sync_buffers", "broadcast_buffers")
_OWN_BUFFERS: dict[str, Any] = {
    next(name for name in _NAMES if name in inspect.signature(DistributedDataParallel).parameters): False
}
_T = TypeVar("_T")


class Team:
    """The processes of a run, as one of them sees them; all of them call the same methods in the same order.

    Args:
        number: of this process; 0 leads: it alone asks, measures, reports and saves.
        size: how many there are.
    """

    def __init__(self, number: int = 0, size: int = 1) -> None:
        self.number = number
        self.size = size
        self._gpus: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this process decides for all."""
        return self.number == 0

    def threads_of(self, threads: int | None) -> int | None:
        """Return the CPU threads of this process, of all threads that the run may use; None leaves them to torch.

        Args:
            threads: of the whole run; None for those of the machine.
        """
        if self.size == 1:
            return threads
        return max(1, (torch.get_num_threads() if threads is None else threads) // self.size)

    def decide(self, choice: int) -> int:
        """Return the leader's number in all processes.

        Args:
            choice: the leader's; of no meaning in the others.
        """
        if self.size == 1:
            return choice
        told = torch.tensor(choice)
        dist.broadcast(told, 0)
        return int(told)

    def share(self, value: Any) -> Any:
        """Return the leader's value in all processes.

        Args:
            value: the leader's; of no meaning in the others.
        """
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, 0)
        return box[0]

    def gather(self, value: _T) -> list[_T]:
        """Return the values of all processes to the leader, and nothing to the others.

        Args:
            value: this process's.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.gather_object(value, values if self.leads else None, 0)
        return values if self.leads else []

    def in_turn(self, make: Callable[[], _T]) -> _T:
        """Return what a function makes in each process, in the leader first: it may download or cache files."""
        made = make() if self.leads else None
        if self.size > 1:
            dist.barrier()
        return cast("_T", made) if self.leads else make()

    def replicate(self, step: nn.Module, batch: tuple[Tensor, Tensor, int]) -> nn.Module:
        """Return a step whose backward pass leaves the mean gradient of all processes in each of them.

        Statistics of normalisation stay each process's own: they are those of its slice.

        Args:
            step: called with a batch, returns the loss first; parameters and buffers become those of the leader.
            batch: images, targets and epoch of a first step, with which parameters are found that take no part.
        """
        if self.size == 1:
            return step
        device = batch[0].device
        if device.type == "cuda":
            self._gpus = dist.new_group(backend="nccl", timeout=FOREVER)
        replica = DistributedDataParallel(
            step,
            device_ids=[device] if device.type == "cuda" else None,
            process_group=self._gpus,
            **_OWN_BUFFERS,
            find_unused_parameters=_some_are_idle(step, batch),
        )
        if device.type == "cpu":
            replica.register_comm_hook(None, lambda _, bucket: _mean_in_order(bucket))
        return replica

    def adding_up(self, step: nn.Module, *, complete: bool) -> AbstractContextManager[None]:
        """Return a context for a batch whose gradients are only exchanged where they complete an update."""
        if complete or not isinstance(step, DistributedDataParallel):
            return nullcontext()
        return cast("AbstractContextManager[None]", step.no_sync())

    def meet(self, folder: Path) -> None:
        """Connect this process with the others.

        Args:
            folder: a private one, the same for all.
        """
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are here, whatever this machine's name resolves to
        place = f"file://{folder / 'meeting'}"
        dist.init_process_group("gloo", init_method=place, rank=self.number, world_size=self.size, timeout=FOREVER)

    def part(self) -> None:
        """Give up the connections to the others."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def abort(self) -> None:
        """Have what waits on a GPU for a process that has failed fail too; elsewhere its closed connections do so."""
        if self._gpus is not None:
            self._gpus.abort()


@contextlib.contextmanager
def team_of(size: int, work: Callable[..., None], arguments: Sequence[Any]) -> Iterator[Team]:
    """Start the other processes of a run and give the team to the block, which is its leader.

    Args:
        size: processes of the run; for one alone nothing is started.
        work: what the others do: called with their team, the folder to `meet` in, and the arguments.
        arguments: more of them; they are pickled.

    Raises:
        TrainerError: this process is part of another team; or what the block, or another process before it, failed of.
    """
    if size == 1:
        yield Team()
        return
    if dist.is_initialized():
        raise TrainerError("this process is in a group of torch.distributed already: set training.processes to 1")
    team = Team(0, size)
    with tempfile.TemporaryDirectory(prefix="spikebench-") as folder:
        tasks = [(Team(number, size), Path(folder), *arguments) for number in range(1, size)]
        helpers = Helpers(work, tasks, team.abort)
        try:
            helpers.await_ready()
            team.meet(Path(folder))
            yield team
        except Exception as error:
            culprit = helpers.blame(error)  # while this process still holds its connections: nobody fails of that
            team.abort()
            if culprit is error:
                raise
            raise culprit from error
        finally:
            team.part()
            helpers.close()


def _some_are_idle(step: nn.Module, batch: tuple[Tensor, Tensor, int]) -> bool:
    """Tell whether the loss does not depend on some trainable parameter: published models have such.

    DistributedDataParallel waits for every gradient unless it is told so, and warns where it is told so in vain.
    """
    images, targets, epoch = batch
    copied = copy.deepcopy(step)
    with isolated_rng(0, images.device):
        loss = copied(images[:2].clone(), targets[:2].clone(), epoch)[0]
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    reached = {id(node.variable) for node in seen if hasattr(node, "variable")}
    return any(weight.requires_grad and id(weight) not in reached for weight in copied.parameters())


def _mean_in_order(bucket: Any) -> torch.futures.Future[Tensor]:
    """Average gradients in the order of the processes.

    Gloo's own sum goes round a ring, where the place of a gradient in its bucket decides the order. The places are
    others after a run was continued, and so would be its last bits.
    """
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]

    def mean(_: object) -> Tensor:
        for part in parts[1:]:
            parts[0].add_(part)
        return parts[0].div_(len(parts))

    work = dist.all_gather(parts, own, async_op=True)
    assert work is not None
    return cast("torch.futures.Future[Tensor]", work.get_future().then(mean))
