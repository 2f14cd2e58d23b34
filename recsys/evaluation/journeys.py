"""Users as people read them: history, recommendations, and what came next; drawn ones, and the worst failures.

Shapes: U users, V items (arrays by code have V + 1 entries).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from recsys.columns import PADDING, USER_ID
from recsys.data.splits import HeldOut
from recsys.evaluation.lists import popularity_places
from recsys.evaluation.metrics import MISS
from recsys.evaluation.ranking import ScoreBlock, rank_targets
from recsys.evaluation.slices import repeated

HISTORY: Final = 10  # newest events that are shown
LISTED: Final = 10  # recommendations that are shown


def journeys(
    score_block: ScoreBlock,
    allowed: np.ndarray,
    *,
    held_out: HeldOut,
    ranks: np.ndarray,
    popularity: np.ndarray,
    labels: Sequence[str],
    exclude_seen: bool,
    count: int,
    seed: int,
) -> dict[str, list[dict[str, Any]]]:
    """Describe users drawn by the seed under `users`, and the worst failures under `failures`, at most `count` each.

    Each is a mapping: `user_id`, `history` (titles, newest last) and `history_length`, `recommended` (titles, best
    first), `hit` (place of the target in them, from 1, or None), `target`, `rank` (None: not ranked), `reason` (why
    not), and `popularity_place` of the target (1 is the item with most training interactions; None: it has none).

    Parameters
    ----------
    score_block, allowed
        The served ranker's, on the users of `held_out`. The lists of the described users alone are made again.
    ranks
        int64 [U], its ranks of the targets.
    labels
        [V + 1] name of each code.
    """
    drawn = np.sort(np.random.default_rng((seed, 2)).permutation(len(held_out))[:count])
    places = np.append(np.iinfo(np.int64).max, popularity_places(popularity) + 1)  # by code, from 1
    seen = repeated(held_out)

    def describe(user: int) -> dict[str, Any]:
        one = held_out.select(np.array([user]))
        ranking = rank_targets(
            lambda start, stop: score_block(user + start, user + stop),
            one,
            allowed,
            exclude_seen=exclude_seen,
            top_k=LISTED,
        )
        codes = [code for code in ranking.top[0].tolist() if code != PADDING]
        target = int(held_out.targets[user])
        trained = target != PADDING and popularity[target] > 0
        history = held_out.histories.history(user)
        return {
            USER_ID: held_out.histories.users[user],
            "history": [labels[code] for code in history[-HISTORY:]],
            "history_length": len(history),
            "recommended": [labels[code] for code in codes],
            "hit": codes.index(target) + 1 if target in codes else None,
            "target": labels[target],
            "rank": None if ranks[user] == MISS else int(ranks[user]),
            "reason": _reason(target, ranks[user], exclude_seen and bool(seen[user]), trained, allowed),
            "popularity_place": int(places[target]) if trained else None,
        }

    worst = failures(held_out.targets, ranks, places, popularity, seen if exclude_seen else np.zeros(len(seen), bool))
    return {
        "users": [describe(user) for user in drawn.tolist()],
        "failures": [describe(user) for user in worst[:count].tolist()],
    }


def failures(
    targets: np.ndarray, ranks: np.ndarray, places: np.ndarray, popularity: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Return users whose target ranks far behind its place by popularity, the worst first, int64.

    The worst have the largest rank / max(place, 10): an item that half of the users have, and that the model puts last,
    points to a fault more than a rare one does. A target without a rank counts as behind all V items. Left out are
    targets that no model could rank well: without a training interaction, or removed as already seen.

    Parameters
    ----------
    places
        int64 [V + 1]: places by popularity, from 1.
    seen
        bool [U]: targets that are removed as already seen.
    """
    ranked = np.minimum(ranks, len(places)).astype(np.float64)
    ratio = ranked / np.maximum(places[targets], LISTED)
    possible = np.flatnonzero((targets != PADDING) & (popularity[targets] > 0) & ~seen & (ratio > 1) & (ranks > LISTED))
    order = np.lexsort((possible, places[targets[possible]], -ratio[possible]))
    return possible[order]


def _reason(target: int, rank: int, seen: bool, trained: bool, allowed: np.ndarray) -> str | None:
    """Say why a target has no rank; None where it has one."""
    if rank != MISS:
        return None
    if target == PADDING:
        return "the vocabulary does not know it"
    if seen:
        return "it is in the history, and seen items are not ranked"
    if not allowed[target]:
        return "it may not be recommended"
    return "no source proposed it" if trained else "no source proposed it, and it has no training interaction"
