"""The typed configuration of one training run: every key that exists, with its range and its default."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from configs.annotations import plain_types
from configs.compat import Compat, with_quirks
from configs.fit import misfits, with_partners

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: unknown keys and wrong types are refused and a resolved configuration never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_plain_data(cls, values: Any) -> Any:
        """Take 3.0 where an integer is meant and a list where a tuple is; everything else must have its own type."""
        if not isinstance(values, dict):
            return values
        return {key: _fitted(value, cls, key) for key, value in values.items()}


def _fitted(value: object, model: type[BaseModel], key: str) -> object:
    if not isinstance(value, float | list) or key not in model.model_fields:
        return value
    types = plain_types(model.model_fields[key].annotation)
    if isinstance(value, list):
        return tuple(value) if tuple in types else value
    return int(value) if int in types and float not in types and value.is_integer() else value


# --- neuron -----------------------------------------------------------------------------------------------------------


class Surrogate(Section):
    """Derivative used for the spike's step function in the backward pass."""

    name: Literal["sigmoid", "atan"] = Field("sigmoid", description="shape of the surrogate derivative")
    alpha: Positive = Field(4.0, description="slope; sigmoid 4 (Spikformer), atan 2 (snnTorch's RLeaky)")


class RecurrentSurrogate(Surrogate):
    """The same two derivatives with the defaults of the recurrent layer."""

    name: Literal["sigmoid", "atan"] = Field("atan", description="shape of the surrogate derivative")
    alpha: Positive = Field(2.0, description="slope; atan 2 gives 1 / (1 + (pi (m - threshold))^2)")


class LifNeuron(Section):
    """Leaky integrate-and-fire layer: u = v + (x - v) / tau, spike where u >= v_threshold (arXiv 2209.15425)."""

    name: Literal["lif"] = "lif"
    tau: float = Field(2.0, gt=1.0, description="membrane time constant in time steps")
    v_threshold: Positive = Field(1.0, description="firing threshold")
    attn_v_threshold: Positive = Field(0.5, description="firing threshold of the layer after attention")
    v_reset: float | None = Field(0.0, description="hard reset value; null subtracts the threshold (soft reset)")
    decay_input: bool = Field(True, description="divide the input by tau as well")
    detach_reset: bool = Field(True, description="no gradient through the reset")
    surrogate: Surrogate = Surrogate()
    backend: Literal["auto", "torch", "triton", "cuda"] = Field("auto", description="kernel that runs the neurons")


class RecurrentLifNeuron(Section):
    """Recurrent LIF layer of the SRNN: m = beta m + I + (R s + b) - [m > threshold] (snnTorch's RLeaky)."""

    name: Literal["rlif"] = "rlif"
    beta: Fraction = Field(0.9, description="membrane decay per time step")
    v_threshold: Positive = Field(1.0, description="firing threshold, strict")
    surrogate: RecurrentSurrogate = RecurrentSurrogate()


class NoNeuron(Section):
    """No spiking layer: what an encoder alone has."""

    name: Literal["none"] = "none"


Neuron = Annotated[LifNeuron | RecurrentLifNeuron | NoNeuron, Field(discriminator="name")]

# --- encoder ----------------------------------------------------------------------------------------------------------


class EncoderBase(Section):
    """Keys that every encoder has."""

    time_steps: Count = Field(5, description="time steps T (psi, n_spikes_per_timestep in the STAL papers)")
    checkpoint: str | None = Field(None, description="file with weights of a pre-trained encoder")
    freeze: bool = Field(False, description="keep the encoder's weights fixed")


SlotOrder = Literal["time_major", "pixel_major"]


class StalEncoder(EncoderBase):
    """STAL: two linear blocks and learnable thresholds per pixel and slot (arXiv 2407.08362)."""

    name: Literal["stal"] = "stal"
    l1_size: Count = Field(784, description="width of the first linear block")
    l2_size: Count = Field(784, description="width of the second; must divide pixels x time_steps and be smaller")
    drop_p: float = Field(0.1, ge=0.0, lt=1.0, description="dropout probability")
    alpha: Positive = Field(25.0, description="slope of the threshold sigmoid")
    slot_order: SlotOrder = Field("time_major", description="pixel_major feeds the classifier the order of the thesis")


