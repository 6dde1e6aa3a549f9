import pytest
import torch

from trainers.progress import Progress
from trainers.protocol import EpochReport

CPU = torch.device("cpu")


def counted() -> Progress:
    progress = Progress(CPU)
    progress.count(torch.tensor(2.0), torch.eye(3), torch.tensor([0, 1, 0]))
    progress.count(torch.tensor(4.0), torch.eye(1, 3), torch.tensor([[0.4, 0.6, 0.0]]))
    return progress


def test_means_are_over_images_not_batches() -> None:
    progress = counted()
    assert progress.train_metrics() == {"train_loss": pytest.approx((2 * 3 + 4 * 1) / 4), "train_accuracy": 0.5}
    assert progress.step == 2


def test_where_nothing_is_classified_there_is_no_accuracy() -> None:
    progress = Progress(CPU, classifies=False)
    progress.count(torch.tensor(2.0), None, torch.tensor([0, 1, 0]))
    progress.count(torch.tensor(4.0), None, torch.tensor([1]))
    assert progress.train_metrics() == {"train_loss": pytest.approx(2.5)}


def test_an_epoch_ends_with_nothing_left_over() -> None:
    progress = counted()
    report = EpochReport(1, 2, progress.train_metrics(), 0.5)
    progress.finish_epoch(report)
    assert (progress.epoch, progress.step, progress.history) == (1, 0, [report])
    progress.count(torch.tensor(1.0), torch.eye(3), torch.tensor([0, 1, 2]))
    assert progress.train_metrics() == {"train_loss": 1.0, "train_accuracy": 1.0}


def test_state_survives_a_file_and_the_clock_goes_on(tmp_path) -> None:
    progress = counted()
    progress.finish_epoch(EpochReport(1, 2, {"val_accuracy": 0.5}, 0.5))
    progress.count(torch.tensor(3.0), torch.eye(3), torch.tensor([0, 1, 2]))
    torch.save(progress.state_dict(), tmp_path / "progress.pt")
    loaded = Progress(CPU)
    loaded.load_state_dict(torch.load(tmp_path / "progress.pt", weights_only=True))
    assert (loaded.epoch, loaded.step, loaded.history) == (1, 1, progress.history)
    assert loaded.train_metrics() == progress.train_metrics()
    assert loaded.seconds() >= torch.load(tmp_path / "progress.pt", weights_only=True)["seconds"] > 0
