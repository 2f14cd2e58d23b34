"""Figures of one night: every ranker's lists beside each other, on the questions of the window that followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from recsys.backtest.baselines import POPULARITY
from recsys.backtest.differences import OWNER, column, differences
from recsys.backtest.plan import Night
from recsys.backtest.questions import KNOWN, Questions, ask, standing
from recsys.backtest.score import METRICS, means, reach, values, with_fallback
from recsys.backtest.tables import Source
from recsys.columns import ITEM_ID, TIMESTAMP, USER_ID, metric_name
from recsys.data.vocabulary import Vocabulary
from recsys.settings import Settings

FORMER: Final = "former"  # the table of the night before, served again
USUAL: Final = 10  # cut-off of the figures that are shown, where lists are that long


def cutoffs_of(settings: Settings) -> tuple[int, ...]:
    """The cut-offs of [evaluate] that the table's lists reach, and the one that is shown."""
    k = settings.retrieve.k
    return tuple(sorted({c for c in settings.evaluate.cutoffs if c <= k} | {shown_cutoff(settings)}))


def shown_cutoff(settings: Settings) -> int:
    """The cut-off of the figures that are shown."""
    return min(USUAL, settings.retrieve.k)


def questions_of(source: Source, settings: Settings, night: Night, *, repeats: bool) -> tuple[Questions, pl.DataFrame]:
    """The questions of a night's window, and the events that count before it."""
    before = standing(source.log, settings.filter, night.at)
    later = standing(source.log, settings.filter, night.until)
    window = later.filter(pl.col(TIMESTAMP).dt.epoch("us") >= night.at)
    return ask(before, window, repeats=repeats), before


def measure(
    questions: Questions,
    before: pl.DataFrame,
    lists: Mapping[str, pl.DataFrame],
    *,
    items: int,
    users: Vocabulary,
    cutoffs: Sequence[int],
    shown: int,
    reference: str,
    seed: int,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Measure the lists of each ranker on the same questions.

    Parameters
    ----------
    questions, before
        From `questions_of`.
    lists
        Of the asked users, by ranker; "popularity" has one for each, and serves whom another ranker has none for.
    items
        Number of items that could be recommended.
    users
        Numbers of users, the same in all nights.

    Returns
    -------
    figures
        JSON-friendly: `window` (counts), `known`, `rankers` (what each reaches, and means by group of users), and
        `differences` of the reference to each other one in NDCG.
    values
        A row a question: `user` (number), `known`, and each ranker's metrics at the shown cut-off.
    """
    seen = before[ITEM_ID].unique()
    rankers: dict[str, dict[str, Any]] = {}
    table = questions.targets.select(USER_ID, KNOWN).unique(USER_ID, keep="first", maintain_order=True)
    rows = table.select(pl.Series(OWNER, users.encode(table[USER_ID])), KNOWN)
    columns = [metric_name(metric, shown) for metric in METRICS]
    for name, own in lists.items():
        scored = values(questions, with_fallback(own, lists[POPULARITY]), cutoffs)
        rankers[name] = {**reach(questions, own, items, seen, shown), "metrics": means(scored)}
        rows = rows.with_columns(scored[metric].alias(column(name, metric)) for metric in columns)
    figures = {
        "known": {"events": len(before), "users": before[USER_ID].n_unique(), "items": len(seen)},
        "window": {
            **questions.counts,
            "new_items_share": questions.counts["new_items"] / max(1, questions.counts["targets"]),
        },
        "rankers": rankers,
        "differences": differences(rows, reference, [metric_name("ndcg", shown)], seed),
    }
    return figures, rows