class AncestorEncoder(EncoderBase):
    """The encoders STAL grew from: SpikeThresholdLearning (freek1/emopain-stl), LAST and CAST (freek1/stal-v2)."""

    name: Literal["ancestor"] = "ancestor"
    l1_size: int = Field(0, ge=0, description="width of the first linear layer; 0 compares the pixels themselves")
    l2_size: int = Field(0, ge=0, description="width of the second linear layer; 0 leaves it out")
    drop_p: float = Field(0.0, ge=0.0, lt=1.0, description="dropout probability")
    alpha: Positive = Field(25.0, description="slope of the threshold sigmoid; 25 in emopain-stl, 100 in stal-v2")
    mix_channels: bool = Field(False, description="first mix the image's channels into one (CAST)")
    slot_order: SlotOrder = Field("time_major", description="pixel_major feeds the classifier the order of the thesis")


class ConvStalEncoder(EncoderBase):
    """ConvSTAL: two convolution blocks, thresholds per time step and pixel (DeniBademi/Thesis)."""

    name: Literal["convstal"] = "convstal"
    hidden_channels: Count = Field(784, description="channels of the first block (l1_sz in the thesis)")
    kernel_size: Count = Field(3, description="odd convolution kernel size")
    drop_p: float = Field(0.1, ge=0.0, lt=1.0, description="dropout probability")
    alpha: Positive = Field(25.0, description="slope of the threshold sigmoid")


class StalPsEncoder(EncoderBase):
    """STAL-PS (ConvSTAL-PS): Spikformer's patch splitting with ReLU and learnable thresholds (DeniBademi/Thesis)."""

    name: Literal["stalps", "convstal_ps"] = "stalps"
    patch_size: Literal[4] = Field(4, description="pixels per token side; the two max-pools fix it to 4")
    alpha: Positive = Field(25.0, description="slope of the threshold sigmoid")
    threshold_passes: Literal[1, 2] = Field(2, description="2 applies the threshold twice, as in the thesis")

    @field_validator("name")
    @classmethod
    def _one_spelling(cls, _: str) -> str:
        return "stalps"


class SpsEncoder(EncoderBase):
    """SPS: Spikformer's spiking patch splitting on T copies of the image (arXiv 2209.15425)."""

    name: Literal["sps"] = "sps"
    patch_size: Literal[4] = Field(4, description="pixels per token side")


class RateEncoder(EncoderBase):
    """Rate coding: a spike where a uniform draw is below the pixel."""

    name: Literal["rate"] = "rate"


class LatencyEncoder(EncoderBase):
    """Latency coding: one spike per pixel, earlier for brighter ones."""

    name: Literal["latency"] = "latency"
    variant: Literal["linear", "log", "first_sample"] = Field(
        "linear", description="log is snnTorch's; first_sample is the thesis' code, which shows one image for all"
    )


Encoder = Annotated[
    StalEncoder | AncestorEncoder | ConvStalEncoder | StalPsEncoder | SpsEncoder | RateEncoder | LatencyEncoder,
    Field(discriminator="name"),
]

# --- model ------------------------------------------------------------------------------------------------------------


class StalSrnnModel(Section):
    """Two recurrent LIF layers over the encoder's spikes; logits are summed spikes (DeniBademi/Thesis)."""

    name: Literal["stal_srnn"] = "stal_srnn"
    hidden_size: Count = Field(56, description="width of the hidden recurrent layer (l1_sz in the thesis)")
    embed_dims: int = Field(
        128, ge=8, multiple_of=8, description="token width D; in stal_srnn of an encoder that gives tokens"
    )


class StalSpikformerModel(Section):
    """Spikformer with a swappable encoder (arXiv 2209.15425)."""

    name: Literal["stal_spikformer"] = "stal_spikformer"
    embed_dims: int = Field(128, ge=8, multiple_of=8, description="token width D")
    num_heads: Count = Field(4, description="attention heads; must divide embed_dims")
    mlp_ratio: Positive = Field(4.0, description="MLP width over token width")
    depth: Count = Field(6, description="number of blocks")
    attn_scale: Positive = Field(0.125, description="constant factor of q k^T v")


class EncoderOnlyModel(Section):
    """An encoder trained alone, for a classifier to load as `encoder.checkpoint` (arXiv 2407.08362)."""

    name: Literal["encoder_only"] = "encoder_only"


Model = Annotated[StalSrnnModel | StalSpikformerModel | EncoderOnlyModel, Field(discriminator="name")]

# --- loss -------------------------------------------------------------------------------------------------------------


