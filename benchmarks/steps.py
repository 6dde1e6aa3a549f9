"""Time and memory of training steps and of evaluation, for several formulations of one model in turn.

Formulations take turns step by step, so that whatever else the machine does meets all of them; what is compared is the
ratio of steps that ran one after the other. Each has a process of its own: ours trains with the memory settings that
every run of this project has, the authors' with those that the system has.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PUBLISHED = "as published"
TIME_STEPS = 4
WARM_UP = 1
CHANNELS_LAST_ON = ("cpu",)  # as trainers.factory does

Mode = Literal["train", "eval"]
Saving = Literal["none", "checkpoint", "spikingjelly"]


@dataclass(frozen=True, slots=True)
class Formulation:
    """One way to run a model.

    Args:
        backend: kernel of the neurons, or `PUBLISHED` for the authors' formulation.
        memory: what is computed again; see `trainers.memory`.
        precision: `float32`, or `fp16` or `bf16` for autocast.
        keeps_memory: give `PUBLISHED` the settings of `trainers.allocator` as well; all others have them.
    """

    backend: str
    memory: Saving = "none"
    precision: Literal["float32", "fp16", "bf16"] = "float32"
    keeps_memory: bool = False

    @property
    def name(self) -> str:
        """What tables call it."""
        extras = [extra for extra in (self.memory, self.precision) if extra not in ("none", "float32")]
        return ", ".join([self.backend, *extras, *(["memory kept"] if self.keeps_memory else [])])


@dataclass(frozen=True, slots=True)
class Load:
    """What is run.

    Args:
        model: name of the model.
        batch_size: images per step.
        device: where.
        threads: threads of torch.
        options: arguments of the model.
    """

    model: str
    batch_size: int
    device: str
    threads: int
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Seconds:
    """Times of the same formulation, in seconds, in the order they were taken.

    Args:
        name: of the formulation.
        wall: by the clock.
        cpu: by all threads of the process.
    """

    name: str
    wall: list[float]
    cpu: list[float]

    def ratios(self, baseline: Seconds, cpu: bool = False) -> list[float]:
        """Return how many times as fast it was as the baseline in each round, slowest first."""
        ours, theirs = (self.cpu, baseline.cpu) if cpu else (self.wall, baseline.wall)
        return sorted(b / a for a, b in zip(ours, theirs, strict=True))


def in_process_of_its_own(function: Callable[..., Any], *arguments: object) -> Any:
    """Run a function in a fresh process and return what it returns: its memory and threads are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def take_turns(load: Load, formulations: list[Formulation], rounds: int, mode: Mode) -> list[Seconds]:
    """Time every formulation once per round, after one round that does not count.

    Args:
        load: what is run.
        formulations: the ways to run it.
        rounds: rounds that count.
        mode: whole training steps, or evaluation alone.
    """
    taken = [Seconds(formulation.name, [], []) for formulation in formulations]
    with ExitStack() as stack:
        pools = [stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn"))) for _ in formulations]
        for pool, formulation in zip(pools, formulations, strict=True):
            pool.submit(_start, load, formulation, mode).result()
        for number in range(WARM_UP + rounds):
            for pool, seconds in zip(pools, taken, strict=True):
                wall, cpu = pool.submit(_timed).result()
                if number >= WARM_UP:
                    seconds.wall.append(wall)
                    seconds.cpu.append(cpu)
    return taken


def peak_memory_mb(load: Load, formulation: Formulation) -> float:
    """Return what two training steps take at their peak, in MiB.

    On a GPU it is what torch has allocated, on a CPU by how much the process, with the model built, has grown; call it
    in a process of its own.

    Args:
        load: what is run.
        formulation: how.
    """
    import torch  # noqa: PLC0415 - the parent process must stay small

    run = _prepare(load, formulation, "train")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        run()
    if torch.device(load.device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def ratio_text(ratios: list[float]) -> str:
    """Return the median of sorted ratios and their range."""
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"


_prepared: list[Callable[[], None]] = []  # of a process of `take_turns`


def _start(load: Load, formulation: Formulation, mode: Mode) -> None:
    _prepared.append(_prepare(load, formulation, mode))


def _timed() -> tuple[float, float]:
    """Return wall and CPU seconds of one step."""
    wall, cpu = time.perf_counter(), time.process_time()
    _prepared[0]()
    return time.perf_counter() - wall, time.process_time() - cpu


def _prepare(load: Load, formulation: Formulation, mode: Mode) -> Callable[[], None]:
    """Return a function that runs one step."""
    import torch  # noqa: PLC0415

    from trainers.allocator import keep_freed_memory  # noqa: PLC0415

    torch.set_num_threads(load.threads)
    torch.manual_seed(0)
    device = torch.device(load.device)
    if formulation.backend != PUBLISHED or formulation.keeps_memory:
        keep_freed_memory(device)
    model = _build(load, formulation, device)
    channels, side = (2, 64) if load.model == "tim" else (3, 32)
    shape = (TIME_STEPS, channels, side, side) if load.model == "tim" else (channels, side, side)
    images = torch.randn(load.batch_size, *shape, device=device)
    targets = torch.randint(10, (load.batch_size,), device=device)
    run = _evaluation(model, images) if mode == "eval" else _training(model, images, targets, formulation)

    def finished() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finished


def _build(load: Load, formulation: Formulation, device: torch.device) -> nn.Module:
    import torch  # noqa: PLC0415

    import trainers.models  # noqa: F401, PLC0415  # registers the models with timm, which it makes importable

    # isort: split
    from timm import create_model  # noqa: PLC0415

    from benchmarks.published import as_published  # noqa: PLC0415
    from trainers.memory import save_memory  # noqa: PLC0415

    published = formulation.backend == PUBLISHED
    backend = "torch" if published else formulation.backend
    options = {"num_classes": 10, "time_steps": TIME_STEPS, **dict(load.options)}
    model = cast("nn.Module", create_model(load.model, backend=backend, **options))
    save_memory(model, formulation.memory)
    if published:
        return as_published(model, TIME_STEPS).to(device)
    if device.type in CHANNELS_LAST_ON:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    return model.to(device)


def _training(model: nn.Module, images: Tensor, targets: Tensor, formulation: Formulation) -> Callable[[], None]:
    """Return a step: forward pass, cross-entropy, backward pass, AdamW."""
    import torch  # noqa: PLC0415

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.06)
    autocast = formulation.precision != "float32"
    dtype = torch.float16 if formulation.precision == "fp16" else torch.bfloat16
    scaler = torch.amp.GradScaler(images.device.type, enabled=formulation.precision == "fp16")

    def step() -> None:
        with torch.autocast(images.device.type, dtype=dtype, enabled=autocast):
            loss = torch.nn.functional.cross_entropy(model(images).float(), targets)
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def _evaluation(model: nn.Module, images: Tensor) -> Callable[[], None]:
    import torch  # noqa: PLC0415

    model.eval()

    def run() -> None:
        with torch.inference_mode():
            model(images)

    return run
