"""Questions of a night's window: who came, and for which items.

A question is a user with an event in the window; the targets are the distinct items of these events. Where nothing
seen is recommended, items that the user had before the night are no targets, for no list can hold them.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from recsys.columns import EVENT, ITEM_ID, TIMESTAMP, USER_ID, WITHDRAWAL
from recsys.data.filters import counting
from recsys.data.withdrawals import without_withdrawn
from recsys.settings import FilterSettings

KNOWN = "known"  # of a user: has an event before the night
NEW = "new"  # of an item: has none


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """Targets and counts of a window.

    Attributes
    ----------
    targets
        A row a target: `user_id`, `item_id`, `known` (the user has an event before the night), `new` (the item has
        none); ascending by user and item.
    counts
        JSON-friendly; see `ask`.
    """

    targets: pl.DataFrame
    counts: dict[str, int]

    @property
    def users(self) -> pl.Series:
        """The asked users, ascending."""
        return self.targets[USER_ID].unique(maintain_order=True)


def standing(log: pl.LazyFrame, settings: FilterSettings, before: int) -> pl.DataFrame:
    """The events that count, as they stand at a moment: `user_id`, `item_id`, `timestamp`.

    What was taken back until then is left out. Users and items with few events stay: this is what happened, whoever
    the model knows.

    Parameters
    ----------
    log
        Rows of the table of interactions.
    before
        Microseconds since the epoch; events from then on are not read.
    """
    known = log.filter(pl.col(TIMESTAMP).dt.epoch("us") < before)
    if settings.events is not None:
        known = known.filter(pl.col(EVENT).is_in([*settings.events, WITHDRAWAL]))
    left, _ = without_withdrawn(known)
    loose = settings.model_copy(update={"min_user_interactions": 1, "min_item_interactions": 1, "repeats": "keep"})
    return counting(left, loose).select(USER_ID, ITEM_ID, TIMESTAMP).collect(engine="streaming")


def ask(before: pl.DataFrame, window: pl.DataFrame, *, repeats: bool) -> Questions:
    """Make the questions of a window.

    The counts: `events` and `users` of the window; `asked` users; `new_users` of the asked, who have no event before;
    `targets`; `new_items`, targets whose item has no event before; `repeats`, pairs of user and item that the user had
    before, which are targets if `repeats` is true and are removed if not; `only_repeats`, users who are not asked
    because nothing else is left of theirs.

    Parameters
    ----------
    before, window
        Events before the night, and in the window: `user_id`, `item_id`.
    repeats
        Whether an item that the user had before is a target.
    """
    pairs = window.select(USER_ID, ITEM_ID).unique()
    had = before.select(USER_ID, ITEM_ID).unique()
    again = pairs.join(had, on=[USER_ID, ITEM_ID], how="semi")
    targets = pairs if repeats else pairs.join(had, on=[USER_ID, ITEM_ID], how="anti")
    targets = targets.sort(USER_ID, ITEM_ID).with_columns(
        pl.col(USER_ID).is_in(before[USER_ID].unique().implode()).alias(KNOWN),
        (~pl.col(ITEM_ID).is_in(before[ITEM_ID].unique().implode())).alias(NEW),
    )
    users, asked = window[USER_ID].n_unique(), targets[USER_ID].n_unique()
    return Questions(
        targets=targets,
        counts={
            "events": len(window),
            "users": users,
            "asked": asked,
            "new_users": targets.filter(~pl.col(KNOWN))[USER_ID].n_unique(),
            "targets": len(targets),
            "new_items": int(targets[NEW].sum()),
            "repeats": len(again),
            "only_repeats": users - asked,
        },
    )