class CrossEntropyLoss(Section):
    """Mean cross-entropy of the logits."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="label smoothing")


class CeSpikeSparsityLoss(Section):
    """Cross-entropy plus omega (epoch / epochs) (L1 - c K) of the encoder's spikes (DeniBademi/Thesis)."""

    name: Literal["ce_ss"] = "ce_ss"
    omega: NonNegative = Field(1e-4, description="weight of the sparsity term")
    c: NonNegative = Field(1.0, description="weight of the concentration K inside the sparsity term")
    embedding_layout: Literal["time_first", "as_is"] = Field(
        "time_first", description="as_is sums over the batch where the encoder gives steps, as in the thesis"
    )
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="label smoothing of the cross-entropy part")


class CeL1Loss(Section):
    """Cross-entropy plus the distance of the spike count from the image's scaled area (DeniBademi/Thesis)."""

    name: Literal["ce_l1"] = "ce_l1"
    alpha: Positive = Field(25.0, description="encoder slope; above 10 spikes are counted at 0.5, without gradient")
    sparsity_weight: NonNegative = Field(0.1, description="weight of the distance")


ZTerms = Literal["all", "last"]


class EncoderLoss(Section):
    """Trains an encoder alone: keep information about the image, spend spikes by its area (arXiv 2407.08362)."""

    name: Literal["encoder_loss"] = "encoder_loss"
    slot_weights: Literal["late", "early", "uniform"] = Field(
        "late", description="time slots that weigh more; early in LAST, uniform in emopain-stl"
    )
    use_z: bool = Field(True, description="count the hidden layers' information about the image too")
    z_terms: ZTerms = Field("all", description="last leaves out the first of two hidden layers, as in the thesis")


class MultiChannelEncoderLoss(Section):
    """Mean over the image's channels of `encoder_loss`, for ConvSTAL (DeniBademi/Thesis)."""

    name: Literal["multi_channel_encoder_loss"] = "multi_channel_encoder_loss"
    z_terms: ZTerms = Field("all", description="last leaves out the first of two hidden layers, as in the thesis")
    spike_layout: Literal["pixel_first", "as_is"] = Field(
        "pixel_first", description="as_is takes time slots for pixels, as in the thesis"
    )


Loss = Annotated[
    CrossEntropyLoss | CeSpikeSparsityLoss | CeL1Loss | EncoderLoss | MultiChannelEncoderLoss,
    Field(discriminator="name"),
]

# --- data -------------------------------------------------------------------------------------------------------------


class DataBase(Section):
    """Keys that every data set has."""

    split_seed: int = Field(42, description="seed of the train / validation / test split")
    image_size: int | None = Field(None, ge=4, description="resize images to this side in pixels; null keeps them")
    workers: int = Field(0, ge=0, description="loader processes, used where images are augmented one by one")


class DigitsData(DataBase):
    """1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""

    name: Literal["digits"] = "digits"
    val_fraction: float = Field(0.15, gt=0.0, lt=1.0, description="share kept for validation")
    test_fraction: float = Field(0.15, gt=0.0, lt=1.0, description="share kept for the final test")


class TorchvisionData(DataBase):
    """A data set of torchvision; its official test images are the test split."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]
    data_dir: str = Field("data", description="folder that holds the data set")
    download: bool = Field(False, description="fetch the data set when it is not there")
    val_fraction: float = Field(0.2, gt=0.0, lt=1.0, description="share of the training images kept for validation")


class MnistFilesData(DataBase):
    """The MNIST test files (`t10k-*-ubyte.gz`) of a folder, used as a small set with three splits of its own."""

    name: Literal["mnist_files"] = "mnist_files"
    data_dir: str = Field("data/mnist", description="folder with t10k-images-idx3-ubyte.gz and ...-labels-idx1-...")
    train_size: Count = Field(8000, description="training images")
    val_size: Count = Field(1000, description="validation images")
    test_size: Count = Field(1000, description="test images")


Data = Annotated[DigitsData | TorchvisionData | MnistFilesData, Field(discriminator="name")]

# --- training recipe --------------------------------------------------------------------------------------------------


