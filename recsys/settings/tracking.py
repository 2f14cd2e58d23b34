"""[tracking]: MLflow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.settings.places import IN_STATE
from recsys.settings.section import Section


class TrackingSettings(Section):
    """MLflow."""

    uri: Annotated[str, IN_STATE] = (
        "sqlite:///mlruns/mlflow.db"  # any MLflow server; its artifacts lie beside a local store
    )
    experiment: str | None = Field(default=None, min_length=1, max_length=256)  # None: the configuration's name
    register_model: bool = True  # the bundle becomes a version of a registered model
