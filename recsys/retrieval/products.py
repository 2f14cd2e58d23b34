"""All items compared with many queries at once, by matrix products: which items could be among the k best.

A product is made in float32, or in bf16 where the processor multiplies it natively, which halves what is read. It is
off by no more than a bound. So this search does not rank: it returns every item that the bound cannot exclude, some
more than k, and the caller decides among them by exact scores. The lists are then those of a comparison with every
item, whatever the processor.

1. Scores of a block of users against all items; items that were seen fall out.
2. Items in groups; the k-th largest of the groups' maxima is a score that k items reach: the k best cannot lie more
   than twice the bound below it.
3. Every item that reaches this threshold is returned.

FAISS's flat search, which keeps a heap of the n best for each query, reaches a tenth of the speed at 10^6 items.

Shapes: b users, M items of the index, D width, P pairs of user and item, k wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch

ENTRIES: Final = 8 << 20  # scores of a block of users; larger blocks leave the cache
USERS: Final = (64, 256)  # least and most users of a block; fewer make the product slow
AT_ONCE: Final = 1 << 16  # vectors that are prepared at once; bounds memory
DEEP: Final = 128  # most items of a group, a power of two
GROUPS: Final = 4  # least groups for each item wanted
UNIT: Final = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}  # rounding of a result; bf16's doubled, to be safe


def searched_bytes(items: int) -> int:
    """Memory that a search among all of V items takes beside their vectors: scores, maxima, and what passes."""
    return 3 * 4 * max(ENTRIES, USERS[0] * items)


class Pairs(NamedTuple):
    """Pairs of user and item that may be among the k best of the user.

    Attributes
    ----------
    rows, places
        int64 [P] each, ascending; `places` among the M items. Every user's k best are there, or all items that are not
        hidden where there are no more than k. Of a query of zeros there is no pair, as all items are as good.
    left
        int64: rows without an answer.
    """

    rows: np.ndarray
    places: np.ndarray
    left: np.ndarray = np.empty(0, dtype=np.int64)

    @classmethod
    def none(cls, users: int) -> Pairs:
        """No answer for so many users."""
        return cls(cls._field_defaults["left"], cls._field_defaults["left"], np.arange(users))


@dataclass(frozen=True, kw_only=True, eq=False)
class Products:
    """Items ready to be compared with queries.

    Attributes
    ----------
    rows
        [M + p, D] vectors of the items, in float32 or bf16, and p rows of zeros that make whole groups.
    size
        M.
    lost
        The largest norm of what rounding to `rows` took from a vector.
    longest
        The largest norm of a vector.
    """

    rows: torch.Tensor
    size: int
    lost: float
    longest: float

    @classmethod
    def of(cls, vectors: np.ndarray, codes: np.ndarray, dtype: torch.dtype) -> Products:
        """Prepare the vectors of some items: those of ascending codes int64 [M], out of float32 [V + 1, D]."""
        size = len(codes)
        rows = torch.zeros((-(-size // DEEP) * DEEP, vectors.shape[1]), dtype=dtype)
        lost = longest = 0.0
        for start in range(0, size, AT_ONCE):
            given = torch.from_numpy(np.asarray(vectors[codes[start : start + AT_ONCE]], dtype=np.float32))
            part = rows[start : start + len(given)]
            part.copy_(given)
            longest = max(longest, float(given.double().norm(dim=1).max()))
            if dtype != torch.float32:
                lost = max(lost, float((given.double() - part.double()).norm(dim=1).max()))
        return cls(rows=rows, size=size, lost=lost, longest=longest)

    @property
    def users(self) -> int:
        """Users whose scores are made at once."""
        return int(np.clip(ENTRIES // len(self.rows), *USERS))

    @property
    def is_fp32(self) -> bool:
        """Return whether no vector was rounded."""
        return self.rows.dtype == torch.float32

    def candidates(self, queries: np.ndarray, k: int, hidden: np.ndarray, most: int | None = None) -> Pairs:
        """Pairs of user and item that may be among the k best of the user.

        Parameters
        ----------
        queries
            float32 [b, D], finite; at most about `users` of them.
        hidden
            int64 [H] ascending keys `row * M + place` of pairs that may not be found.
        most
            Pairs of a user, on average, above which there is no answer; float32 always answers.
        """
        given = torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32))
        rounded = given.to(self.rows.dtype)
        scores = rounded @ self.rows.T  # [b, M + p]
        scores[:, self.size :] = -torch.inf
        owner, place = np.divmod(hidden, self.size)
        scores[torch.from_numpy(owner), torch.from_numpy(place)] = -torch.inf
        pairs = reaching(
            scores,
            min(k, self.size),
            lambda reached: self._threshold(reached, given, rounded),
            given.any(dim=1),
            None if self.is_fp32 else most,
        )
        return Pairs(*pairs) if pairs else Pairs.none(len(queries))

    def _threshold(self, reached: torch.Tensor, queries: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        """[b] that the score of an item has where its true score is as high as that of an item which has `reached`.

        Both are off: by what rounding took from query and item, by the sum of D products in float32, and by the
        rounding of the result, which is relative to the score.
        Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1.
        """
        exact, near = queries.double(), rounded.double()
        norms = near.norm(dim=1)
        summed = (queries.shape[1] + 2) * UNIT[torch.float32]
        off = (exact - near).norm(dim=1) * self.longest + norms * self.lost
        off += summed / (1 - summed) * norms * (self.longest + self.lost)
        score = reached.double()
        least = score - 2 * (off + UNIT[self.rows.dtype] * score.abs()) * (1 + 1e-6) - torch.finfo(torch.float32).tiny
        # a threshold in the scores' own type, next below
        least = least.to(self.rows.dtype)
        return torch.nextafter(least, torch.full_like(least, -torch.inf))


def reaching(
    scores: torch.Tensor,
    k: int,
    threshold: Callable[[torch.Tensor], torch.Tensor],
    asked: torch.Tensor,
    most: int | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Pairs of user and item whose scores [b, M + p] reach a threshold, of the type of the scores; see `candidates`.

    Parameters
    ----------
    threshold
        Of each user, [b], for scores that k items of him reach.
    asked
        bool [b]: users of whom pairs are wanted.
    """
    deep, none = _deep(scores.shape[1], k), lowest(scores.dtype)
    maxima = _maxima(scores, deep)
    least = threshold(_reached(maxima, k))
    if scores.dtype == torch.bfloat16 and (least <= 0).any():  # `_maxima` knows no order below 0
        maxima = scores.unflatten(1, (-1, deep)).amax(dim=2)
        least = threshold(_reached(maxima, k))
    row, group = ((maxima >= least[:, None]) & asked[:, None]).nonzero(as_tuple=True)
    inside = scores.view(-1, deep)[row * maxima.shape[1] + group]  # [g, deep]
    found = (inside >= least[row, None]) & (inside > none)
    if most is not None and int(found.sum()) > most * len(scores):
        return None
    which, column = found.nonzero(as_tuple=True)
    return row[which].numpy(), (group[which] * deep + column).numpy()


