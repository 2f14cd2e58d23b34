"""[evaluate]: the offline report."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from recsys.settings.section import Section

# as settings of other libraries call them
_SAMPLED: Final = ("negatives", "num_negatives", "n_negatives", "negative_samples", "sampled_negatives", "sampling")
Baseline = Literal[
    "popularity", "recent-popularity", "transitions", "item-neighbours", "ease", "text", "text+transitions"
]


class EvaluateSettings(Section):
    """The offline report."""

    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = (5, 10, 20, 100)
    exclude_seen: bool = True  # the history's own items cannot be ranked
    # test questions that are ranked, drawn once by the seed; None: all, or as many as 10^10 scores of questions and
    # items allow (a million items: 10,000)
    users: int | None = Field(default=None, ge=1)
    # what the model is compared with; "ease" inverts a matrix of up to 6,000 items, or small ones of nearest items
    baselines: tuple[Baseline, ...] = ("popularity", "recent-popularity", "transitions", "text+transitions")

    @model_validator(mode="before")
    @classmethod
    def _no_sampled_negatives(cls, given: Any) -> Any:
        for name in _SAMPLED if isinstance(given, dict) else ():
            if name in given:
                raise ValueError(
                    f"sampled negatives ({name}) are not supported, because ranking a target among a sample can order "
                    "models differently than ranking it among all items (Krichene and Rendle, "
                    '"On sampled metrics for item recommendation", KDD 2020); remove the key, every item is ranked'
                )
        return given
