"""Measure training steps and evaluation of the spiking transformers against the formulation of their authors.

    python -m benchmarks.step_time [--models spikformer_cifar qkformer_cifar] [--rounds 5] [--threads 2] [--batch 16]

Each model runs at its published CIFAR size (TIM: events of 64 x 64) with T = 4, in float32 and in every backend that
the device has. A step is forward pass, cross-entropy, backward pass and AdamW. Times are compared within rounds, in
which the formulations take turns, each in a process of its own. Ours train with freed memory kept, as every run does;
the authors' formulation has what the system has, unless `--baseline-keeps-memory` gives it the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe, machine_facts, wide_console
from benchmarks.steps import (
    PUBLISHED,
    Formulation,
    Load,
    Mode,
    Saving,
    Seconds,
    in_process_of_its_own,
    peak_memory_mb,
    ratio_text,
    take_turns,
)

MODELS = ("spikformer_cifar", "qkformer_cifar", "sdt", "spikingformer_cifar", "tim")
BACKENDS = {"cpu": ("native", "torch"), "cuda": ("triton", "cuda", "torch")}
SAVING: tuple[Saving, ...] = ("none", "checkpoint", "spikingjelly")
ADDS_MEMBRANES = ("sdt", "spikingformer_cifar")


def parser_of(description: str, device: str) -> argparse.ArgumentParser:
    """Return the options that every script of step times has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default=device)
    parser.add_argument("--skip", nargs="*", default=[], choices=["train", "eval", "memory"])
    parser.add_argument("--dim", type=int, help="width instead of the published one, for a dry run")
    return parser


def compare(options: argparse.Namespace, formulations: list[Formulation], console: Console) -> list[dict[str, Any]]:
    """Measure the models in every formulation, the first of which is the baseline, and print tables.

    Args:
        options: of `parser_of`.
        formulations: the ways to run each model.
        console: where tables go.

    Returns:
        The measurements as plain JSON values.
    """
    rows: list[dict[str, Any]] = []
    modes: tuple[Mode, ...] = ("train", "eval")
    for name in options.models:
        sizes = () if options.dim is None else (("embed_dims", options.dim), ("num_heads", 4))
        load = Load(name, options.batch, options.device, options.threads, sizes)
        for mode in (mode for mode in modes if mode not in options.skip):
            found = take_turns(load, formulations, options.rounds, mode)
            console.print(_time_table(f"{name}, {mode}, batch {options.batch}", found, options.batch))
            rows += [{"model": name, "mode": mode, "batch": options.batch, **asdict(seconds)} for seconds in found]
        if "memory" not in options.skip:
            peaks = {
                formulation.name: in_process_of_its_own(peak_memory_mb, load, formulation)
                for formulation in _with_saving(formulations, name)
            }
            console.print(_memory_table(name, peaks))
            rows += [{"model": name, "mode": "memory", "name": key, "mb": value} for key, value in peaks.items()]
    return rows


def write(path: Path, rows: list[dict[str, Any]], facts: dict[str, object], console: Console) -> None:
    """Write measurements with the machine they were taken on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": facts, "load_at_the_end": machine_facts()["load_average"], "rows": rows}))
    console.print(f"written to {path}")


def _with_saving(formulations: list[Formulation], model: str) -> list[Formulation]:
    """Return the baseline, the others, and each way to save memory with the first of the others."""
    baseline, first, *others = formulations
    ways = [way for way in SAVING if way != "spikingjelly" or model not in ADDS_MEMBRANES]
    return [baseline, *(Formulation(first.backend, way, first.precision) for way in ways), *others]


def _time_table(title: str, found: list[Seconds], batch: int) -> Table:
    table = Table(
        "formulation", "median s", "fastest s", "median CPU s", "images/s", "times as fast", "by CPU time", title=title
    )
    for seconds in found:
        median = statistics.median(seconds.wall)
        numbers = [f"{value:.3f}" for value in (median, min(seconds.wall), statistics.median(seconds.cpu))]
        ratios = [ratio_text(seconds.ratios(found[0], cpu)) for cpu in (False, True)]
        table.add_row(seconds.name, *numbers, f"{batch / median:.1f}", *ratios)
    return table


def _memory_table(name: str, peaks: dict[str, float]) -> Table:
    table = Table("formulation", "peak MiB", "of the first", title=f"{name}, peak memory of training")
    first = next(iter(peaks.values()))
    for formulation, peak in peaks.items():
        table.add_row(formulation, f"{peak:.0f}", f"{peak / first:.2f}")
    return table


def main() -> None:
    """Measure, print and write."""
    parser = parser_of("Step time and memory of the spiking transformers.", "cpu")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/step_time.json"))
    parser.add_argument("--baseline-keeps-memory", action="store_true", help="the same allocator settings for both")
    options = parser.parse_args()
    console, facts = wide_console(), machine_facts()
    console.print(describe(facts))
    backends = BACKENDS[options.device.split(":")[0]]
    baseline = Formulation(PUBLISHED, keeps_memory=options.baseline_keeps_memory)
    rows = compare(options, [baseline, *(Formulation(backend) for backend in backends)], console)
    write(options.json, rows, facts, console)


if __name__ == "__main__":
    main()
