"""The histories that a warehouse knows, in a bundle's codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from recsys.bundles.bundle import Bundle
from recsys.bundles.mirror import warehouse_of
from recsys.columns import INTERACTIONS, PADDING, USER_ID
from recsys.data.left_out import histories_of
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.storage.warehouse import current_versions, latest_version, scan


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
