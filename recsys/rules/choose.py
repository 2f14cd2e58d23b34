"""One list out of candidates: pins, caps and diversity, place by place.

Each free place goes to the best candidate that no cap forbids; where diversity is wanted, to the one of the pool with
the largest value, and to the best of the rest where the pool is used up. Everything is worked out for many users at
once.

Shapes: b users, m candidates each (best first), q pinned items, k places, g values of an item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from recsys.columns import PADDING
from recsys.rules.base import Cap, Spread

COUNTS_AT_ONCE: Final = 16_000_000  # of values, by user; bounds memory
LIKENESS_AT_ONCE: Final = 2_000_000  # float32, of pairs of the pool; bounds memory
FROM_A_RULE: Final = -1  # in place of a candidate's column: a pinned item


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Pinned:
    """Items with places of their own.

    Attributes
    ----------
    codes, places, names
        int32 [q], int64 [q] from 0, and the rule of each.
    shown
        bool [b, q]: who gets them.
    """

    codes: np.ndarray
    places: np.ndarray
    shown: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def none(cls, users: int) -> Self:
        """No item for these users."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(codes=nothing.astype(np.int32), places=nothing, shown=np.zeros((users, 0), dtype=bool), names=())

    def select(self, part: slice) -> Pinned:
        """The same of some of the users."""
        return replace(self, shown=self.shown[part])


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Chosen:
    """Lists of k.

    Attributes
    ----------
    codes, scores
        int32 and float32 [b, k]; code 0 and minus infinity where nothing is left. A pinned item has the score of the
        next one below it.
    column
        int64 [b, k]: which candidate it is, or -1.
    pin
        int64 [b, k]: which pinned item it is, or -1.
    rows
        int64 [b]: items of the list.
    usable
        int64 [b]: candidates that it was made of.
    names
        Rules of the pinned items.
    """

    codes: np.ndarray
    scores: np.ndarray
    column: np.ndarray
    pin: np.ndarray
    rows: np.ndarray
    usable: np.ndarray
    names: tuple[str, ...]

    def through(self, order: np.ndarray) -> Chosen:
        """With columns of the candidates before they were put into this order, int64 [b, m]."""
        back = np.take_along_axis(order, np.maximum(self.column, 0), axis=1) if order.shape[1] else self.column
        return replace(self, column=np.where(self.column >= 0, back, self.column))


