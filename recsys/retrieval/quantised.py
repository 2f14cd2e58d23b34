"""All items compared with many queries by products of int8: half the time of bf16, with a bound of its own.

Every column of the vectors has a step of its own, and so has every query; what is left is a whole number from -127 to
127. Products of whole numbers are exact, so the bound is what rounding took from vectors and queries, no more. As in
`products.py` each item that the bound cannot exclude is returned, and the caller decides by exact scores: the lists are
those of a comparison with every item.

Users are compared with a part of the items at a time, whose scores stay in the cache. A score that k items reach is
not known then. It is guessed from a sample of the items, and whoever has fewer than k items above the guess, or far
more than wanted, is compared again, with all items at once. So is everybody where the loops are not compiled.

Shapes: b users, M items of the index, D width, P pairs of user and item, k wanted, S items of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from recsys.features.precision import amx
from recsys.loops.choice import MANY, in_registers, is_compiled
from recsys.retrieval.products import AT_ONCE, DEEP, ENTRIES, UNIT, USERS, Pairs, keys_of_rows, lowest, reaching

LARGEST: Final = 127
NONE: Final = int(lowest(torch.int32))
UNREACHED: Final = torch.iinfo(torch.int32).max  # no product is as large
NEAR: Final = 1 << 18  # scores that are made at once: they stay in the nearest cache that holds a mebibyte
EVERY: Final = (8, 32)  # one item of so many is in the sample, at least and at most, so that about
SAMPLE: Final = 8192  # are
FOUR: Final = 4  # columns that are multiplied at once; torch's product of a single column is a wrong one
SURE: Final = 3.0  # standard deviations of the k best in the sample, by which the guess is lower
LEAST: Final = 64  # times as many items as wanted; among fewer a guess is worth little
FOUND: Final = 16  # times as many pairs as wanted that a user has room for, and
ROOM: Final = 1024  # more


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantised:
    """Items ready to be compared with queries.

    Attributes
    ----------
    rows
        int8 [M + p, D + q]: vectors in steps, and p rows and q columns of zeros that make whole groups.
    sample, every
        int8 [S, D + q]: one item of so many.
    size
        M.
    steps
        float64 [D] of the columns.
    lost, longest
        In steps: the largest norm of what rounding took from a vector, and the largest norm of a row.
    """

    rows: torch.Tensor
    sample: torch.Tensor
    every: int
    size: int
    steps: np.ndarray
    lost: float
    longest: float

    @classmethod
    def of(cls, vectors: np.ndarray, codes: np.ndarray) -> Quantised:
        """Prepare the vectors of some items: those of ascending codes int64 [M], out of float32 [V + 1, D]."""
        size, width = len(codes), vectors.shape[1]
        parts = [codes[start : start + AT_ONCE] for start in range(0, size, AT_ONCE)]
        highest = np.max([np.abs(vectors[part]).max(axis=0) for part in parts], axis=0)  # [D]
        steps = highest.astype(np.float64) / LARGEST  # 0 where a column is all zeros, and a query counts for nothing
        rows = torch.zeros((-(-size // DEEP) * DEEP, -(-width // FOUR) * FOUR), dtype=torch.int8)
        lost = longest = 0.0
        for start, part in zip(range(0, size, AT_ONCE), parts, strict=True):
            given = torch.from_numpy((vectors[part] / np.where(steps > 0, steps, 1.0)).astype(np.float32))
            whole = given.round().clamp_(-LARGEST, LARGEST)
            rows[start : start + len(part), :width] = whole.to(torch.int8)
            lost = max(lost, float((given - whole).norm(dim=1).max()))
            longest = max(longest, float(whole.norm(dim=1).max()))
        # what float32 took from numbers up to 127, and from the norms
        every = int(np.clip(size // SAMPLE, *EVERY))
        lost = lost * (1 + 1e-5) + LARGEST * UNIT[torch.float32] * np.sqrt(width)
        return cls(
            rows=rows,
            sample=rows[:size:every].contiguous(),
            every=every,
            size=size,
            steps=steps,
            lost=lost,
            longest=longest * (1 + 1e-5),
        )

    @property
    def users(self) -> int:
        """Users who are compared at once."""
        return USERS[1]

    def candidates(self, queries: np.ndarray, k: int, hidden: np.ndarray, most: int | None = None) -> Pairs:
        """See `Products.candidates`."""
        asked = _Asked.of(self, queries)
        if not is_compiled(len(queries)) or self.size < LEAST * k:
            return self._whole(asked, np.arange(len(queries)), k, hidden, most)
        found = self._streamed(asked, k, hidden)
        if not len(found.left):
            return found
        again = self._whole(asked, found.left, k, hidden, most)
        rows, places = (np.concatenate([one, other]) for one, other in zip(found[:2], again[:2], strict=True))
        order = np.argsort(rows, kind="stable")
        return Pairs(rows[order], places[order], again.left)

    def _whole(self, asked: _Asked, users: np.ndarray, k: int, hidden: np.ndarray, most: int | None) -> Pairs:
        """As `candidates`, for some rows, whose scores for all items are made at once."""
        found = [Pairs.none(0)]
        step = max(1, ENTRIES // len(self.rows))
        for start in range(0, len(users), step):
            own = users[start : start + step]
            scores = torch._int_mm(asked.whole[own], self.rows.T)
            scores[:, self.size :] = NONE
            row, place = np.divmod(keys_of_rows(hidden, own, self.size), self.size)
            scores[torch.from_numpy(row), torch.from_numpy(place)] = NONE

            def threshold(reached: torch.Tensor, own: np.ndarray = own) -> torch.Tensor:
                return torch.from_numpy(asked.least(reached.numpy(), own))

            pairs = reaching(scores, min(k, self.size), threshold, torch.from_numpy(asked.any[own]), most)
            found.append(Pairs(own[pairs[0]], pairs[1]) if pairs else Pairs.none(0)._replace(left=own))
        return Pairs(*(np.concatenate(part) for part in zip(*found, strict=True)))

    def _streamed(self, asked: _Asked, k: int, hidden: np.ndarray) -> Pairs:
        """As `candidates`, a part of the items at a time."""
        from recsys.loops.collected import collect, settle  # who asks for few users is spared this import

        users, room = len(asked.any), FOUND * k + ROOM
        guess = self._guess(asked, k, hidden)
        least = np.where(asked.any, asked.least(guess, np.arange(users)), UNREACHED).astype(np.int32)
        places, scores = (np.empty((users, room), dtype=np.int32) for _ in range(2))
        counts = np.zeros(users, dtype=np.int64)
        if users >= MANY and not amx() and in_registers():
            self._compare(asked, least, places, scores, counts)
        else:
            step = max(1, NEAR // users // DEEP) * DEEP
            made = torch.empty((users, step), dtype=torch.int32)
            for start in range(0, len(self.rows), step):
                some = self.rows[start : start + step]
                if len(some) < step:
                    made = made.new_empty((users, len(some)))
                torch._int_mm(asked.whole, some.T, out=made)
                collect(made.numpy(), least, start, places, scores, counts)
        bounds = np.searchsorted(hidden, np.arange(users + 1) * self.size)
        kept = np.empty(users, dtype=np.int64)
        settle(places, scores, counts, hidden, bounds, self.size, k, guess, asked.margin, kept)
        sure = kept >= 0
        kept[~sure] = 0
        rows = np.repeat(np.arange(users), kept)
        column = np.arange(len(rows)) - np.repeat(np.cumsum(kept) - kept, kept)
        return Pairs(rows, places[rows, column].astype(np.int64), np.flatnonzero(asked.any & ~sure))

    def _compare(
        self, asked: _Asked, least: np.ndarray, places: np.ndarray, scores: np.ndarray, counts: np.ndarray
    ) -> None:
        """Collect what reaches the thresholds, by products that stay in registers; see `recsys.loops.int8`."""
        from recsys.loops import int8

        queries = np.pad(asked.whole.numpy(), ((0, -len(least) % int8.USERS), (0, 0)))
        shifts = int8.SHIFT * queries.sum(axis=1, dtype=np.int32)
        raised = np.full(len(queries), UNREACHED, dtype=np.int32)
        raised[: len(least)] = np.clip(least.astype(np.int64) + shifts[: len(least)], NONE, UNREACHED)
        raised[np.flatnonzero(least == UNREACHED)] = UNREACHED
        rows, own = (part.view(np.int32) for part in (self.rows.numpy(), queries))
        int8.compare(rows, own, raised, shifts, places, scores, counts)

    def _guess(self, asked: _Asked, k: int, hidden: np.ndarray) -> np.ndarray:
        """int32 [b]: scores that k items of each user reach, most likely; the hidden ones apart."""
        from recsys.loops.collected import ranked

        scores = torch._int_mm(asked.whole, self.sample.T).numpy()
        owner, place = np.divmod(hidden, self.size)
        inside = place % self.every == 0
        scores[owner[inside], place[inside] // self.every] = NONE
        expected = k / self.every
        rank = int(np.ceil(expected + SURE * np.sqrt(expected) + 1))
        found = np.empty(len(scores), dtype=np.int32)
        ranked(scores, min(rank, scores.shape[1]), found)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """Queries in steps.

    Attributes
    ----------
    whole
        int8 [b, D + q].
    margin
        float64 [b]: twice the most by which a product may be off, and what comes from rounding scores to float32.
    any
        bool [b]: not all zeros.
    """

    whole: torch.Tensor
    margin: np.ndarray
    any: np.ndarray

    @classmethod
    def of(cls, items: Quantised, queries: np.ndarray) -> _Asked:
        wide = queries * items.steps  # [b, D]
        highest = np.abs(wide).max(axis=1, initial=0.0)
        step = np.where(highest > 0, highest / LARGEST, 1.0)
        whole = np.rint(wide / step[:, None])  # [b, D]
        rows = np.zeros((len(queries), items.rows.shape[1]), dtype=np.int8)
        rows[:, : queries.shape[1]] = whole
        taken = np.sqrt(np.square(wide - whole * step[:, None]).sum(axis=1))
        off = np.sqrt(np.square(wide).sum(axis=1)) * items.lost + taken * items.longest
        with np.errstate(over="ignore"):
            margin = 2 * (off * (1 + 1e-6) + np.finfo(np.float32).tiny) / step
        return cls(whole=torch.from_numpy(rows), margin=margin, any=np.asarray(queries.any(axis=1)))

    def least(self, reached: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """int32: products of the items of these rows that may be as good as one whose product is `reached`."""
        score = reached.astype(np.float64)
        found = np.floor(score - self.margin[rows] - 4 * UNIT[torch.float32] * np.abs(score)) - 1
        return np.asarray(np.maximum(found, NONE + 1).astype(np.int32))
