"""Histories for serving with the events of rare items, which [filter] leaves out of training and of questions.

A bundle that places such items by their content reads these events, and recommends nobody what he has had.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from recsys.columns import INTERACTIONS, ITEM_ID, USER_ID
from recsys.data.left_out import histories_of
from recsys.data.log import read_log
from recsys.data.sequences import Sequences, joined, user_blocks
from recsys.data.vocabulary import Vocabulary
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, scan

AT_ONCE: Final = 2**23  # events of users whose rows are read together


def with_rare(
    settings: Settings, versions: TableVersions, vocabulary: Vocabulary, histories: Sequences, at_once: int = AT_ONCE
) -> Sequences:
    """Histories of prepared users, with their events of rare items that a bundle knows.

    Parameters
    ----------
    vocabulary
        The bundle's; `histories` are in its codes.
    at_once
        Events whose rows are in memory together, about.
    """
    if settings.filter.min_item_interactions == 1:  # else whole users are left out, and these are others
        return histories
    rare = read_log(settings, versions).rare
    known = None if rare is None else rare[ITEM_ID].filter(pl.Series(vocabulary.encode(rare[ITEM_ID]) > 0))
    if known is None or known.is_empty():
        return histories
    log = scan(settings.warehouse, INTERACTIONS, versions.interactions)
    users = log.join(known.to_frame().lazy(), on=ITEM_ID, how="semi").select(pl.col(USER_ID).unique())
    theirs = histories.users.is_in(users.collect(engine="streaming")[USER_ID].implode()).to_numpy()
    parts = [histories.select(~theirs)]
    few = histories.select(theirs)
    parts += [
        histories_of(settings, versions, vocabulary, few.users[part]).histories
        for part in user_blocks(few.offsets, at_once)
    ]
    return joined([part for part in parts if len(part)]) if theirs.any() else histories
