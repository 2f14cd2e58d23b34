"""[export] and [export.NAME]: the copies of the candidate table for downstream services.

`kind` chooses the target, and a kind has keys of its own (`recsys.settings.export_kinds`). `[export]` alone is one
target, called "export"; a table below it is one more, called by its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, ConfigDict, SerializeAsAny, model_validator

from recsys.settings.by_kind import validated
from recsys.settings.export_kinds import KINDS, ExportSettings, FileExportSettings
from recsys.settings.section import Section

__all__ = ["KINDS", "UNNAMED", "Export", "ExportSettings", "ExportTargets", "FileExportSettings", "targets_of"]

UNNAMED: Final = "export"  # name of the target that `[export]` itself describes


def _of_its_kind(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    return validated(given, given.get("kind", "files"), KINDS, "export", "export target")


_Target = Annotated[SerializeAsAny[ExportSettings], BeforeValidator(_of_its_kind)]


class ExportTargets(Section):
    """Several targets, by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Target]

    @property
    def targets(self) -> dict[str, ExportSettings]:
        """Name to settings, in the configuration's order."""
        return dict(self.__pydantic_extra__)

    @property
    def wanted(self) -> bool:
        """Return whether anything is exported."""
        return any(target.wanted for target in self.targets.values())

    @model_validator(mode="after")
    def _each_can_be_addressed(self) -> Self:
        for name, target in self.targets.items():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
                raise ValueError(f"an export target's name has letters, digits, _ and - only, not {name!r}")
            if not target.wanted and "path" not in target.model_fields_set:
                raise ValueError(f'export.{name}.path is missing; add it, or set it to "none" to leave this target out')
        return self


def _one_or_several(given: Any) -> Any:
    if isinstance(given, ExportSettings | ExportTargets):
        return given
    if not isinstance(given, dict):
        return ExportSettings.model_validate(given)  # which says that it is no section
    kind = ExportSettings.variant(given)
    named = {key: value for key, value in given.items() if isinstance(value, dict) and key not in kind.model_fields}
    if not named:
        return _of_its_kind(given)
    own = {key: value for key, value in given.items() if key not in named}
    if own and UNNAMED in named:
        raise ValueError(f"[export] is a target of the name {UNNAMED!r} itself; call [export.{UNNAMED}] otherwise")
    return ExportTargets.model_validate({UNNAMED: own} | named if own else named)


Export = Annotated[SerializeAsAny[ExportSettings | ExportTargets], BeforeValidator(_one_or_several)]


def targets_of(export: ExportSettings | ExportTargets) -> Mapping[str, ExportSettings]:
    """Name to settings of the targets that are wanted, in the configuration's order."""
    targets = export.targets if isinstance(export, ExportTargets) else {UNNAMED: export}
    return {name: target for name, target in targets.items() if target.wanted}
