"""One training run, complete."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from configs.compat import Compat, with_quirks
from configs.fit import misfits, with_partners
from configs.schema.base import Section
from configs.schema.data import Data, DigitsData
from configs.schema.encoder import Encoder
from configs.schema.energy import Energy
from configs.schema.loss import CrossEntropyLoss, Loss
from configs.schema.model import Model
from configs.schema.neuron import Neuron
from configs.schema.recipe import Augmentation, Optimizer, Schedule, Training
from configs.schema.tracking import Tracking


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
    energy: Energy = Energy()
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
