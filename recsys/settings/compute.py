"""[compute]: where the work of a run is done. Nothing that a run makes depends on it, beyond the rounding of sums."""

from __future__ import annotations

import re
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.settings.section import Section

_ADDRESS: Final = re.compile(r"(ray://)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+):\d+")


class ComputeSettings(Section):
    """The machines that encode text, make candidates and rank what is evaluated."""

    engine: Literal["local", "ray"] = "local"  # "local": this process; "ray": the machines of a Ray cluster
    # the cluster: "auto", the one that this machine belongs to; "local", a new one on this machine alone, for as long
    # as the process lives; or its head, such as "10.0.0.5:6379", or "ray://10.0.0.5:10001" from outside of it
    address: str = "auto"
    cores: int = Field(default=1, ge=1)  # of one task; a process of a task opens the encoder or the bundle once
    retries: int = Field(default=3, ge=0)  # times that a task is done again whose machine or process was lost
    # that train the sequence model together, each on its part of every batch; 1: the process of the run
    training_processes: int = Field(default=1, ge=1)

    @field_validator("address")
    @classmethod
    def _names_a_cluster(cls, value: str) -> str:
        if value not in ("auto", "local") and not _ADDRESS.fullmatch(value):
            raise ValueError(
                f'{value!r} names no cluster; write "auto", "local", or the address of its head, such as '
                '"10.0.0.5:6379" or "ray://10.0.0.5:10001"'
            )
        return value

    @model_validator(mode="after")
    def _several_are_of_a_cluster(self) -> Self:
        if self.training_processes > 1 and self.engine == "local":
            raise ValueError(
                f'training_processes = {self.training_processes} needs engine = "ray"; one process uses all cores of '
                "this machine by itself"
            )
        return self
