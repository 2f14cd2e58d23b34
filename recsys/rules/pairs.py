"""Rules on a user and an item: markets, and the least score.

Shapes: b users, P pairs, V items (arrays by code have V + 1 rows), g values of an item, u values of a user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl

from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.ingestion.contracts import nearest, whole_text
from recsys.rules.base import Floor, Pair, Shop
from recsys.rules.catalogue import values_of
from recsys.settings.rules import MarketRuleSettings, MinScoreRuleSettings

NOTHING = -1  # no value of a user


def need_user_attribute(rule: str, attribute: str, shop: Shop) -> None:
    """Refuse a user attribute that is not declared.

    Raises
    ------
    InputError
        Names the rule, the attribute, and the nearest one.
    """
    known = shop.user_attributes
    if attribute not in known:
        has = f"did you mean {nearest(attribute, known, n=1)}?" if known else "it has none."
        raise InputError(
            f"rules.{rule} looks at the user attribute {attribute!r}, which [users] does not declare; {has}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Market(Pair):
    """Items that share a value with the user.

    Attributes
    ----------
    attribute
        Of users.
    values, numbers
        int32 [V + 1, g], and the number of each value.
    everywhere
        bool [V + 1]: items without a value.
    unknown
        Whether users without a value get items that have one.
    """

    kind: ClassVar[str] = "market"

    attribute: str
    values: np.ndarray
    numbers: dict[str, int]
    everywhere: np.ndarray
    unknown: bool

    @classmethod
    def of(cls, name: str, settings: MarketRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        need_user_attribute(name, settings.user, shop)
        values, numbers = values_of(name, settings.item, settings.separator, shop)
        return cls(
            name=name,
            attribute=settings.user,
            values=values,
            numbers=numbers,
            everywhere=values[:, 0] == len(numbers),
            unknown=settings.unknown == "all",
        )

    def prepared(self, histories: Sequences) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the users' values, int32 [b, u], and which users have none, bool [b]."""
        attributes = histories.attributes
        if attributes is None or self.attribute not in attributes.columns:
            return np.full((len(histories), 1), NOTHING, dtype=np.int32), np.ones(len(histories), dtype=bool)
        column = attributes[self.attribute]
        text = whole_text(pl.col(column.name), column.dtype)  # as `values_of` writes the items' numbers
        lists = column if column.dtype == pl.List else column.to_frame().select(pl.concat_list(text)).to_series()
        own = [[value for value in one or () if value is not None] for one in lists.to_list()]
        widest = max([1, *map(len, own)])
        found = np.full((len(own), widest), NOTHING, dtype=np.int32)
        for row, values in enumerate(own):
            found[row, : len(values)] = [self.numbers.get(str(value), NOTHING) for value in values]
        return found, np.array([not values for values in own], dtype=bool)

    def fits(self, prepared: Any, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """See `Pair`."""
        users, nameless = prepared
        fit = self.everywhere[codes]
        if self.unknown:
            fit = fit | nameless[rows]
        for own in users.T:
            for values in self.values.T:
                fit = fit | (own[rows] == values[codes])
        return fit


@dataclass(frozen=True, kw_only=True, eq=False)
class MinScore(Floor):
    """The model's, or its blend's, least score."""

    kind: ClassVar[str] = "min_score"

    @classmethod
    def of(cls, name: str, settings: MinScoreRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        return cls(name=name, least=settings.score)
