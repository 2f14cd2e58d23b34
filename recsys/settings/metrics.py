"""[metrics]: numbers of the newest night for Prometheus."""

from __future__ import annotations

from typing import Annotated

from pydantic import field_validator

from recsys.settings.places import IN_STATE
from recsys.settings.section import Section


class MetricsSettings(Section):
    """Numbers of the newest night for Prometheus, written at its end whether it succeeds or not."""

    # a file *.prom in the folder of node_exporter's textfile collector; None: none
    textfile: Annotated[str | None, IN_STATE] = None

    @field_validator("textfile")
    @classmethod
    def _that_the_collector_reads(cls, path: str | None) -> str | None:
        if path is not None and not path.endswith(".prom"):
            raise ValueError("node_exporter reads files whose names end in .prom; give it such a name")
        return path
