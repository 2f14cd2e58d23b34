"""[export]: the copy of the candidate table for downstream services.

`kind` chooses the target, and a kind has keys of its own: a class of settings, in `KINDS` under its name.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from recsys.settings.section import Section


class ExportSettings(Section):
    """Keys that every export target has; each kind adds its own."""

    kind: str  # which target

    @property
    def wanted(self) -> bool:
        """Whether anything is exported."""
        return True

    @classmethod
    def variant(cls, given: Any) -> type[Section]:
        """The settings of the kind that a section of plain values names; those of files where it names none."""
        return KINDS.get(given.get("kind", "files") if isinstance(given, dict) else "files", FileExportSettings)


class FileExportSettings(ExportSettings):
    """Parquet files or a CSV file, switched in by a link."""

    kind: Literal["files"] = Field(default="files", exclude=True)  # not written: a section without a kind is this one
    path: str | None = None  # None: nothing is exported
    format: Literal["parquet", "csv"] = "parquet"
    layout: Literal["long", "wide"] = "long"  # a row a candidate, or a row a user with a list of items
    columns: dict[str, str] = Field(default_factory=dict)  # ours = theirs: which columns, in this order; empty: all

    @property
    def wanted(self) -> bool:
        """Whether there is a path."""
        return self.path is not None


KINDS: Final[dict[str, type[ExportSettings]]] = {"files": FileExportSettings}  # `recsys.exports.registry` adds to it


def _of_its_kind(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    kind = given.get("kind", "files")
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1, cutoff=0.0)[0]
        problem = PydanticCustomError(
            "export_kind",
            "There is no such export target; did you mean {near}? There are {known}",
            {"near": repr(near), "known": ", ".join(sorted(KINDS))},
        )
        raise ValidationError.from_exception_data("export", [InitErrorDetails(type=problem, loc=("kind",), input=kind)])
    return KINDS[kind].model_validate(given)


Export = Annotated[SerializeAsAny[ExportSettings], BeforeValidator(_of_its_kind)]
