"""Rules on a list: boosts, pins, at most so many of a value, and diversity.

Shapes: b users, m items of a list, V items (arrays by code have V + 1 rows), g values of an item, E width of texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from recsys.columns import ITEM_ID
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.ingestion.contracts import nearest
from recsys.rules.base import Boost, Cap, Pin, Shop, Spread
from recsys.rules.catalogue import meeting, rows_meeting, values_of
from recsys.rules.pairs import need_user_attribute
from recsys.settings import Condition
from recsys.settings.rules import AtMostRuleSettings, BoostRuleSettings, DiverseRuleSettings, PinRuleSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Boosted(Boost):
    """Items that meet conditions score more, or less."""

    kind: ClassVar[str] = "boost"

    @classmethod
    def of(cls, name: str, settings: BoostRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        met, remarks = meeting(name, settings.where, shop)
        return cls(name=name, added=np.where(met, settings.by, 0.0).astype(np.float32), remarks=remarks)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pinned(Pin):
    """Items at fixed places, for everybody or for users whose attributes meet conditions."""

    kind: ClassVar[str] = "pin"

    codes: np.ndarray
    place: int
    where: tuple[Condition, ...] = ()

    @classmethod
    def of(cls, name: str, settings: PinRuleSettings, shop: Shop) -> Self:
        """See `Rule`.

        Raises
        ------
        InputError
            None of the items is in the catalogue, or a condition looks at an attribute that users do not have.
        """
        import polars as pl

        for condition in settings.where:
            need_user_attribute(name, condition.column, shop)
        ids = pl.Series(ITEM_ID, [str(item) for item in settings.items], dtype=pl.String)
        codes = shop.vocabulary.encode(ids)
        unknown = ids.filter(pl.Series(codes == 0)).to_list()
        known = shop.vocabulary.items.cast(pl.String).to_list()
        if len(unknown) == len(ids):
            raise InputError(
                f"rules.{name} pins {unknown[0]!r}, which is no item; the nearest ids are {nearest(unknown[0], known)}."
            )
        remarks = tuple(f"rules.{name} pins {item!r}, which is no item; it is not shown." for item in unknown)
        shown = list(dict.fromkeys(codes[codes > 0].tolist()))
        codes = np.array(shown, dtype=np.int32)
        return cls(name=name, codes=codes, place=settings.place - 1, where=settings.where, remarks=remarks)

    def meant_for(self, histories: Sequences) -> np.ndarray:
        """See `Pin`; users of whom an attribute is not known do not meet its condition."""
        everybody = np.ones(len(histories), dtype=bool)
        if not self.where:
            return everybody
        attributes = histories.attributes
        known = () if attributes is None else attributes.columns
        if attributes is None or any(condition.column not in known for condition in self.where):
            return ~everybody
        return np.logical_and.reduce([rows_meeting(attributes, condition) for condition in self.where])


@dataclass(frozen=True, kw_only=True, eq=False)
class AtMost(Cap):
    """At most n items of a value in a list."""

    kind: ClassVar[str] = "at_most"

    @classmethod
    def of(cls, name: str, settings: AtMostRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        values, numbers = values_of(name, settings.column, settings.separator, shop)
        remarks = () if numbers else (f"rules.{name} counts values of {settings.column!r}, and no item has one.",)
        return cls(name=name, values=values, count=len(numbers), most=settings.n, remarks=remarks)


@dataclass(frozen=True, kw_only=True, eq=False)
class Diverse(Spread):
    """Maximal marginal relevance.

    Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries", SIGIR 1998: the next item is the one with the largest (1 - weight) relevance - weight x likeness to the
    most alike item above it.

    Relevance is the score, min-max-normalised in the user's pool: 1 for the best and 0 for the last, so that a weight
    means the same for every user. Ranks in place of scores lose more accuracy for the same likeness, as they push down
    items that the model is sure of. Rows of the fallback, whose scores are places, come below the model's.

    Attributes
    ----------
    units
        float32 [V + 1, E] unit vectors of texts: likeness is their cosine.
    values, count
        int32 [V + 1, g] of an attribute, `count` for none: likeness is the share of common values among all (Jaccard).
    """

    kind: ClassVar[str] = "diverse"

    weight: float
    pool: int
    units: np.ndarray | None = None
    values: np.ndarray | None = None
    count: int = 0

    @classmethod
    def of(cls, name: str, settings: DiverseRuleSettings, shop: Shop) -> Self:
        """See `Rule`.

        Raises
        ------
        InputError
            There is no such column, or there are no texts.
        """
        common = {"name": name, "weight": settings.weight, "pool": settings.pool}
        if settings.column is not None:
            values, numbers = values_of(name, settings.column, settings.separator, shop)
            return cls(**common, values=values, count=len(numbers))  # type: ignore[arg-type]
        if shop.text_vectors is None:
            raise InputError(
                f"rules.{name} compares items by their text, and {shop.called} has none; set items.text, or name a "
                "column whose values make items alike."
            )
        return cls(**common, units=shop.text_vectors)  # type: ignore[arg-type]

    def likeness(self, codes: np.ndarray) -> np.ndarray:
        """See `Spread`."""
        if self.units is not None:
            own = self.units[codes]
            return np.matmul(own, own.transpose(0, 2, 1))
        assert self.values is not None
        values = self.values[codes]  # [b, m, g]
        has = values != self.count
        common = np.zeros((*codes.shape, codes.shape[1]), dtype=np.float32)
        for one in range(values.shape[2]):
            for other in range(values.shape[2]):
                same = values[:, :, None, one] == values[:, None, :, other]
                common += same & has[:, :, None, one]
        counts = has.sum(axis=2, dtype=np.float32)
        either = counts[:, :, None] + counts[:, None, :] - common
        return common / np.maximum(either, 1)
