"""[compute]: where the work of a run is done. Nothing that a run makes depends on it."""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import Field, field_validator

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

    @field_validator("address")
    @classmethod
    def _names_a_cluster(cls, value: str) -> str:
        if value not in ("auto", "local") and not _ADDRESS.fullmatch(value):
            raise ValueError(
                f'{value!r} names no cluster; write "auto", "local", or the address of its head, such as '
                '"10.0.0.5:6379" or "ray://10.0.0.5:10001"'
            )
        return value
