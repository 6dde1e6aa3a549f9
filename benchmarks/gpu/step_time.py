"""Measure the spiking transformers on a GPU: every backend and precision, against the formulation of their authors.

    python -m benchmarks.gpu.step_time [--models spikformer_cifar] [--batch 128] [--rounds 20]
    python -m benchmarks.gpu.step_time --device cpu --dim 32 --batch 2 --rounds 1      # a dry run

A backend is asked for by environment variable when it is first loaded, so each one runs in a process of its own, with
the authors' formulation in float32 beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from benchmarks.machine import describe, machine_facts, wide_console
from benchmarks.step_time import BACKENDS, compare, parser_of, write
from benchmarks.steps import PUBLISHED, Formulation

Precision = Literal["float32", "fp16", "bf16"]


def main() -> None:
    """Measure, print and write."""
    parser = parser_of("Step time and memory of the spiking transformers on a GPU.", "cuda")
    parser.set_defaults(batch=128, rounds=20)
    parser.add_argument("--precisions", nargs="+", default=list(get_args(Precision)), choices=get_args(Precision))
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/gpu_step_time.json"))
    options = parser.parse_args()
    console, facts = wide_console(), machine_facts()
    console.print(describe(facts), facts["gpus"])
    rows = []
    for backend in BACKENDS[options.device.split(":")[0]]:
        ours = [Formulation(backend, precision=precision) for precision in options.precisions]
        rows += compare(options, [Formulation(PUBLISHED), *ours], console)
    write(options.json, rows, facts, console)


if __name__ == "__main__":
    main()
