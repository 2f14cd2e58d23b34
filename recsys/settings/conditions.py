"""Conditions on rows of a source, and the regular expressions in them."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import model_serializer, model_validator

from recsys.settings.section import Section


class Condition(Section):
    """A condition on a row of a source: one column and one test. A missing value passes no other test."""

    column: str  # of the source, by the source's own name
    starts_with: str | None = None  # the value as text begins with this
    matches: str | None = None  # a regular expression is found in the value as text; Rust's: no look-around
    one_of: tuple[bool | str | int | float, ...] | None = None  # the value as text is one of these
    below: float | None = None  # the value as a number; text that is no number passes none of the four
    at_most: float | None = None
    above: float | None = None
    at_least: float | None = None
    missing: bool | None = None  # true: there is no value, or a blank one; false: there is one

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        given = [test for test in CONDITION_TESTS if getattr(self, test) is not None]
        if len(given) != 1:
            has = " and ".join(given) or "none"
            raise ValueError(f"a condition on {self.column!r} needs one test, not {has}: {', '.join(CONDITION_TESTS)}")
        if self.matches is not None:
            problem = pattern_problem(self.matches)
            if problem is not None:
                raise ValueError(f"matches = {self.matches!r} is no regular expression that can be run: {problem}")
        return self

    @property
    def test(self) -> str:
        """The name of its test."""
        return next(test for test in CONDITION_TESTS if getattr(self, test) is not None)

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"column": self.column, self.test: getattr(self, self.test)}

    def __str__(self) -> str:
        test, value = self.test, getattr(self, self.test)
        value = list(value) if isinstance(value, tuple) else value
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        return f"{self.column} {test} {json.dumps(value, ensure_ascii=False)}"


CONDITION_TESTS = tuple(name for name in Condition.model_fields if name != "column")


def pattern_problem(pattern: str) -> str | None:
    """Return what the engine that runs regular expressions (Rust's, by polars) has against one, in a line; or None."""
    import polars as pl  # here, because most commands that read settings run no expression

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        lines = str(error).splitlines()
        told = next((line for line in lines if line.startswith("error: ")), lines[0])
        return told.removeprefix("regex ").removeprefix("error: ").rstrip(".")
    return None


def group_count(pattern: str) -> int:
    """Count the groups of a regular expression that the engine can run."""
    import polars as pl

    return len(pl.Series([""]).str.extract_groups(pattern).struct.fields)
