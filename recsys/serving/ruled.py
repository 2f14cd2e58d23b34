"""Lists by rules: candidates are asked for, chosen from, and asked for again by users whose lists are short.

A list is done with k rows, or where every item that may be recommended was looked at. The first request is the one that
is made without rules, so that rules which change nothing leave the lists as they are. A blend proposes several times k
items then already, and most rules find their k rows among them.

The model's vectors alone order every item, so a boost can bring up an item from anywhere, and more is asked for until
no other item can score more. A blend scores what its sources propose: a boost moves items among those.

Shapes: b users, p of them in a request, m candidates each, k items wanted, n items that a request asks of each source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.ranking.blend import proposers
from recsys.retrieval.shelf import Shelf
from recsys.rules.apply import Candidates, Rules
from recsys.serving.fallback import BY_RULE, OWN, PINNED_BY, Fallback, named

if TYPE_CHECKING:
    from recsys.serving.recommender import BundleRecommender

GROWTH: Final = 4  # times as many candidates are asked for where a list is short
ENTRIES_AT_ONCE: Final = 8_000_000  # of candidates that are looked at together; bounds memory


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Asked:
    """A request for some users: int64 [p] rows, their histories, and the events that hide items from them."""

    rows: np.ndarray
    histories: Sequences
    queries: np.ndarray
    silent: np.ndarray
    hiding: Sequences | None
    exclude_seen: bool

    def select(self, some: np.ndarray) -> tuple[Sequences, dict[str, Any]]:
        """Histories of some of them, and how their items are left out."""
        hiding = None if self.hiding is None else _some(self.hiding, some)
        return _some(self.histories, some), {"exclude_seen": self.exclude_seen, "hiding": hiding}

    @property
    def hidden(self) -> Sequences | None:
        """Events whose items stay out."""
        return self.hiding if self.hiding is not None else self.histories if self.exclude_seen else None


def _some(histories: Sequences, rows: np.ndarray) -> Sequences:
    """Histories of some users, int64 ascending; a request for one user copies nothing."""
    return histories if len(rows) == len(histories) else histories.select(rows)


def ruled(
    served: BundleRecommender,
    histories: Sequences,
    rules: Rules,
    k: int,
    exclude_seen: bool,
    shelf: Shelf | None,
    fallback: Fallback | None,
    now: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Make the lists of b users by rules: the attributes of `recsys.serving.lists.Lists`, by name."""
    queries = served.encode(histories)
    silent = np.asarray(served.is_silent(histories, queries))
    hiding = rules.hiding(histories, exclude_seen, now)
    left = fallback.allowed if fallback is not None else None if shelf is None else shelf.allowed
    most = len(served.bundle.vectors) - 1 if left is None else int(left.sum())
    k, b = min(k, most), len(histories)
    codes = np.full((b, k), PADDING, dtype=np.int32)
    scores = np.full((b, k), -np.inf, dtype=np.float32)
    names, rungs = np.full((b, k), "", dtype=object), np.full((b, k), OWN, dtype=np.int8)
    reach = min(rules.reach(k), most)
    pending, n = np.arange(b), max(1, reach)
    while len(pending):
        step = max(1, ENTRIES_AT_ONCE // served.widest(n))
        short = []
        for start in range(0, len(pending), step):
            rows = pending[start : start + step]
            asked = _Asked(
                rows=rows,
                histories=_some(histories, rows),
                queries=queries[rows],
                silent=silent[rows],
                hiding=None if hiding is None else _some(hiding, rows),
                exclude_seen=exclude_seen,
            )
            found, by, who, ended = _candidates(served, asked, rules, n, most, shelf, fallback)
            made = rules.choose(asked.histories, found, asked.hidden, k=k, allowed=left)
            done = (made.rows == k) & (made.usable >= reach) | (n >= most) | (ended if fallback is None else False)
            short.append(rows[~done])
            into, column = rows[done], made.column[done]
            codes[into], scores[into] = made.codes[done], made.scores[done]
            chosen, place = column >= 0, np.maximum(column, 0)
            if by.shape[1]:
                rung = np.where(chosen, np.take_along_axis(who[done], place, axis=1), OWN).astype(np.int8)
                proposed = np.where(chosen, np.take_along_axis(by[done], place, axis=1), 0).astype(np.uint64)
                names[into], rungs[into] = named(proposers(proposed, served.blended), rung), rung
            for at, rule in enumerate(made.names):
                row, column = np.nonzero(made.pin[done] == at)
                names[into[row], column], rungs[into[row], column] = f"{PINNED_BY}{rule}", BY_RULE
        pending, n = np.concatenate(short), min(n * GROWTH, most)
    return {"codes": codes, "scores": scores, "names": names, "rungs": rungs, "zero": np.asarray(~queries.any(axis=1))}


def _candidates(
    served: BundleRecommender,
    asked: _Asked,
    rules: Rules,
    n: int,
    most: int,
    shelf: Shelf | None,
    fallback: Fallback | None,
) -> tuple[Candidates, np.ndarray, np.ndarray, np.ndarray]:
    """Ask for n of `most` items of each source, and of the fallback where the model has no more.

    Returns
    -------
    candidates, by, rungs, ended
        See `Candidates`; uint64 [p, m] of `best_items`; int8 [p, m]; bool [p], whether the model has no more.
    """
    histories, options = asked.select(np.arange(len(asked.rows)))
    codes, scores, by = served.best(
        histories, k=served.widest(n), propose=n, shelf=shelf, queries=asked.queries, **options
    )
    counts = (codes != PADDING).sum(axis=1)
    width = int(counts.max(initial=0))
    codes, scores, by = codes[:, :width], scores[:, :width], by[:, :width]
    low = (codes != PADDING) & (scores < rules.least)
    ended = (counts < served.proposing(n)) | low.any(axis=1)  # below a row that is too low all are
    ceiling = np.full(len(codes), -np.inf, dtype=np.float32)
    if served.blended is None and width and n < most:
        ceiling = np.where(ended, ceiling, scores[:, -1])
    if low.any():
        codes, scores, by = np.where(low, PADDING, codes), np.where(low, -np.inf, scores), np.where(low, 0, by)
    rungs = np.zeros(codes.shape, dtype=np.int8)
    lower = np.flatnonzero(ended | asked.silent)
    if fallback is not None and len(lower):
        some, options = asked.select(lower)
        filled = fallback.fill(some, codes[lower], scores[lower], asked.silent[lower], k=n, **options)
        wider = max(0, filled[0].shape[1] - width)
        codes, by, rungs = (np.pad(x, ((0, 0), (0, wider))) for x in (codes, by, rungs))
        scores = np.pad(scores, ((0, 0), (0, wider)), constant_values=-np.inf)
        codes[lower], scores[lower], rungs[lower] = filled
        by[lower] = np.where(filled[2] == OWN, by[lower], 0)
    own = (codes != PADDING) & (rungs == OWN)
    return Candidates(codes=codes, scores=scores, own=own, ceiling=ceiling), by, rungs, ended
