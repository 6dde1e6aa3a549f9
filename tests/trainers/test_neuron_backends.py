"""The choice of the kernel that runs LIF layers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import surrogate

from trainers import neuron_backends, neuron_kernels, neurons
from trainers.native.library import NoCompilerError
from trainers.neuron_backends import choose_backend
from trainers.neurons import make_lif

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the C kernels need a C compiler")


def currents() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, 40, generator=generator) * 2 + 0.5


@pytest.fixture(autouse=True)
def forget_choices() -> Iterator[None]:
    neuron_backends._choose_backend.cache_clear()
    yield
    neuron_backends._choose_backend.cache_clear()


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, implementation: str, *, agrees: bool = True, **unavailable: str) -> None:
    """Pretend that spikingjelly found an implementation on a GPU."""
    found = {"implementation": implementation, "unavailable": unavailable}
    monkeypatch.setattr(neuron_backends.functional, "neuron_implementation", lambda *args: found)
    monkeypatch.setattr(neuron_backends, "_agrees_with_torch", lambda device: agrees)


def test_torch_is_honoured_on_a_cpu() -> None:
    assert choose_backend("torch", CPU) == "torch"


@needs_compiler
def test_a_cpu_runs_the_c_kernel() -> None:
    assert choose_backend("auto", CPU) == "native"
    assert choose_backend("native", CPU) == "native"


def test_a_kernel_that_cannot_run_is_replaced_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuron_backends, "_native_agrees_with_torch", lambda: False)
    with pytest.warns(
        RuntimeWarning, match="'triton' is not used on cpu: it needs an NVIDIA GPU; 'torch' runs instead"
    ):
        assert choose_backend("triton", CPU) == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backend("triton", CPU) == "torch"
    with pytest.warns(RuntimeWarning, match="'native' is not used on cuda:0: it needs a CPU; 'torch' runs instead"):
        assert choose_backend("native", CUDA) == "torch"


def test_a_c_kernel_that_disagrees_with_torch_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuron_backends, "_native_agrees_with_torch", lambda: False)
    with pytest.warns(RuntimeWarning, match="'native' is not used on cpu: its spikes or gradients differ"):
        assert choose_backend("auto", CPU) == "torch"


def test_a_compiler_that_fails_is_told_and_a_missing_one_only_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: OSError) -> None:
        raise error

    monkeypatch.setattr(neuron_backends, "_native_agrees_with_torch", lambda: fail(OSError("cc: no -fopenmp")))
    with pytest.warns(RuntimeWarning, match="'native' is not used on cpu: cc: no -fopenmp; 'torch' runs instead"):
        assert choose_backend("auto", CPU) == "torch"
    neuron_backends._choose_backend.cache_clear()
    monkeypatch.setattr(neuron_backends, "_native_agrees_with_torch", lambda: fail(NoCompilerError("no compiler")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backend("auto", CPU) == "torch"
    with pytest.warns(RuntimeWarning, match="'native' is not used on cpu: no compiler"):
        assert choose_backend("native", CPU) == "torch"


@needs_compiler
def test_the_first_use_may_be_in_inference_mode() -> None:
    with torch.inference_mode():
        assert choose_backend("auto", CPU) == "native"
        assert torch.equal(make_lif()(currents()), make_lif(backend="torch")(currents()))


@needs_compiler
def test_the_check_of_the_c_kernel_knows_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert neuron_backends._native_agrees_with_torch()
    right = neuron_backends.native.normalised_lif
    monkeypatch.setattr(neuron_backends.native, "normalised_lif", lambda x, norm, d: right(x * 1.5, norm, d) * 1.01)
    assert not neuron_backends._native_agrees_with_torch()


def test_auto_takes_what_spikingjelly_found(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "triton", cuda="not built")
    assert choose_backend("auto", CUDA) == "triton"


def test_torch_is_honoured_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "cuda")
    assert choose_backend("torch", CUDA) == "torch"


def test_the_kernel_that_really_runs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "triton", cuda="not built")
    with pytest.warns(RuntimeWarning, match="'cuda' is not used on cuda:0: not built; 'triton' runs instead"):
        assert choose_backend("cuda", CUDA) == "triton"


def test_a_kernel_that_disagrees_with_torch_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "triton", agrees=False)
    with pytest.warns(RuntimeWarning, match="differ from those of torch"):
        assert choose_backend("auto", CUDA) == "torch"


def test_a_kernel_that_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> object:
        raise RuntimeError("no implementation available")

    monkeypatch.setattr(neuron_backends.functional, "neuron_implementation", fail)
    with pytest.warns(RuntimeWarning, match="no implementation available; 'torch' runs instead"):
        assert choose_backend("triton", CUDA) == "torch"


def test_an_explicit_choice_is_told_to_spikingjelly_before_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "triton")
    monkeypatch.setenv("SJ_LIF_CUDA_IMPLEMENTATION", "auto")
    monkeypatch.delitem(sys.modules, "spikingjelly._ops.lif", raising=False)
    choose_backend("triton", CUDA)
    assert os.environ["SJ_LIF_CUDA_IMPLEMENTATION"] == "triton"


def test_the_self_check_knows_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    cpu = torch.device("cpu")
    assert neuron_backends._agrees_with_torch(cpu)  # spikingjelly's own operator, which also runs on a CPU
    fused = neuron_backends.fused_lif
    monkeypatch.setattr(neuron_backends, "fused_lif", lambda x, v, d, s: fused(x * 1.05, v, d, s))
    assert not neuron_backends._agrees_with_torch(cpu)
    monkeypatch.setattr(neuron_backends, "fused_lif", lambda x, v, d, s: fused(x, v, d, surrogate.Sigmoid(alpha=3.0)))
    assert not neuron_backends._agrees_with_torch(cpu)
    assert torch.equal(torch.get_rng_state(), state)


def test_lif_runs_the_kernel_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    x, calls = currents(), []
    fused = neurons.fused_lif
    monkeypatch.setattr(neurons, "choose_backend", lambda requested, device: "triton")
    monkeypatch.setattr(neurons, "fused_lif", lambda x, v, d, s: calls.append(x.dtype) or fused(x, v, d, s))
    lif = make_lif(backend="triton")
    for dtype in (torch.float32, torch.bfloat16, torch.float64):  # double precision has no fused kernel
        torch.testing.assert_close(lif(x.to(dtype)), neuron_kernels.lif(x.to(dtype), lif.dynamics))
    assert torch.float32 in calls
    assert torch.bfloat16 in calls
    assert torch.float64 not in calls


def test_a_process_without_triton_says_nothing_about_it() -> None:
    """torch warns of a missing Triton for each operator that spikingjelly registers, in the first steps of a run."""
    code = (
        "import logging, torch\n"
        "from trainers.neurons import make_neuron\n"
        "for kind in ('lif', 'clif', 'ilif', 'klif'):\n"
        "    make_neuron(kind)(torch.rand(2, 1, 4, requires_grad=True)).sum().backward()\n"
        "logging.getLogger('torch._library.triton').warning('another remark')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Triton not available" not in done.stderr + done.stdout
    assert "another remark" in done.stderr
