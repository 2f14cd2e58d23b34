"""A night's record as sections read it: whatever a step did not record is empty, never an error.

A record is JSON-friendly: `name`, `run_id`, `started` (ISO 8601), `status`, `steps` (by name: `report`, `seconds`,
`peak_bytes`), `verdict` or None, `about` (seed, kind of model, program's version, MLflow's link). Records of older
programs lack some of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Night:
    """A record with empty values in place of what is missing."""

    record: Mapping[str, Any] = field(default_factory=dict)

    def step(self, name: str) -> Mapping[str, Any]:
        """Return a step's report."""
        return mapping(mapping(mapping(self.record.get("steps")).get(name)).get("report"))

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """The gate's verdict; None where no gate judged."""
        found = self.record.get("verdict") or self.step("judge").get("verdict") or self.step("judge")
        return found if mapping(found).get("passed") is not None else None

    @property
    def evaluated(self) -> Mapping[str, Any]:
        """Report of the step evaluate."""
        return self.step("evaluate")

    @property
    def served(self) -> str:
        """Name of the served ranker: "blend" or "model"."""
        return str(self.evaluated.get("served") or "model")

    @property
    def about(self) -> Mapping[str, Any]:
        """Facts beside the steps' reports."""
        return mapping(self.record.get("about"))


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def rows(value: Any) -> list[Any]:
    """Return a list as it is, and an empty one for anything else."""
    return list(value) if isinstance(value, (list, tuple)) else []
