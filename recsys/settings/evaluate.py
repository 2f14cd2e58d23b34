"""[evaluate]: the offline report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.settings.section import Section

Baseline = Literal[
    "popularity", "recent-popularity", "transitions", "item-neighbours", "ease", "text", "text+transitions"
]


class EvaluateSettings(Section):
    """The offline report."""

    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = (5, 10, 20, 100)
    exclude_seen: bool = True  # the history's own items cannot be ranked
    # what the model is compared with; "ease" inverts a matrix of up to 6,000 items
    baselines: tuple[Baseline, ...] = ("popularity", "recent-popularity", "transitions", "text+transitions")