def keys_of_rows(keys: np.ndarray, rows: np.ndarray, stride: int) -> np.ndarray:
    """Select ascending keys `row * stride + place` of some ascending rows, numbered as if there were no other rows."""
    starts, ends = np.searchsorted(keys, rows * stride), np.searchsorted(keys, (rows + 1) * stride)
    counts = ends - starts
    before = np.cumsum(counts) - counts
    place = np.repeat(starts - before, counts) + np.arange(counts.sum())
    return np.asarray(keys[place] - np.repeat((rows - np.arange(len(rows))) * stride, counts))


def lowest(dtype: torch.dtype) -> float:
    """The score of what may not be found: below all others."""
    return -torch.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _deep(size: int, k: int) -> int:
    """Items of a group: as many as leave enough groups."""
    deep = DEEP
    while deep > 1 and size // deep < GROUPS * k:
        deep //= 2
    return deep


def _reached(maxima: torch.Tensor, k: int) -> torch.Tensor:
    """[b] a score that at least k of the items of each row reach, out of the maxima [b, G] of groups; G at least k."""
    return maxima.topk(k, dim=1, sorted=False).values.amin(dim=1)


def _maxima(scores: torch.Tensor, deep: int) -> torch.Tensor:
    """[b, M / deep] the largest of each `deep` scores of [b, M], if it is above 0; else any of them.

    As integers, numbers above 0 have their order and are above all others, and torch finds the largest of integers of
    16 bits faster than that of bf16.
    """
    groups = scores.unflatten(1, (-1, deep))
    if scores.dtype == torch.bfloat16:
        return groups.view(torch.int16).amax(dim=2).view(torch.bfloat16)
    return groups.amax(dim=2)
