"""Measurement of energy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.schema.base import Section


class Energy(Section):
    """Energy of inference, measured on the whole validation split in every epoch."""

    measure: bool = Field(True, description="report val_energy_uj, val_sop and val_macs, per image")
    cost_table: Literal["45nm_fp32", "45nm_fp16", "45nm_int8"] = Field(
        "45nm_fp32", description="energy of a MAC and of an AC (Horowitz, ISSCC 2014); 45nm_fp32 is 4.6 and 0.9 pJ"
    )
