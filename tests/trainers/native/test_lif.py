"""The C kernels against the plain-torch ones, in every memory order and for every constant."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers.native import library
from trainers.native import lif as native
from trainers.neuron_kernels import SURROGATES, LifDynamics, lif, lif_from
from trainers.normalisation import normalise

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the C kernels need a C compiler")
STEPS = 5
TOLERANCES = {torch.float64: {"rtol": 1e-10, "atol": 1e-10}, torch.float32: {"rtol": 1e-3, "atol": 2e-4}}
EVERY_LAYER = [
    LifDynamics(tau, 0.8, v_reset, decay_input, detach_reset, shape, alpha=2.5, detach_membrane=detach_membrane)
    for (tau, decay_input), v_reset, detach_reset, shape, detach_membrane in itertools.product(
        [(3.0, True), (3.0, False), (float("inf"), False)], [0.0, -0.25, None], [True, False], SURROGATES, [False, True]
    )
]


def currents(dtype: torch.dtype, order: str) -> Tensor:
    """Return [T, B, C, H, W] in a memory order, or [B, C, H, W] for one image in every step."""
    x = torch.randn(STEPS, 3, 8, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    x = x * 2 + 0.5
    match order:
        case "channels first":
            return x
        case "channels last":
            return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        case "transposed":
            return x.transpose(2, 3)
        case "gaps":
            return torch.stack([x, x], -1)[..., 0]
        case _:
            return x[0]


def run(layer: Any, x: Tensor, order: str) -> tuple[Tensor, Tensor]:
    """Return spikes and the gradient of the input."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    spikes = layer(x.expand(STEPS, *x.shape) if order == "one image" else x)
    (spikes * torch.cos(torch.arange(spikes.numel())).view(spikes.shape).to(x.dtype)).sum().backward()
    assert x.grad is not None
    return spikes.detach(), x.grad


ORDERS = ["channels first", "channels last", "transposed", "gaps", "one image"]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("order", ORDERS)
def test_spikes_and_gradients_are_those_of_torch(order: str, dtype: torch.dtype) -> None:
    x = currents(dtype, order)
    for dynamics in EVERY_LAYER:
        spikes, grad = run(lambda x, d=dynamics: native.lif_from(x, None, d)[0], x, order)
        plain_spikes, plain_grad = run(lambda x, d=dynamics: lif(x, d), x, order)
        assert 0.02 < spikes.mean() < 0.98
        assert torch.equal(spikes, plain_spikes), dynamics
        torch.testing.assert_close(grad, plain_grad, **TOLERANCES[dtype], msg=lambda text, d=dynamics: f"{d}: {text}")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("order", ORDERS)
def test_normalised_layers_are_those_of_torch(order: str, dtype: torch.dtype, training: bool) -> None:
    x = currents(dtype, order)
    channels = x.shape[1] if order == "one image" else x.shape[2]
    for dynamics in EVERY_LAYER[::7]:
        results = []
        for layer in (native.normalised_lif, lambda x, norm, d: lif(normalise(norm, x), d)):
            norm = nn.BatchNorm2d(channels).to(dtype)
            generator = torch.Generator().manual_seed(1)
            for values in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(values, generator=generator)
            norm.train(training)
            found = run(lambda x, n=norm, f=layer, d=dynamics: f(x, n, d), x, order)
            results.append((*found, norm.weight.grad, norm.bias.grad, norm.state_dict()))
        torch.testing.assert_close(*results, **TOLERANCES[dtype])


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = torch.randn(4, 4, 16, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            norm = nn.BatchNorm2d(16).double()
            results.append((*run(lambda x, n=norm: native.normalised_lif(x, n, EVERY_LAYER[0]), x, ""), norm.bias.grad))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


def test_a_run_goes_on_from_the_membranes_of_the_one_before() -> None:
    x = currents(torch.float64, "channels last")
    start = torch.full_like(x[0], 0.3)
    spikes, last = native.lif_from(x, start, EVERY_LAYER[0])
    plain_spikes, plain_last = lif_from(x, start, EVERY_LAYER[0])
    assert torch.equal(spikes, plain_spikes)
    torch.testing.assert_close(last, plain_last, rtol=0, atol=1e-15)
    assert start.unique().item() == 0.3


def test_maps_of_one_pixel_and_wide_layers_are_normalised() -> None:
    for shape in ((2, 3, 2000, 1, 1), (2, 3, 2000, 2, 2), (2, 3, 1, 5, 5)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        norm, plain = (nn.BatchNorm2d(shape[2]).double() for _ in range(2))
        spikes, grad = run(lambda x, n=norm: native.normalised_lif(x, n, EVERY_LAYER[0]), x, "")
        torch.testing.assert_close(
            (spikes, grad), run(lambda x, n=plain: lif(normalise(n, x), EVERY_LAYER[0]), x, ""), rtol=1e-9, atol=1e-9
        )


# --- compiling --------------------------------------------------------------------------------------------------------


def test_code_is_compiled_once_per_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled: list[Path] = []
    compile_ = library._compile
    monkeypatch.setattr(library, "_compile", lambda *args: compiled.append(args[-1]) or compile_(*args))
    for _ in range(2):
        library.load.__wrapped__(False)
    (path,) = compiled
    assert path.parent == tmp_path / "spikebench" / "kernels"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_compiler_that_fails_says_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "unsupported option" >&2\nexit 3\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(OSError, match="compiler' failed with code 3: unsupported option"):
        library.load.__wrapped__(False)


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(library.NoCompilerError, match="there is no C compiler"):
        library.load.__wrapped__(False)
