"""Measure the time of one training step of both STAL classifiers at the sizes of the thesis, on MNIST-shaped images.

    python -m benchmarks.stal_step_time [--steps 20] [--threads 1 2] [--device cpu] [--json FILE]

A step is forward pass, CE+SpikeSparsity loss, state reset, backward pass and AdamW. Each case runs in a process of its
own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.machine import describe, machine_facts, wide_console

IMAGE_SHAPE = (1, 28, 28)
CLASSES = 10
WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure; every size that is not named is the schema's default, which is the thesis'."""

    name: str
    sections: dict[str, Any]
    batch_size: int


CASES = [
    Case("SRNN + ConvSTAL", {"model": {"name": "stal_srnn"}, "encoder": {"name": "convstal"}}, 128),
    Case("Spikformer + STAL-PS", {"model": {"name": "stal_spikformer"}, "encoder": {"name": "stalps"}}, 64),
]


@dataclass(frozen=True, slots=True)
class StepTime:
    """Times in milliseconds and memory of one case."""

    name: str
    batch_size: int
    threads: int
    device: str
    neuron_backend: str
    parameters: int
    median_ms: float
    fastest_ms: float
    images_per_second: float
    peak_memory_mb: float


def measure(case: Case, threads: int, device_name: str, steps: int) -> StepTime:
    """Train a fresh model on random images and time each step; runs in a process of its own."""
    import torch  # noqa: PLC0415 - the parent process must stay small

    from configs.schema import RunConfig  # noqa: PLC0415
    from trainers.factory import build_model  # noqa: PLC0415
    from trainers.tasks import make_task  # noqa: PLC0415

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    device = torch.device(device_name)
    config = RunConfig.model_validate({**case.sections, "loss": {"name": "ce_ss"}})
    model = build_model(config, IMAGE_SHAPE, CLASSES, device).train()
    task = make_task(config, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optimizer.learning_rate)
    images = torch.rand(case.batch_size, *IMAGE_SHAPE, device=device)
    targets = torch.randint(CLASSES, (case.batch_size,), device=device)
    times = []
    for _ in range(WARM_UP + steps):
        begun = time.perf_counter()
        torch.autograd.backward(task.step(model, images, targets, epoch=1).loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - begun) * 1e3)
    median = statistics.median(times[WARM_UP:])
    on_gpu = device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated(device) / 2**20
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    return StepTime(
        name=case.name,
        batch_size=case.batch_size,
        threads=threads,
        device=device_name,
        neuron_backend=str(model.neuron_backend),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        median_ms=median,
        fastest_ms=min(times[WARM_UP:]),
        images_per_second=case.batch_size / median * 1e3,
        peak_memory_mb=peak,
    )


def table_of(rows: list[StepTime]) -> Table:
    """Return the measurements as a table."""
    table = Table(
        "model", "parameters", "batch", "device", "threads", "median ms", "fastest ms", "images/s", "peak MiB"
    )
    for row in rows:
        numbers = (row.median_ms, row.fastest_ms, row.images_per_second, row.peak_memory_mb)
        device = row.device if row.device == "cpu" else f"{row.device} ({row.neuron_backend})"
        cells = [row.name, f"{row.parameters:,}", str(row.batch_size), device, str(row.threads)]
        table.add_row(*cells, *(f"{number:.0f}" if number >= 100 else f"{number:.1f}" for number in numbers))
    return table


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Time of one training step at thesis size.")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/stal_step_time.json"))
    options = parser.parse_args()
    console = wide_console()
    facts = machine_facts()
    console.print(describe(facts))
    rows = []
    for case in CASES:
        for threads in options.threads:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                rows.append(pool.submit(measure, case, threads, options.device, options.steps).result())
    console.print(table_of(rows))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": facts, "rows": [asdict(row) for row in rows]}, indent=2))
    console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
