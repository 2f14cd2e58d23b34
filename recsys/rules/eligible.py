"""Rules on items alone: conditions, lists of ids, and times from when to when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from recsys.errors import InputError
from recsys.rules.base import Eligible, Shop
from recsys.rules.catalogue import listed, meeting, moments
from recsys.settings.rules import (
    AllowRuleSettings,
    DenyRuleSettings,
    NeverRuleSettings,
    OnlyRuleSettings,
    ValidRuleSettings,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Only(Eligible):
    """Only items that meet all conditions."""

    kind: ClassVar[str] = "only"

    @classmethod
    def of(cls, name: str, settings: OnlyRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        met, remarks = meeting(name, settings.where, shop)
        return cls(name=name, allowed=met, remarks=remarks)


@dataclass(frozen=True, kw_only=True, eq=False)
class Never(Eligible):
    """No item that meets all conditions."""

    kind: ClassVar[str] = "never"

    @classmethod
    def of(cls, name: str, settings: NeverRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        met, remarks = meeting(name, settings.where, shop)
        return cls(name=name, allowed=_items(shop) & ~met, remarks=remarks)


@dataclass(frozen=True, kw_only=True, eq=False)
class Allow(Eligible):
    """Only the items of a list; ids that the shop does not know are passed over."""

    kind: ClassVar[str] = "allow"

    @classmethod
    def of(cls, name: str, settings: AllowRuleSettings, shop: Shop) -> Self:
        """See `Rule`.

        Raises
        ------
        InputError
            The list cannot be read, or names no item.
        """
        found, ids = listed(name, settings.items, shop)
        if not found.any():
            raise InputError(
                f"rules.{name} allows the {len(ids):,} ids of a list alone, and none of them is an item, such as "
                f"{shop.vocabulary.items[0]!r}; give ids of the catalogue."
            )
        return cls(name=name, allowed=found)


@dataclass(frozen=True, kw_only=True, eq=False)
class Deny(Eligible):
    """No item of a list; ids that the shop does not know are passed over."""

    kind: ClassVar[str] = "deny"

    @classmethod
    def of(cls, name: str, settings: DenyRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        found, ids = listed(name, settings.items, shop)
        remarks: tuple[str, ...] = ()
        if len(ids) and not found.any():
            remarks = (
                f"None of the {len(ids):,} ids that rules.{name} denies is an item; ids look like "
                f"{shop.vocabulary.items[0]!r}.",
            )
        return cls(name=name, allowed=_items(shop) & ~found, remarks=remarks)


@dataclass(frozen=True, kw_only=True, eq=False)
class Valid(Eligible):
    """Items whose first moment has come and whose last one has not passed."""

    kind: ClassVar[str] = "valid"

    @classmethod
    def of(cls, name: str, settings: ValidRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        allowed = _items(shop)
        if settings.from_column is not None:
            begins = moments(name, settings.from_column, shop, end=False)
            allowed[1:] &= (begins <= shop.now).fill_null(True).to_numpy()
        if settings.until_column is not None:
            ends = moments(name, settings.until_column, shop, end=True)
            allowed[1:] &= (ends >= shop.now).fill_null(True).to_numpy()
        return cls(name=name, allowed=allowed)


def _items(shop: Shop) -> np.ndarray:
    """bool [V + 1]: every item, and not the padding."""
    return np.arange(shop.size + 1) > 0
