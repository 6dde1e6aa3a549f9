import pytest
import torch

from configs.problems import ConfigError
from trainers import checkpoint
from trainers.evaluation import evaluate
from trainers.protocol import CheckpointError, DataNotFoundError, Verdict
from trainers.tasks import ClassificationTask
from trainers.training import train


@pytest.fixture
def trained(quick, recorder, run_dir):
    """A run with averaged weights and rate coding, whose validation draws random numbers."""
    config = quick("srnn", encoder={"name": "rate"}, training={"ema_decay": 0.5, "epochs": 2, "eval_batch_size": 50})
    return train(config, recorder(), run_dir=run_dir, threads=1)


def test_validation_is_repeated_to_the_last_bit(trained) -> None:
    measured = evaluate(trained.checkpoint.path, "val", threads=1)
    assert measured == {name: value for name, value in trained.metrics.items() if name.startswith("val_")}


def test_test_split_is_another(trained) -> None:
    measured = evaluate(trained.checkpoint.path, threads=1)
    assert measured.keys() == {name.replace("val_", "test_") for name in trained.metrics if name.startswith("val_")}
    assert measured["test_loss"] != trained.metrics["val_loss"]


def test_batch_size_of_evaluation_does_not_change_the_answers(quick, recorder, run_dir) -> None:
    done = train(quick("spikformer", training={"epochs": 1}), recorder(), run_dir=run_dir, threads=1)
    by_size = [
        evaluate(done.checkpoint.path, "val", overrides={"training.eval_batch_size": size}, threads=1)
        for size in (7, 64)
    ]
    for name in ("val_accuracy", "val_loss", "val_spike_density", "val_firing_rate"):
        assert by_size[0][name] == pytest.approx(by_size[1][name], rel=1e-5)


def test_a_checkpoint_in_the_middle_of_an_epoch_can_be_evaluated(quick, recorder, run_dir) -> None:
    done = train(quick(), recorder(Verdict.PREEMPT, at=2), run_dir=run_dir, threads=1)
    assert 0 <= evaluate(done.checkpoint.path)["test_accuracy"] <= 1


def test_the_file_of_a_pre_trained_encoder_is_not_needed_again(quick, recorder, run_dir, tmp_path) -> None:
    first = train(quick(training={"epochs": 1}), recorder(), run_dir=tmp_path / "first", threads=1)
    config = quick(encoder={"checkpoint": str(first.checkpoint.path)}, training={"epochs": 1})
    done = train(config, recorder(), run_dir=run_dir, threads=1)
    first.checkpoint.path.unlink()
    assert evaluate(done.checkpoint.path, "val", threads=1)["val_loss"] == done.metrics["val_loss"]


def test_nothing_of_the_caller_is_disturbed(trained) -> None:
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    evaluate(trained.checkpoint.path, "val")
    assert torch.rand(()) == expected


def test_wrong_files_splits_and_overrides_are_each_one_clear_error(trained, tmp_path) -> None:
    path = trained.checkpoint.path
    with pytest.raises(ConfigError, match=r"no split 'dev' \(use one of train, val, test\)"):
        evaluate(path, "dev")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        evaluate(tmp_path / "none.pt")
    with pytest.raises(ConfigError):
        evaluate(path, overrides={"training.eval_batch_size": 0})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        evaluate(path, overrides={"model.hidden_size": 99})
    content = checkpoint.load(path)
    content["config"]["data"] = {"name": "mnist_files", "data_dir": str(tmp_path)}
    moved = checkpoint.save(tmp_path, content, epoch=1, step=0, keep=1).path
    with pytest.raises(DataNotFoundError, match=str(tmp_path)):
        evaluate(moved)


def test_measuring_uses_no_gradients(quick, recorder, run_dir, monkeypatch) -> None:
    done = train(quick(training={"epochs": 1}), recorder(), run_dir=run_dir)
    seen = []
    honest = ClassificationTask.step

    def step(self, *args):
        seen.append(torch.is_inference_mode_enabled())
        return honest(self, *args)

    monkeypatch.setattr(ClassificationTask, "step", step)
    evaluate(done.checkpoint.path, "val")
    assert seen
    assert all(seen)
