"""Full ranking: the rank of every held-out item among all items.

Users are ranked in blocks, so memory never holds users x items. Ties follow one rule: higher score first, then lower
code. The rule ignores which item is the target, so a constant score cannot look good. `best` and `worst` show how far
ties matter: the rank with all ties broken for the target (the rule of libraries that count only strictly higher
scores), and against it.

Shapes: U users, b users of one block, V items (arrays by code have V + 1 entries), k = `top_k`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch

from recsys.columns import PADDING
from recsys.compute.base import Engine
from recsys.compute.local import LOCAL
from recsys.data.splits import HeldOut
from recsys.errors import RecsysError
from recsys.evaluation.metrics import MISS
from recsys.loops.choice import loops
from recsys.ranking.pairs import USERS, PairScores, ScoredPairs

BLOCK_FLOATS: Final = 4_000_000  # scores of one block; larger blocks leave the cache and are slower

ScoreBlock = Callable[[int, int], np.ndarray | ScoredPairs]
"""(start, stop) -> scores float32 [stop - start, V + 1] of those users, or of the pairs alone that are ranked; the
array becomes the caller's."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Ranking:
    """Ranks of the targets, and the lists of best items.

    Attributes
    ----------
    ranks
        int64 [U], from 1; `MISS` where the target is unknown, not allowed, or removed as already seen.
    best, worst
        int64 [U]: the rank with all ties broken for, and against, the target.
    top
        int32 [U, k] codes, best first; 0 if fewer than k items could be ranked. [0, k] if another took the lists.
    seen_targets
        Targets in their own history while seen items are removed; these are misses.
    """

    ranks: np.ndarray
    best: np.ndarray
    worst: np.ndarray
    top: np.ndarray
    seen_targets: int

    @property
    def middle(self) -> np.ndarray:
        """float64 [U]: ranks where equal scores share the middle of their places; `MISS` is unchanged."""
        return (self.best + self.worst) / 2

    @property
    def misses(self) -> int:
        """Number of targets without a rank."""
        return int((self.ranks == MISS).sum())

    @property
    def tied_share(self) -> float:
        """Share of targets whose score equals that of another ranked item."""
        return float((self.best != self.worst).mean()) if len(self.ranks) else 0.0


def rank_targets(
    score_block: ScoreBlock,
    held_out: HeldOut,
    allowed: np.ndarray,
    *,
    exclude_seen: bool = True,
    top_k: int = 100,
    progress: Callable[[int], None] | None = None,
    lists: Callable[[np.ndarray], None] | None = None,
    engine: Engine = LOCAL,
) -> Ranking:
    """Rank every target among all allowed items but those that its basket also holds; the lists hold these, too.

    Parameters
    ----------
    score_block
        Scores of a block of users of `held_out`, float32 [b, V + 1], or of the pairs that are ranked.
    held_out
        Histories and their next items.
    allowed
        bool [V + 1]: items that may be recommended.
    exclude_seen
        Remove the history's own items. A target among them is a miss.
    top_k
        Length of the lists in `Ranking.top`.
    progress
        Called after each block with its number of users.
    lists
        Called with each block's lists, int32 [b, k]; `Ranking.top` then stays empty, so that memory does not grow by k
        for each user.
    engine
        That ranks the blocks; a single one is always ranked here.

    Raises
    ------
    RecsysError
        A score is not a number; comparisons with it would rank every target first.
    """
    users, width = len(held_out), len(allowed)
    ranks, best, worst = (np.full(users, MISS, dtype=np.int64) for _ in range(3))
    top = np.zeros((users if lists is None else 0, top_k), dtype=np.int32)
    seen_targets = 0
    block = USERS if isinstance(score_block, PairScores) else max(1, BLOCK_FLOATS // width)
    shards = [(start, min(start + block, users)) for start in range(0, users, block)]
    work = _Ranking(score_block=score_block, held_out=held_out, allowed=allowed, exclude_seen=exclude_seen, top_k=top_k)
    done = (engine if len(shards) > 1 else LOCAL).map(work, shards)
    for (start, stop), found in zip(shards, done, strict=True):
        ranks[start:stop], best[start:stop], worst[start:stop] = found.ranks, found.best, found.worst
        seen_targets += found.seen_targets
        if lists is None:
            top[start:stop] = found.top
        else:
            lists(found.top)
        if progress:
            progress(stop - start)
    return Ranking(ranks=ranks, best=best, worst=worst, top=top, seen_targets=seen_targets)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ranking:
    """Work on a block of users, from the first to before the last: their `Ranking`."""

    score_block: ScoreBlock
    held_out: HeldOut
    allowed: np.ndarray
    exclude_seen: bool
    top_k: int

    @cached_property
    def forbidden(self) -> np.ndarray:
        return np.flatnonzero(~self.allowed | (np.arange(len(self.allowed)) == PADDING))

    def __call__(self, block: tuple[int, int]) -> Ranking:
        """Rank the targets of a block."""
        start, stop = block
        held_out, width = self.held_out, len(self.allowed)
        given = self.score_block(start, stop)
        if isinstance(given, ScoredPairs):
            best_first, placed, seen = _ranked_pairs(
                given, held_out, start, stop, self.allowed, self.exclude_seen, self.top_k
            )
            return Ranking(ranks=placed[0], best=placed[1], worst=placed[2], top=best_first, seen_targets=seen)
        scores = np.require(given, np.float32, ["C", "W"])  # [b, V + 1]
        if scores.shape != (stop - start, width):
            raise ValueError(f"score_block gave {scores.shape} for users {start} to {stop} and {width} codes")
        scores[:, self.forbidden] = -np.inf
        if np.isnan(scores.max(initial=-np.inf)):
            raise RecsysError(
                f"The model scores are not numbers for users {start} to {stop}; did the training diverge?"
            )
        targets, seen_targets = held_out.targets[start:stop].astype(np.int64), 0
        if self.exclude_seen:
            rows, codes = _seen(held_out, start, stop)
            scores[rows, codes] = -np.inf
            own = codes == targets[rows]
            seen_targets = len(np.unique(rows[own & (codes != PADDING)]))
        best_first = top_codes(scores, self.top_k)
        scores[held_out.rest(start, stop)] = -np.inf
        ranks, best, worst = _place(scores, targets)
        return Ranking(ranks=ranks, best=best, worst=worst, top=best_first, seen_targets=seen_targets)


def _ranked_pairs(
    given: ScoredPairs, held_out: HeldOut, start: int, stop: int, allowed: np.ndarray, exclude_seen: bool, top_k: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray], int]:
    """Lists int32 [b, k], (rank, best, worst) int64 [b] of the targets, and how many targets were seen.

    The same as of a dense row that is minus infinity where no pair is.
    """
    if np.isnan(given.scores).any():
        raise RecsysError(f"The model scores are not numbers for users {start} to {stop}; did the training diverge?")
    users, width = stop - start, len(allowed)
    targets, seen_targets = held_out.targets[start:stop].astype(np.int64), 0
    rows, codes, scores = given.rows, given.codes, given.scores
    kept = allowed[codes] & (codes != PADDING) & (scores > -np.inf)
    if exclude_seen:
        seen_rows, seen = _seen(held_out, start, stop)
        kept &= ~np.isin(rows * width + codes, seen_rows * width + seen)
        seen_targets = len(np.unique(seen_rows[(seen == targets[seen_rows]) & (seen != PADDING)]))
    rows, codes, scores = rows[kept], codes[kept], scores[kept]
    top = np.full((users, top_k), PADDING, dtype=np.int32)
    order, place = loops(users).first(rows, codes, scores, users, top_k)
    top[rows[order], place] = codes[order]

    other_rows, others = held_out.rest(start, stop)
    kept = ~np.isin(rows * width + codes, other_rows * width + others)
    rows, codes, scores = rows[kept], codes[kept], scores[kept]
    own = np.full(users, np.inf, dtype=np.float32)
    mine = codes == targets[rows]
    own[rows[mine]] = scores[mine]
    ranked = np.zeros(users, dtype=bool)
    ranked[rows[mine]] = True
    equal = scores == own[rows]
    best = 1 + np.bincount(rows[scores > own[rows]], minlength=users)
    worst = best + np.bincount(rows[equal & ~mine], minlength=users)
    rank = best + np.bincount(rows[equal & (codes < targets[rows])], minlength=users)
    return (
        top,
        (np.where(ranked, rank, MISS), np.where(ranked, best, MISS), np.where(ranked, worst, MISS)),
        seen_targets,
    )


