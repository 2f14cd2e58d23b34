"""Sections whose `kind` chooses their keys: export targets, rules."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from recsys.settings.section import Section

Kind = TypeVar("Kind", bound=Section)


def validated(given: Mapping[str, Any], kind: Any, kinds: Mapping[str, type[Kind]], section: str, what: str) -> Kind:
    """Make the settings of a kind.

    Parameters
    ----------
    given
        The section's plain values.
    kind
        As the section names it.
    kinds
        Name to settings.
    section, what
        Of the messages: the section, and "export target", say.

    Raises
    ------
    ValidationError
        There is no such kind, or its keys are wrong.
    """
    if not isinstance(kind, str) or kind not in kinds:
        near = difflib.get_close_matches(str(kind), kinds, n=1, cutoff=0.0)[0]
        problem = PydanticCustomError(
            "no_such_kind",
            "There is no such {what}; did you mean {near}? There are {known}",
            {"what": what, "near": repr(near), "known": ", ".join(sorted(kinds))},
        )
        raise ValidationError.from_exception_data(section, [InitErrorDetails(type=problem, loc=("kind",), input=kind)])
    return kinds[kind].model_validate(given)
