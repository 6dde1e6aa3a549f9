"""Where numbers go beside the database."""

from __future__ import annotations

from pydantic import Field, field_serializer

from configs.problems import mask_credentials
from configs.schema.base import Section


class Tracking(Section):
    """Where numbers go beside the study's database."""

    mlflow: bool = Field(False, description="log to MLflow")
    mlflow_uri: str = Field(
        "sqlite:///runs/mlflow.db", description="MLflow tracking URI; the value of ${VAR} in it is never stored"
    )
    mlflow_experiment: str | None = Field(None, description="experiment; the space's or the run's name by default")
    mlflow_system_metrics: bool = Field(
        False, description="let MLflow measure the machine: CPU, memory, disk, network, GPUs"
    )
    wandb: bool = Field(False, description="log to Weights & Biases")
    wandb_project: str = Field("spikebench", min_length=1, description="W&B project")
    wandb_offline: bool = Field(False, description="write W&B's files for a later `wandb sync`, send nothing")

    @field_serializer("mlflow_uri", when_used="json")
    def _without_password(self, uri: str) -> str:
        """Keep passwords out of everything that is written: databases, checkpoints, files, other services."""
        return mask_credentials(uri)
