"""The rules of a configuration, joined: what they leave of the items, and lists made by them.

Shapes: b users, m candidates each (best first), q pinned items, k places, V items (arrays by code have V + 1 rows).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np

from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.ingestion.contracts import nearest
from recsys.rules.base import Boost, Cap, Eligible, Floor, Pair, Pin, Rule, Seen, Shop, Spread
from recsys.rules.choose import Chosen, Pinned, chosen
from recsys.rules.registry import RULES
from recsys.settings import Settings

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Candidates of b users, best first.

    Attributes
    ----------
    codes, scores
        int32 and float32 [b, m]; code 0 where there are no more.
    own
        bool [b, m]: rows of the model or of its blend; the others are the fallback's, and come after them.
    ceiling
        float32 [b]: no item of the model that is not among these scores more; minus infinity where all are.
    """

    codes: np.ndarray
    scores: np.ndarray
    own: np.ndarray
    ceiling: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """Rules of a configuration, made for a shop; see recsys/rules/base.py for their order.

    Attributes
    ----------
    rules
        In the configuration's order.
    shop
        That they were made for.
    digest
        sha256 (hex) of their settings, and of the items that they allow.
    """

    rules: tuple[Rule, ...]
    shop: Shop
    digest: str

    @property
    def names(self) -> tuple[str, ...]:
        """The rules' names, in order."""
        return tuple(rule.name for rule in self.rules)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences on what is probably not meant."""
        return tuple(remark for rule in self.rules for remark in rule.remarks)

    def _of(self, kind: Callable[..., R]) -> list[R]:
        return [rule for rule in self.rules if isinstance(rule, cast(type, kind))]  # type: ignore[misc]

    @cached_property
    def allowed(self) -> np.ndarray:
        """bool [V + 1]: items that may be recommended to anybody."""
        return allowed_by(self._of(Eligible), self.shop.size)

    @cached_property
    def by_user(self) -> bool:
        """Return whether any rule does more than leave items out for everybody."""
        return any(not isinstance(rule, Eligible) for rule in self.rules)

    @cached_property
    def least(self) -> float:
        """The least score of the model's rows."""
        return max((rule.least for rule in self._of(Floor)), default=-np.inf)

    @cached_property
    def added(self) -> np.ndarray | None:
        """float32 [V + 1], added to the scores of the model's rows; None: nothing."""
        boosts = self._of(Boost)
        return np.stack([rule.added for rule in boosts]).sum(axis=0, dtype=np.float32) if boosts else None

    @cached_property
    def most_added(self) -> float:
        """The most that an item's score can rise."""
        return 0.0 if self.added is None else max(0.0, float(self.added.max()))

    @cached_property
    def _spread(self) -> Spread | None:
        return next(iter(self._of(Spread)), None)

    def reach(self, k: int) -> int:
        """Number of candidates that a list of k is made of."""
        return k if self._spread is None else max(k, self._spread.pool)

    def joined(self, allowed: np.ndarray | None) -> np.ndarray | None:
        """bool [V + 1]: items that a shelf allows and the rules, too; None: every item."""
        if not self._of(Eligible):
            return allowed
        return self.allowed if allowed is None else self.allowed & allowed

    def hiding(self, histories: Sequences, exclude_seen: bool, now: np.ndarray | None = None) -> Sequences | None:
        """Events of histories whose items stay out of their user's list; None: as `exclude_seen` says.

        Parameters
        ----------
        now
            int64 [b]: the moment of each user's list, in microseconds since 1970; None: the shop's.
        """
        rules = self._of(Seen)
        if not rules:
            return None
        now = self._now(len(histories)) if now is None else now
        hidden = np.full(len(histories.items), exclude_seen)
        for rule in sorted(rules, key=lambda rule: rule.has_the_last_word):
            hidden = rule.hides(histories, hidden, now)
        return replace(histories, attributes=None, context=None).keep(hidden)

    def _now(self, users: int) -> np.ndarray:
        return np.full(users, int(self.shop.now.timestamp() * 1_000_000), dtype=np.int64)

    def choose(
        self,
        histories: Sequences,
        candidates: Candidates,
        hiding: Sequences | None,
        *,
        k: int,
        allowed: np.ndarray | None = None,
    ) -> Chosen:
        """Make lists of k out of candidates.

        Parameters
        ----------
        hiding
            Events whose items stay out; the candidates lack them already, pinned items may be among them.
        allowed
            bool [V + 1]: items that may be recommended at all, for pinned ones; None: those of the rules.
        """
        codes, scores, own = candidates.codes, candidates.scores, candidates.own
        rows = np.broadcast_to(np.arange(len(codes))[:, None], codes.shape)
        usable = codes != PADDING
        pairs = [(rule, rule.prepared(histories)) for rule in self._of(Pair)]
        for rule, prepared in pairs:
            usable = usable & rule.fits(prepared, rows, codes)
        if self.added is not None:
            scores = np.where(own, scores + self.added[codes], scores)
            usable = usable & (~own | (scores > (candidates.ceiling + np.float32(self.most_added))[:, None]))
            order = np.lexsort((codes, -np.where(own, scores, 0.0), ~own), axis=1)
            # the fallback's rows keep their order: their scores are places
            order = np.where(np.take_along_axis(own, order, axis=1), order, np.arange(order.shape[1])[None, :])
            codes, scores, own, usable = (np.take_along_axis(x, order, axis=1) for x in (codes, scores, own, usable))
        else:
            order = None
        found = chosen(
            codes,
            scores,
            own,
            usable,
            self._pinned(histories, hiding, pairs, k, self.allowed if allowed is None else allowed & self.allowed),
            k=k,
            caps=self._of(Cap),
            spread=self._spread,
        )
        return found if order is None else found.through(order)

    def _pinned(
        self,
        histories: Sequences,
        hiding: Sequences | None,
        pairs: Sequence[tuple[Pair, Any]],
        k: int,
        allowed: np.ndarray,
    ) -> Pinned:
        """Places of pinned items: those that may not be recommended, were seen or are not for the user stay out."""
        pins = self._of(Pin)
        places = [(rule, np.int32(code), rule.place + at) for rule in pins for at, code in enumerate(rule.codes)]
        places = [(rule, code, place) for rule, code, place in places if place < k and allowed[code]]
        if not places:
            return Pinned.none(len(histories))
        b = len(histories)
        codes = np.array([code for _, code, _ in places], dtype=np.int32)
        meant = {id(rule): rule.meant_for(histories) for rule in pins}
        shown = np.stack([meant[id(rule)] for rule, _, _ in places], axis=1)  # [b, q]
        rows = np.broadcast_to(np.arange(b)[:, None], shown.shape)
        wide = np.broadcast_to(codes[None, :], shown.shape)
        for rule, prepared in pairs:
            shown = shown & rule.fits(prepared, rows, wide)
        if hiding is not None and len(hiding.items):
            owner = np.repeat(np.arange(b, dtype=np.int64), hiding.lengths)
            shown = shown & ~np.isin(rows * len(allowed) + wide, owner * len(allowed) + hiding.items)
        return Pinned(
            codes=codes,
            places=np.array([place for _, _, place in places], dtype=np.int64),
            shown=shown,
            names=tuple(rule.name for rule, _, _ in places),
        )