def top_codes(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the k best codes of each row, int32 [b, k]: score descending, then code ascending; 0 beyond the last.

    >>> top_codes(np.array([[-np.inf, 1.0, 3.0, 3.0, 1.0]], dtype=np.float32), 3)
    array([[2, 3, 1]], dtype=int32)
    """
    rows, width = scores.shape
    kept = min(k, width)
    # one more than k: it shows a tie between the last item inside and the first one outside
    found, codes = (part.numpy() for part in torch.from_numpy(scores).topk(min(k + 1, width), dim=1))
    if width > k:
        crowded = np.flatnonzero((found[:, k - 1] == found[:, k]) & (found[:, k] > -np.inf))
        codes[crowded, :k] = _lowest_codes(scores[crowded], found[crowded, k - 1], k)
        found, codes = found[:, :k], codes[:, :k]
    order = np.lexsort((codes, -found), axis=1)
    codes = np.where(np.isneginf(found), PADDING, codes)
    top = np.full((rows, k), PADDING, dtype=np.int32)
    top[:, :kept] = np.take_along_axis(codes, order, axis=1)
    return top


def _lowest_codes(scores: np.ndarray, threshold: np.ndarray, k: int) -> np.ndarray:
    """Return int64 [b, k]: codes above each row's threshold [b], then the lowest codes at it.

    Together there are at least k. Best score first, as `topk` orders them, then lowest code.
    """
    above = scores > threshold[:, None]
    tied = scores == threshold[:, None]
    room = k - np.count_nonzero(above, axis=1)  # [b] places left for items at the threshold
    tied &= np.cumsum(tied, axis=1, dtype=np.int32) <= room[:, None]
    codes = np.nonzero(above | tied)[1].reshape(len(scores), k)
    best_first = np.argsort(-np.take_along_axis(scores, codes, axis=1), axis=1, kind="stable")
    return np.take_along_axis(codes, best_first, axis=1)


def _place(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (rank, best, worst) int64 [b] of targets in scores [b, V + 1]. Items at -inf are not ranked."""
    own = scores[np.arange(len(targets)), targets]  # [b]
    ranked = own > -np.inf
    equal = scores == own[:, None]
    best = 1 + np.count_nonzero(scores > own[:, None], axis=1)
    others = np.count_nonzero(equal, axis=1) - 1
    rank = best.copy()
    tied = np.flatnonzero(ranked & (others > 0))
    before = np.arange(scores.shape[1]) < targets[tied, None]
    rank[tied] += np.count_nonzero(equal[tied] & before, axis=1)
    return np.where(ranked, rank, MISS), np.where(ranked, best, MISS), np.where(ranked, best + others, MISS)


def _seen(held_out: HeldOut, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row inside the block and the code of every history event of users `start` to `stop`."""
    offsets = held_out.histories.offsets[start : stop + 1]
    rows = np.repeat(np.arange(stop - start), np.diff(offsets))
    return rows, held_out.histories.items[offsets[0] : offsets[-1]]