def chosen(
    codes: np.ndarray,
    scores: np.ndarray,
    own: np.ndarray,
    usable: np.ndarray,
    pinned: Pinned,
    *,
    k: int,
    caps: Sequence[Cap] = (),
    spread: Spread | None = None,
) -> Chosen:
    """Make lists of k out of candidates [b, m] that are `usable`, bool [b, m]; `own` as `Candidates` has it."""
    b = len(codes)
    usable = usable & ~_are_pinned(codes, pinned)
    at = _places(pinned, k)  # [b, k], -1 or the number of a pinned item
    free = k - (at >= 0).sum(axis=1)
    if not caps and spread is None:
        columns = _first(usable, free, k)
    else:
        values = sum(cap.count + 1 for cap in caps)
        step = max(1, COUNTS_AT_ONCE // values) if values else b
        if spread is not None:
            step = min(step, max(1, LIKENESS_AT_ONCE // max(1, min(spread.pool, codes.shape[1])) ** 2))
        columns = np.full((b, k), FROM_A_RULE, dtype=np.int64)
        for start in range(0, b, step):
            part = slice(start, start + step)
            some = (codes[part], scores[part], own[part], usable[part])
            columns[part] = _greedy(*some, at[part], pinned, free[part], k, caps, spread)
    return _assembled(codes, scores, own, usable, columns, at, pinned)


def _are_pinned(codes: np.ndarray, pinned: Pinned) -> np.ndarray:
    found = np.zeros(codes.shape, dtype=bool)
    for place, code in enumerate(pinned.codes):
        found |= (codes == code) & pinned.shown[:, place : place + 1]
    return found


def _places(pinned: Pinned, k: int) -> np.ndarray:
    """int64 [b, k]: the pinned item of each place, or -1; one whose place is taken gets the next that is free."""
    b = len(pinned.shown)
    at = np.full((b, k), -1, dtype=np.int64)
    had: list[np.ndarray] = []
    for one, (code, place) in enumerate(zip(pinned.codes, pinned.places, strict=True)):
        shown = pinned.shown[:, one].copy()
        for other in range(one):  # two rules that pin one item
            if pinned.codes[other] == code:
                shown &= ~had[other]
        open_places = (at < 0) & (np.arange(k) >= place)
        shown &= open_places.any(axis=1)
        rows = np.flatnonzero(shown)
        at[rows, open_places[rows].argmax(axis=1)] = one
        had.append(shown)
    return at


def _first(usable: np.ndarray, free: np.ndarray, k: int) -> np.ndarray:
    """int64 [b, k]: columns of the first usable candidates, as many as there are free places; then -1."""
    place = np.cumsum(usable, axis=1) - 1
    row, column = np.nonzero(usable & (place < free[:, None]))
    columns = np.full((len(usable), k), FROM_A_RULE, dtype=np.int64)
    columns[row, place[row, column]] = column
    return columns


class _Counts:
    """Counts of each value in each user's list, for every cap."""

    def __init__(self, caps: Sequence[Cap], users: int) -> None:
        self.caps = caps
        self.counts = [np.zeros((users, cap.count + 1), dtype=np.int32) for cap in caps]

    def full(self, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return whether a value of an item has its number in the list, bool of the shape of `codes`."""
        full = np.zeros(codes.shape, dtype=bool)
        for cap, counts in zip(self.caps, self.counts, strict=True):
            for values in cap.values.T:
                value = values[codes]
                full |= (counts[rows, value] >= cap.most) & (value < cap.count)
        return full

    def add(self, rows: np.ndarray, codes: np.ndarray) -> None:
        """Count items [n] that go into the lists of `rows` [n], each row once."""
        for cap, counts in zip(self.caps, self.counts, strict=True):
            for values in cap.values.T:
                counts[rows, values[codes]] += 1


def _greedy(
    codes: np.ndarray,
    scores: np.ndarray,
    own: np.ndarray,
    usable: np.ndarray,
    at: np.ndarray,
    pinned: Pinned,
    free: np.ndarray,
    k: int,
    caps: Sequence[Cap],
    spread: Spread | None,
) -> np.ndarray:
    """int64 [b, k]: columns of the candidates for the free places, in their order; then -1."""
    b = len(codes)
    columns = np.full((b, k), FROM_A_RULE, dtype=np.int64)
    taken = np.zeros(b, dtype=np.int64)
    left = usable
    if spread is not None:
        counts = _Counts(caps, b)
        for place in range(k) if len(pinned.codes) else ():
            rows = np.flatnonzero(at[:, place] >= 0)
            counts.add(rows, pinned.codes[at[rows, place]])
        left = _relevant(codes, scores, own, usable, at, pinned, free, spread, counts, columns, taken)
    for row in np.flatnonzero(taken < free).tolist():
        had = codes[row, columns[row, : taken[row]]]
        if len(pinned.codes):
            had = np.concatenate([had, pinned.codes[at[row][at[row] >= 0]]])
        more = _walk(codes[row], left[row], had, int(free[row] - taken[row]), caps)
        columns[row, taken[row] : taken[row] + len(more)] = more
    return columns


def _walk(codes: np.ndarray, left: np.ndarray, had: np.ndarray, free: int, caps: Sequence[Cap]) -> list[int]:
    """Columns of the first candidates of one user that no cap forbids.

    A loop over a hundred candidates is faster than array operations on each of them; where many more have to be looked
    at, those whose value is used up are passed over by the thousand.

    Parameters
    ----------
    codes, left
        int32 and bool [m]: the candidates, best first, and which may be chosen.
    had
        int32: items of the list already.
    """
    counts: list[Counter[int]] = [Counter(cap.values[had].ravel().tolist()) for cap in caps]
    found: list[int] = []
    columns = np.flatnonzero(left)
    start, size = 0, 2 * free + 16
    while start < len(columns) and len(found) < free:
        part = columns[start : start + size]
        values = [cap.values[codes[part]] for cap in caps]
        if start:
            open_ = np.ones(len(part), dtype=bool)
            for cap, own, count in zip(caps, values, counts, strict=True):
                used = np.zeros(cap.count + 1, dtype=bool)
                used[[value for value, times in count.items() if times >= cap.most and value < cap.count]] = True
                open_ &= ~used[own].any(axis=1)
            part, values = part[open_], [own[open_] for own in values]
        each = zip(*(own.tolist() for own in values), strict=True) if caps else iter([()] * len(part))
        for column, of in zip(part.tolist(), each, strict=True):
            if all(
                count[value] < cap.most or value == cap.count
                for cap, count, own in zip(caps, counts, of, strict=True)
                for value in own
            ):
                for count, own in zip(counts, of, strict=True):
                    for value in own:
                        count[value] += 1
                found.append(column)
                if len(found) == free:
                    break
        start, size = start + size, size * 4
    return found


def _relevant(
    codes: np.ndarray,
    scores: np.ndarray,
    by_model: np.ndarray,
    usable: np.ndarray,
    at: np.ndarray,
    pinned: Pinned,
    free: np.ndarray,
    spread: Spread,
    counts: _Counts,
    columns: np.ndarray,
    taken: np.ndarray,
) -> np.ndarray:
    """Fill `columns` and `taken` by maximal marginal relevance in the pool; returns what is left outside of it."""
    b = len(codes)
    width = min(spread.pool, codes.shape[1])
    pool = _first(usable, np.full(b, width), width)  # [b, pool] columns
    there = pool >= 0
    own = np.where(there, np.take_along_axis(codes, np.maximum(pool, 0), axis=1), PADDING) if width else pool
    shown = np.where(at >= 0, pinned.codes[np.maximum(at, 0)], PADDING) if len(pinned.codes) else at[:, :0]
    likeness = spread.likeness(np.concatenate([own, shown], axis=1))
    beside = np.where((shown != PADDING)[:, None, :], likeness[:, :width, width:], -np.inf)
    nearest = beside.max(axis=2, initial=-np.inf)  # [b, pool] to what is in the list
    relevance = _relevance(there, *(np.take_along_axis(x, np.maximum(pool, 0), axis=1) for x in (scores, by_model)))
    everyone = np.arange(b)
    while True:
        alike = np.where(np.isfinite(nearest), nearest, 0.0)
        value = (1 - spread.weight) * relevance - spread.weight * alike
        open_ = there & (taken < free)[:, None]
        if counts.caps:
            open_ &= ~counts.full(everyone[:, None], own)
        value = np.where(open_, value, -np.inf)
        best = value.argmax(axis=1) if width else np.zeros(b, dtype=np.int64)
        rows = np.flatnonzero(open_.any(axis=1))
        if not len(rows):
            break
        best = best[rows]
        counts.add(rows, own[rows, best])
        columns[rows, taken[rows]] = pool[rows, best]
        taken[rows] += 1
        there[rows, best] = False
        nearest[rows] = np.maximum(nearest[rows], likeness[rows, :width, best])
    outside = usable.copy()
    row, column = np.nonzero(pool >= 0)
    outside[row, pool[row, column]] = False
    return outside


def _relevance(there: np.ndarray, scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """float32 [b, pool] from 0 to 1: the scores of the model's rows, min-max-normalised among them, above all others.

    The fallback's rows, whose scores are places, have the lower part of the scale, by their share of the pool.
    """
    own = own & there
    low = np.where(own, scores, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    high = np.where(own, scores, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    span = np.where(np.isfinite(high - low) & (high > low), high - low, 1)
    within = np.where(own, scores - low, 0) / span
    size = np.maximum(there.sum(axis=1, keepdims=True), 1)
    lower = there & ~own
    share = lower.sum(axis=1, keepdims=True) / size
    place = (lower.sum(axis=1, keepdims=True) - np.cumsum(lower, axis=1)) / size
    found: np.ndarray = np.where(own, share + (1 - share) * within, np.where(lower, place, 0)).astype(np.float32)
    return found


def _assembled(
    codes: np.ndarray,
    scores: np.ndarray,
    own: np.ndarray,
    usable: np.ndarray,
    columns: np.ndarray,
    at: np.ndarray,
    pinned: Pinned,
) -> Chosen:
    """Put candidates into the free places; what stands behind an end that pins reach beyond moves up."""
    b, k = columns.shape
    is_pin = at >= 0
    place = np.cumsum(~is_pin, axis=1) - 1
    column = np.where(is_pin, FROM_A_RULE, np.take_along_axis(columns, np.maximum(place, 0), axis=1))
    filled = is_pin | (column >= 0)
    if is_pin.any() and not filled.all():
        order = np.argsort(~filled, axis=1, kind="stable")
        at, column, filled, is_pin = (np.take_along_axis(x, order, axis=1) for x in (at, column, filled, is_pin))
    safe = np.maximum(column, 0)
    has = column >= 0
    if codes.shape[1]:
        found = np.where(has, np.take_along_axis(codes, safe, axis=1), PADDING)
        value = np.where(has, np.take_along_axis(scores, safe, axis=1), -np.inf)
        lower = has & ~np.take_along_axis(own, safe, axis=1)
    else:
        found, value = np.full((b, k), PADDING), np.full((b, k), -np.inf)
        lower = np.zeros((b, k), dtype=bool)
    value = value.astype(np.float32)
    if lower.any():  # the fallback's scores are places below the model's
        lowest = np.where(has & ~lower, value, np.inf).min(axis=1, initial=np.inf, keepdims=True)
        below = np.minimum(np.where(np.isfinite(lowest), lowest, 0), 0).astype(np.float32)
        value = np.where(lower, below - np.cumsum(lower, axis=1).astype(np.float32), value)
    if is_pin.any():
        found = np.where(is_pin, pinned.codes[np.maximum(at, 0)], found)
        value = _scores_of_pins(value, is_pin)
    return Chosen(
        codes=found.astype(np.int32),
        scores=value.astype(np.float32),
        column=column,
        pin=np.where(is_pin, at, -1),
        rows=filled.sum(axis=1),
        usable=usable.sum(axis=1),
        names=pinned.names,
    )


def _scores_of_pins(value: np.ndarray, is_pin: np.ndarray) -> np.ndarray:
    """Give each pinned item the score of the next item below it, or of the last one above; 0 in a list of pins."""
    value = value.copy()
    for column in range(value.shape[1] - 2, -1, -1):
        value[:, column] = np.where(is_pin[:, column], value[:, column + 1], value[:, column])
    for column in range(value.shape[1]):
        above = value[:, column - 1] if column else np.zeros(len(value), dtype=np.float32)
        value[:, column] = np.where(is_pin[:, column] & ~np.isfinite(value[:, column]), above, value[:, column])
    return value