class Augmentation(Section):
    """Image augmentation, all through timm; everything is off by default."""

    horizontal_flip: Fraction = Field(0.0, description="probability of a horizontal flip")
    crop_scale: tuple[float, float] | None = Field(None, description="area range of a random resized crop")
    rand_augment: str | None = Field(None, description="timm policy, e.g. rand-m9-n1-mstd0.4-inc1")
    random_erasing: Fraction = Field(0.0, description="probability of random erasing")
    mixup: NonNegative = Field(0.0, description="mixup alpha; 0 is off")
    cutmix: NonNegative = Field(0.0, description="cutmix alpha; 0 is off")
    mix_probability: Fraction = Field(1.0, description="probability of mixing a batch")
    mix_switch_probability: Fraction = Field(0.5, description="share of cutmix where both are on")
    mix_off_epoch: int = Field(0, ge=0, description="stop mixing from this epoch on; 0 never stops")


class Optimizer(Section):
    """Optimiser, created by timm."""

    name: str = Field("adamw", description="any optimiser name of timm (adamw, lamb, sgd, ...)")
    learning_rate: Positive = Field(1e-3, description="base learning rate, not scaled by anything")
    weight_decay: NonNegative = Field(0.01, description="weight decay")
    decay_bias_and_norm: bool = Field(True, description="apply weight decay to 1-D parameters too")
    momentum: Fraction = Field(0.9, description="momentum of SGD-like optimisers")
    betas: tuple[float, float] | None = Field(None, description="betas of Adam-like optimisers; null keeps their own")
    eps: Positive | None = Field(None, description="epsilon of Adam-like optimisers; null keeps their own")


class Schedule(Section):
    """Learning-rate schedule per epoch, created by timm."""

    name: Literal["constant", "step", "cosine"] = "step"
    step_epochs: Count = Field(4, description="epochs between two decays of `step`")
    gamma: Fraction = Field(0.2, description="factor of one decay of `step`")
    min_learning_rate: NonNegative = Field(0.0, description="floor of `cosine`")
    warmup_epochs: int = Field(0, ge=0, description="epochs of linear warm-up")
    warmup_learning_rate: NonNegative = Field(0.0, description="learning rate the warm-up starts from")


class Training(Section):
    """The training loop."""

    epochs: Count = Field(10, description="epochs")
    batch_size: Count = Field(128, description="images per optimiser step before accumulation")
    eval_batch_size: Count | None = Field(None, description="images per evaluation batch; null uses batch_size")
    accumulation_steps: Count = Field(1, description="batches whose gradients are added up for one optimiser step")
    seed: int = Field(42, ge=0, description="seed of weights, data order, dropout and augmentation")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto takes a GPU if there is one")
    amp: Literal["off", "fp16", "bf16"] = Field("off", description="automatic mixed precision")
    clip_grad_norm: Positive | None = Field(None, description="largest gradient norm; null does not clip")
    ema_decay: float | None = Field(None, gt=0.0, lt=1.0, description="decay of averaged weights, then validated")
    deterministic: bool = Field(True, description="refuse operations that are not reproducible")
    checkpoint_every: Count = Field(1, description="epochs between checkpoints")
    keep_checkpoints: Count = Field(2, description="newest checkpoints kept per run")


class Tracking(Section):
    """Where numbers go beside the study's database."""

    mlflow: bool = Field(False, description="log to MLflow")
    mlflow_uri: str = Field("sqlite:///runs/mlflow.db", description="MLflow tracking URI")
    mlflow_experiment: str | None = Field(None, description="experiment; the space's or the run's name by default")
    wandb: bool = Field(False, description="log to Weights & Biases")
    wandb_project: str = Field("spikebench", min_length=1, description="W&B project")
    wandb_offline: bool = Field(False, description="write W&B's files for a later `wandb sync`, send nothing")


class RunConfig(Section):
    """One training run, complete: the resolved form of a YAML file of `configs/`."""

    compat: Compat = Field("none", description="thesis sets every switch the file leaves open as DeniBademi/Thesis did")
    model: Model
    neuron: Neuron
    encoder: Encoder
    loss: Loss = CrossEntropyLoss()
    data: Data = DigitsData()
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    training: Training = Training()
    tracking: Tracking = Tracking()

    @model_validator(mode="before")
    @classmethod
    def _fill_partners(cls, values: Any) -> Any:
        return with_quirks(with_partners(values)) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        found = misfits(self.model_dump())
        if found:
            text = "; ".join(f"{misfit.key}: {misfit.message}" for misfit in found)
            raise PydanticCustomError("misfit", "{text}", {"text": text, "misfits": found})
        return self
