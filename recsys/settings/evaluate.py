"""[evaluate]: the offline report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.settings.section import Section


class EvaluateSettings(Section):
    """The offline report."""

    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = (5, 10, 20, 100)
    exclude_seen: bool = True  # the history's own items cannot be ranked
    baselines: tuple[Literal["popularity", "transitions", "text+transitions"], ...] = (
        "popularity",
        "transitions",
        "text+transitions",
    )
