"""The histories that a warehouse knows, in a bundle's codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl

from recsys.bundles.bundle import Bundle
from recsys.bundles.mirror import warehouse_of
from recsys.columns import INTERACTIONS, ITEM_ID, PADDING, USER_ID
from recsys.data.left_out import histories_of
from recsys.data.prepare import Dataset
from recsys.data.sequences import Sequences, joined, user_blocks
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, current_versions, latest_version, scan

AT_ONCE: Final = 2**23  # events of users whose rows are read together


def served_histories(
    settings: Settings, versions: TableVersions, dataset: Dataset, ours: Vocabulary, at_once: int = AT_ONCE
) -> tuple[Sequences, int]:
    """Histories of the prepared users in a bundle's codes, and how many of their events it does not know.

    A refitted bundle knows items that the prepared data do not: of held-out events alone, and rare ones that [filter]
    leaves out. Events of these are read from the log, so that the bundle hears of them, and recommends nobody what he
    has had.

    Parameters
    ----------
    ours
        The bundle's vocabulary.
    at_once
        Events whose rows are in memory together, about.
    """
    prepared, known = dataset.split.serving, dataset.vocabulary
    more = ours.items.filter(pl.Series(known.encode(ours.items) == PADDING))
    if more.is_empty():
        return recode(prepared, known, ours)
    log = scan(settings.warehouse, INTERACTIONS, versions.interactions)
    items = more.cast(log.collect_schema()[ITEM_ID], strict=False).drop_nulls().alias(ITEM_ID).to_frame()
    users = log.join(items.lazy(), on=ITEM_ID, how="semi").select(pl.col(USER_ID).unique())
    theirs = prepared.users.is_in(users.collect(engine="streaming")[USER_ID].implode()).to_numpy()
    if not theirs.any():
        return recode(prepared, known, ours)
    rest, unknown = recode(prepared.select(~theirs), known, ours)
    few = prepared.select(theirs)
    read = [histories_of(settings, versions, ours, few.users[part]) for part in user_blocks(few.offsets, at_once)]
    parts = [part for part in (rest, *(one.histories for one in read)) if len(part)]
    return joined(parts), unknown + sum(len(one.unknown) for one in read)


def history_of(bundle: Bundle, user: str) -> Sequences:
    """The history of one user in the newest tables of the warehouse that the bundle lies in; in the bundle's codes.

    Raises
    ------
    InputError
        The bundle lies in no warehouse, or the user is not in its log.
    """
    root = warehouse_of(bundle.path)
    if latest_version(root, INTERACTIONS) is None:
        raise InputError(
            f"The bundle {bundle.place} lies in no warehouse with a log, so nobody's history is known; give --history."
        )
    versions = current_versions(root)
    log = scan(root, INTERACTIONS, versions.interactions)
    known = pl.Series(USER_ID, [user]).cast(log.collect_schema()[USER_ID], strict=False)
    if known.null_count() or log.filter(pl.col(USER_ID) == known[0]).head(1).collect().is_empty():
        raise InputError(f"There is no user {user!r} in the log of the warehouse {root}; give --history instead.")
    settings = bundle.settings.model_copy(update={"warehouse": root})
    return histories_of(settings, versions, bundle.vocabulary, known).histories


def recode(sequences: Sequences, theirs: Vocabulary, ours: Vocabulary) -> tuple[Sequences, int]:
    """Histories in another vocabulary's codes, and how many events it does not know (they are left out)."""
    if theirs.digest == ours.digest:
        return sequences, 0
    codes = np.concatenate([[PADDING], ours.encode(theirs.items)]).astype(np.int32)[sequences.items]
    known = codes != PADDING
    return replace(sequences, items=codes).keep(known), int((~known).sum())
