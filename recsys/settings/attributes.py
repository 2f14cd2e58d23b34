"""Attributes of items or of users, and the table that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from recsys.features.declaration import Feature, check_features
from recsys.settings.conditions import group_count, pattern_problem
from recsys.settings.database import Queried
from recsys.settings.places import IN_DATA
from recsys.settings.section import Section
from recsys.settings.source import SourceSettings

RESERVED = ("item_id", "user_id", "title", "sentence")  # columns of prepared tables, which no attribute can be


class AttributeSettings(Section):
    """One attribute of an item or of a user."""

    renamed: ClassVar[Mapping[str, str]] = {"look_ups": "lookups"}

    column: str | None = None  # of the source; None: the one of the attribute's own name
    pattern: str | None = None  # a regular expression whose first group is the value; None: all of the text
    lookups: int | None = Field(default=None, ge=1, le=8)  # rows of the table a value; None: model.attribute_lookups

    @model_validator(mode="after")
    def _pattern_has_a_group(self) -> Self:
        if self.pattern is None:
            return self
        problem = pattern_problem(self.pattern)
        if problem is not None:
            raise ValueError(f"pattern = {self.pattern!r} is no regular expression that can be run: {problem}")
        if not group_count(self.pattern):
            raise ValueError(f"pattern = {self.pattern!r} has no group; put what is the value into brackets")
        return self


class CategoricalSettings(AttributeSettings):
    """One categorical attribute: a value, or several."""

    kind: Literal["multi", "single"] = "multi"  # single: at most one value, as crosses need it
    separator: str | None = None  # multi: splits one string into several values ("a|b")
    pooling: Literal["mean", "sum", "attention"] = "mean"  # multi: how the vectors of several values become one

    @model_validator(mode="after")
    def _single_is_not_split(self) -> Self:
        if self.kind == "single" and self.separator is not None:
            raise ValueError(f'separator = {self.separator!r} splits what kind = "single" says is one value; drop one')
        return self


class NumericSettings(AttributeSettings):
    """One numeric attribute: its bucket is looked up, with about equally many training values in each."""

    buckets: int = Field(default=32, ge=2, le=10_000)


class CrossSettings(Section):
    """The combination of several attributes as one more."""

    renamed: ClassVar[Mapping[str, str]] = {"look_ups": "lookups"}

    of: Annotated[tuple[str, ...], Field(min_length=2)]  # numeric ones, and categorical ones of kind "single"
    lookups: int | None = Field(default=None, ge=1, le=8)  # None: model.attribute_lookups


class IdMapSettings(Queried):
    """A file, or the rows of a database, that translates the ids of items or users into the log's."""

    source: Annotated[str, IN_DATA]  # each line, or row: the log's id, the other id
    separator: str = " "
    # json: one object, the other ids = the log's; None: a database by its ending, else csv
    format: Literal["csv", "json", "sqlite", "duckdb"] | None = None


class AttributedSettings(SourceSettings):
    """A table of items or of users, and which of its columns become features of the multiplexed table."""

    categorical: dict[str, CategoricalSettings] = Field(default_factory=dict)
    numeric: dict[str, NumericSettings] = Field(default_factory=dict)
    crosses: dict[str, CrossSettings] = Field(default_factory=dict)
    id_map: IdMapSettings | None = None
    # of the rows of one reading that share an id: the last, or of each attribute the value that most of them have (of
    # equals the last), as a log needs that is its own catalogue; another reading's rows replace them in either case
    several: Literal["last", "most-frequent"] = "last"

    @model_validator(mode="after")
    def _parts_are_enough(self) -> Self:
        if self.watermark is None:
            return self
        if self.id_map is not None:
            raise ValueError(
                "watermark and id_map do not go together: rows that the map does not know yet would not be read again; "
                "join the map in the query"
            )
        if self.several == "most-frequent":
            raise ValueError(
                'watermark and several = "most-frequent" do not go together: a reading from a watermark on has too few '
                "rows to count; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _features_fit_together(self) -> Self:
        for kind in ("categorical", "numeric", "crosses"):
            for name in getattr(self, kind):
                if name in RESERVED:
                    raise ValueError(
                        f"{kind} cannot hold {name!r}, which is a name of ours; call the attribute something else and "
                        f"name its column: {{ column = {name!r} }}"
                    )
        if self.categorical or self.numeric or self.crosses:
            self.features(1)
        return self

    def features(self, lookups: int, prefix: str = "") -> tuple[Feature, ...]:
        """The declared features: categorical ones, numeric ones, crosses.

        Parameters
        ----------
        lookups
            Of those that do not say how many.
        prefix
            Before each name, which salts the look-ups: a user's country and an item's are two features.

        Raises
        ------
        ValueError
            They do not make sense together; names one.
        """
        found = [
            Feature(name=prefix + name, lookups=of.lookups or lookups, kind=of.kind, pooling=of.pooling)
            for name, of in self.categorical.items()
        ]
        found += [
            Feature(name=prefix + name, lookups=of.lookups or lookups, kind="numeric", buckets=of.buckets)
            for name, of in self.numeric.items()
        ]
        found += [
            Feature(
                name=prefix + name,
                lookups=of.lookups or lookups,
                kind="crossed",
                of=tuple(prefix + part for part in of.of),
            )
            for name, of in self.crosses.items()
        ]
        return check_features(found) if found else ()
