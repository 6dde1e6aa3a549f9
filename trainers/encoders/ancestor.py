"""The encoders STAL grew from: none, one or two hidden layers, then learnable thresholds per value and time slot."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.encoders.base import Encoded, initial_thresholds, register_encoder, soft_threshold
from trainers.encoders.stal import SlotEncoder, SlotOrder, match_width


class Ancestor(SlotEncoder):
    """spikes = sigma(alpha (repeat(h) - theta)) with h the input or the output of one or two hidden layers.

    A hidden layer is linear, dropout, batch normalisation (left out for a single sample) and ReLU. This is
    SpikeThresholdLearning (freek1/emopain-stl, alpha 25), LAST and, with `mix_channels`, CAST (freek1/stal-v2, alpha
    100).

    Args:
        window_size: values per channel.
        n_channels: channels.
        time_steps: time slots per value (psi).
        l1_size: width of the first hidden layer; 0 for no hidden layer at all.
        l2_size: width of the second; 0 for none.
        drop_p: dropout probability.
        alpha: slope of the threshold sigmoid.
        mix_channels: first mix the channels into one with a 1 x 1 convolution.
        slot_order: see `SlotEncoder`.

    Raises:
        ValueError: a width does not divide what it must divide.
    """

    def __init__(
        self,
        *,
        window_size: int,
        n_channels: int = 1,
        time_steps: int = 5,
        l1_size: int = 0,
        l2_size: int = 0,
        drop_p: float = 0.0,
        alpha: float = 25.0,
        mix_channels: bool = False,
        slot_order: SlotOrder = "time_major",
    ) -> None:
        in_size = window_size * (1 if mix_channels else n_channels)
        super().__init__(in_size, time_steps, slot_order)
        self.n_channels = n_channels
        self.drop_p = drop_p
        self.alpha = alpha
        widths = [in_size, l1_size, l2_size] if l1_size and l2_size else [in_size, l1_size] if l1_size else [in_size]
        out_size = in_size * time_steps
        for width in widths:
            if out_size % width or max(width, in_size) % min(width, in_size):
                raise ValueError(
                    f"a layer of width {width} must divide {out_size} (inputs x time steps), and it and the {in_size} "
                    "inputs must divide one another"
                )
        self.repeats = out_size // widths[-1]
        self.layers = len(widths) - 1
        self.conv = nn.Conv1d(n_channels, 1, 1) if mix_channels else None
        for i in range(self.layers):
            setattr(self, f"lin{i + 1}", nn.Linear(widths[i], widths[i + 1]))
            setattr(self, f"bn{i + 1}", nn.BatchNorm1d(widths[i + 1]))
        self.threshold_adder = initial_thresholds(out_size)

    def forward(self, x: Tensor) -> Encoded:
        """Encode images or windows.

        Args:
            x: [B, ...] with window_size * n_channels values per sample.

        Returns:
            Spikes [B, n * T]; Z of each hidden layer [B, n], wide ones pooled by maximum where there is one layer and
            by average where there are two.
        """
        h = x.flatten(1)
        if self.conv is not None:
            h = self.conv(h.view(len(x), self.n_channels, -1)).flatten(1)  # [B, C, window]: reshaped, not permuted
        hidden = []
        for i in range(1, self.layers + 1):
            h = F.dropout(getattr(self, f"lin{i}")(h), self.drop_p, self.training)
            h = F.relu(getattr(self, f"bn{i}")(h) if len(h) > 1 else h)
            hidden.append(h)
        spikes = soft_threshold(h.repeat_interleave(self.repeats, dim=1), self.threshold_adder, self.alpha)
        zs = [match_width(z, self.in_size, "max" if self.layers == 1 else "average") for z in hidden]
        return Encoded(spikes, *zs)


@register_encoder("ancestor")
def ancestor(*, in_channels: int, img_size: int, time_steps: int = 5, **kwargs: object) -> Ancestor:
    """Build `Ancestor` for images.

    Args:
        in_channels: image channels.
        img_size: image side in pixels.
        time_steps: time steps T.
        kwargs: further arguments of `Ancestor`.

    Returns:
        The encoder.
    """
    return Ancestor(window_size=img_size**2, n_channels=in_channels, time_steps=time_steps, **kwargs)  # type: ignore[arg-type]
