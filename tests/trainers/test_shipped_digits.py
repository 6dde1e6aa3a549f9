"""The shipped configurations of the digits keep what their first lines promise."""

import pytest

from configs.resolve import resolve
from trainers.evaluation import evaluate
from trainers.protocol import SilentReporter
from trainers.training import train


@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("stal/srnn_digits", 0.9),
        ("stal/spikformer_digits", 0.96),
        ("spikformer/spikformer_digits", 0.9),
        ("sdt/sdt_digits", 0.9),
        ("qkformer/qkformer_digits", 0.9),
        ("tim/tim_digits", 0.9),
        ("spikingformer/spikingformer_digits", 0.9),
    ],
)
def test_test_accuracy(name: str, accuracy: float, run_dir) -> None:
    config = resolve(name, ["--training.device", "cpu"]).config
    done = train(config, SilentReporter(), run_dir=run_dir, threads=1)
    assert evaluate(done.checkpoint.path, "test", threads=1)["test_accuracy"] > accuracy