def rules_of(settings: Settings, shop: Shop, *, names: Sequence[str] | None = None) -> Rules | None:
    """Make the rules of a configuration for a shop; None: there is none.

    Parameters
    ----------
    names
        Only those; None: all.

    Raises
    ------
    InputError
        There is no rule of a name, a rule does not fit the shop, or the rules leave no item.
    """
    configured = settings.rules.by_name
    for name in names or ():
        if name not in configured:
            near = f"did you mean {nearest(name, configured, n=1)}?" if configured else "it has none."
            raise InputError(f"There is no rule {name!r} in the configuration {settings.name!r}; {near}")
    wanted = {name: of for name, of in configured.items() if names is None or name in names}
    if not wanted:
        return None
    made = tuple(RULES[of.kind].of(name, of, shop) for name, of in wanted.items())
    spreads = [rule.name for rule in made if isinstance(rule, Spread)]
    if len(spreads) > 1:
        raise InputError(f"rules.{spreads[0]} and rules.{spreads[1]} both decide the order of a list; leave one out.")
    digest = hashlib.sha256(
        json.dumps([[name, of.model_dump(mode="json")] for name, of in wanted.items()], sort_keys=True).encode()
    )
    rules = Rules(rules=made, shop=shop, digest="")
    digest.update(np.packbits(rules.allowed).tobytes())
    _check_some_left(rules)
    return replace(rules, rules=_with_hidden_pins(made, shop), digest=digest.hexdigest())


def without(rules: Rules, name: str) -> Rules:
    """The rules without one of them; nothing is made again."""
    return replace(rules, rules=tuple(rule for rule in rules.rules if rule.name != name))


def allowed_by(rules: Sequence[Eligible], size: int) -> np.ndarray:
    """bool [V + 1]: the items that all these rules allow."""
    allowed = np.arange(size + 1) > 0
    for rule in rules:
        allowed &= rule.allowed
    return allowed


def _with_hidden_pins(made: Sequence[Rule], shop: Shop) -> tuple[Rule, ...]:
    """The rules, with a remark on each pinned item that another rule leaves out for everybody."""
    return tuple(replace(rule, remarks=rule.remarks + _hidden(rule, made, shop)) for rule in made)


def _hidden(pin: Rule, rules: Sequence[Rule], shop: Shop) -> tuple[str, ...]:
    codes = pin.codes.tolist() if isinstance(pin, Pin) else []
    items = [shop.vocabulary.items[code - 1] for code in codes]
    by = [_first_without(code, rules) for code in codes]
    return tuple(
        f"rules.{pin.name} pins {item}, which rules.{name} leaves out; it is shown to nobody."
        for item, name in zip(items, by, strict=True)
        if name is not None
    )


def _first_without(code: int, rules: Sequence[Rule]) -> str | None:
    """The first rule that leaves an item out for everybody; None: there is none."""
    return next((rule.name for rule in rules if isinstance(rule, Eligible) and not rule.allowed[code]), None)


def _check_some_left(rules: Rules) -> None:
    if rules.allowed.any() or not rules.shop.size:
        return
    left = np.arange(rules.shop.size + 1) > 0
    for rule in rules.rules:
        if isinstance(rule, Eligible):
            left = left & rule.allowed
            if not left.any():
                remarks = f" {' '.join(rule.remarks)}" if rule.remarks else ""
                raise InputError(
                    f"rules.{rule.name} leaves none of the {rules.shop.size:,} items of {rules.shop.called}; loosen it."
                    f"{remarks}"
                )
