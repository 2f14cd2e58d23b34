"""Scores of lists: whatever was served, a table or a baseline, is a list a user, measured by what the user did.

Lists are frames: `user_id`, `rank` (from 1), `item_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.backtest.questions import KNOWN, NEW, Questions
from recsys.columns import ITEM_ID, RANK, USER_ID, metric_name
from recsys.evaluation.metrics import MISS, Metric, per_user

METRICS: Final[tuple[Metric, ...]] = ("hr", "ndcg", "recall", "map")
OWN = "own"  # of a user: has a list of the ranker's own


def with_fallback(lists: pl.DataFrame, popular: pl.DataFrame) -> pl.DataFrame:
    """The lists, and for each user without one the popular items: `popular` has a list for every asked user."""
    return pl.concat([lists, popular.join(lists.select(USER_ID).unique(), on=USER_ID, how="anti")])


def values(
    questions: Questions, lists: pl.DataFrame, cutoffs: Sequence[int], metrics: Sequence[Metric] = METRICS
) -> pl.DataFrame:
    """Measure lists user by user.

    Returns
    -------
    DataFrame
        A row for each asked user, in their order: `user_id`, `known`, and a column for each metric at each cut-off,
        such as `ndcg_at_10`. Targets that a list lacks are misses.
    """
    targets = questions.targets
    ranks = targets.join(lists, on=[USER_ID, ITEM_ID], how="left", maintain_order="left")[RANK]
    ranked = ranks.cast(pl.Int64).fill_null(int(MISS)).to_numpy()
    rows = targets.group_by(USER_ID, maintain_order=True).agg(pl.col(KNOWN).first(), pl.len())
    offsets = np.concatenate([[0], np.cumsum(rows["len"].to_numpy())]).astype(np.int64)
    columns = {
        metric_name(metric, k): per_user(ranked, metric, k, offsets) for metric in metrics for k in sorted(cutoffs)
    }
    return rows.select(USER_ID, KNOWN).with_columns(pl.Series(name, column) for name, column in columns.items())


def means(scored: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Mean of each metric over users with a history (`known`), without one (`new`) and over all; none for nobody."""
    names = [name for name in scored.columns if name not in (USER_ID, KNOWN)]
    groups = {"known": scored.filter(KNOWN), "new": scored.filter(~pl.col(KNOWN)), "all": scored}
    return {
        group: {name: float(rows[name].mean()) for name in names}  # type: ignore[arg-type]
        for group, rows in groups.items()
        if len(rows)
    }


def reach(questions: Questions, lists: pl.DataFrame, items: int, seen: pl.Series, k: int) -> dict[str, Any]:
    """Describe whom and what a ranker's own lists reach, before any fallback.

    Parameters
    ----------
    lists
        Of the asked users.
    items
        Number of items that could have been recommended.
    seen
        Distinct items with an event before the night.
    k
        Places of a list that count.

    Returns
    -------
    dict
        `users_with_list` and their share `coverage_users`, of the window's asked users; `coverage_items`, share of the
        items that stand in a list; `new_items`, share of the places that an item without an event before takes.
    """
    own = lists.join(questions.users.to_frame(), on=USER_ID, how="semi")
    first = own.filter(pl.col(RANK) <= k)
    users = own[USER_ID].n_unique()
    return {
        "users_with_list": users,
        "coverage_users": users / max(1, questions.counts["asked"]),
        "coverage_items": first[ITEM_ID].n_unique() / max(1, items),
        NEW + "_items": int((~first[ITEM_ID].is_in(seen.implode())).sum()) / max(1, len(first)),
    }
