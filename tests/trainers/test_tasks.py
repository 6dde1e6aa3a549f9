import pytest
import torch
from torch import Tensor, nn

from spikingjelly.activation_based import base, neuron

from trainers.encoders import Encoded
from trainers.encoders.stal import Stal
from trainers.losses.encoder_loss import EncoderLoss, MultiChannelEncoderLoss
from trainers.tasks import ClassificationTask, EncodingTask, make_task

CPU = torch.device("cpu")


class Stateful(nn.Module):
    """A classifier whose neurons remember, with time in the place it is told."""

    def __init__(self, time_dim: int) -> None:
        super().__init__()
        self.embeddings_time_dim = time_dim
        self.linear = nn.Linear(4, 3)
        self.lif = neuron.LIFNode(step_mode="m")

    def forward(self, images: Tensor, return_embeddings: bool = False) -> tuple[Tensor, Tensor]:
        spikes = self.lif(self.linear(images.flatten(1)).expand(5, -1, -1) + 1.0)  # [T, B, 3]
        return spikes.sum(0), spikes.movedim(0, self.embeddings_time_dim)


class Spy(nn.Module):
    def forward(self, logits: Tensor, targets: Tensor, **given: object) -> Tensor:
        self.given = given
        return nn.functional.cross_entropy(logits, targets)


def run(model: nn.Module, **settings: object) -> tuple[Spy, Tensor, Tensor, Tensor]:
    spy = Spy()
    task = ClassificationTask(spy, CPU, **settings)
    output = task.step(model, torch.ones(2, 1, 2, 2), torch.tensor([0, 2]), epoch=7)
    return spy, *output


def test_no_state_is_left_and_none_is_taken_over() -> None:
    model = Stateful(0)
    assert [isinstance(module, base.MemoryModule) for module in model.modules()].count(True) == 1
    first = run(model)[2]
    assert isinstance(model.lif.v, float)  # the reset value, not a tensor
    assert model.lif.v == 0.0
    assert torch.equal(run(model)[2], first)


def test_gradients_come_through_the_reset() -> None:
    model = Stateful(0)
    run(model)[1].backward()
    assert model.linear.weight.grad is not None
    assert model.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("time_dim", "as_is", "shape"), [(0, False, (5, 2, 3)), (1, False, (5, 2, 3)), (1, True, (2, 5, 3))]
)
def test_loss_and_metrics_see_time_first_unless_as_is(time_dim: int, as_is: bool, shape: tuple[int, ...]) -> None:
    spy, _, _, embeddings = run(Stateful(time_dim), as_is=as_is)
    assert tuple(embeddings.shape) == shape
    assert spy.given["embeddings"] is embeddings
    assert (spy.given["epoch"], tuple(spy.given["images"].shape)) == (7, (2, 1, 2, 2))


def test_outputs_are_single_precision_under_autocast() -> None:
    _, loss, logits, embeddings = run(Stateful(0), precision="bf16")
    assert {loss.dtype, logits.dtype, embeddings.dtype} == {torch.float32}


class Alone(nn.Module):
    """A STAL encoder that is trained by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Stal(window_size=4, time_steps=3, l1_size=4, l2_size=4, drop_p=0.0)

    def forward(self, images: Tensor) -> Encoded:
        return self.encoder(images)


def test_an_encoding_gives_the_loss_the_triple_and_the_image() -> None:
    torch.manual_seed(0)
    model, images = Alone().eval(), torch.rand(2, 1, 2, 2)
    output = EncodingTask(EncoderLoss(), CPU).step(model, images, torch.tensor([0, 2]), 7)
    spikes, z1, z2 = model(images)
    torch.testing.assert_close(output.loss, EncoderLoss()(spikes, images.flatten(1), z1, z2))
    assert output.logits is None
    torch.testing.assert_close(output.embeddings, spikes.view(2, 4, 3).permute(2, 0, 1))  # slots of each pixel to T, B
    output.loss.backward()
    assert model.encoder.Z1.lin.weight.grad.abs().sum() > 0
    assert model.encoder.threshold_adder.grad.abs().sum() > 0


def test_an_encoding_has_a_loss_in_single_precision_under_autocast() -> None:
    output = EncodingTask(EncoderLoss(), CPU, precision="bf16").step(Alone(), torch.rand(2, 1, 2, 2), torch.ones(2), 0)
    assert {output.loss.dtype, output.embeddings.dtype} == {torch.float32}


def test_the_task_follows_from_the_model(quick) -> None:
    task = make_task(quick("encoder"), CPU)
    assert isinstance(task, EncodingTask)
    assert isinstance(task.loss, MultiChannelEncoderLoss)
    assert not task.classifies
    assert isinstance(make_task(quick("srnn"), CPU), ClassificationTask)


def test_layout_comes_from_the_loss(quick) -> None:
    assert make_task(quick("srnn", loss={"name": "ce_ss", "embedding_layout": "as_is"}), CPU).as_is
    assert not make_task(quick("srnn", loss={"name": "ce_ss"}), CPU).as_is
    assert not make_task(quick("srnn"), CPU).as_is
