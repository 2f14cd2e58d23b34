"""Questions whose target an earlier bundle learned from, because later events of the user were taken back since.

Leave-one-out holds out the last two events of each user. A cancelled order makes an older event the last one, which
the training of an earlier night may have had. Events that a warm start before that night learned from are not looked
for, nor are events that `filter.min_weight` drops after a correction.

Shapes: Q questions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from recsys.bundles.bundle import Bundle
from recsys.bundles.mirror import bundles_folder
from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, TIMESTAMP, USER_ID, WITHDRAWAL
from recsys.data.asked import test_questions
from recsys.data.left_out import histories_of
from recsys.data.prepare import Dataset
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, leave_one_out
from recsys.data.vocabulary import Vocabulary
from recsys.settings import Settings
from recsys.storage.intact import is_kept
from recsys.storage.warehouse import TableVersions, scan, table_path


def learned_before(
    previous: Bundle, settings: Settings, versions: TableVersions, dataset: Dataset, asked: HeldOut
) -> np.ndarray:
    """Return bool [Q]: the questions whose target an earlier bundle of this warehouse learned from.

    Only users with a withdrawal can have one, and of these alone the log of the earlier night is read. If that version
    of the log is gone, or holds ids of another type (a log that was read anew), all of their questions count. A split
    by time has none: `known_before` looks at its cut-off.

    Parameters
    ----------
    previous
        A bundle that was split and filtered as the settings say.
    versions, dataset, asked
        The tables now, the prepared data, and some of its questions.
    """
    if settings.split.strategy == "time" or not dataset.report["withdrawals"]["rows"]:
        return np.zeros(len(asked), dtype=bool)
    users = asked.histories.users
    log = scan(settings.warehouse, INTERACTIONS, versions.interactions)
    taking = log.filter(pl.col(EVENT) == WITHDRAWAL).select(pl.col(USER_ID).unique()).collect(engine="streaming")
    suspect = users.is_in(taking[USER_ID].implode())
    then = previous.manifest["lineage"].get("interactions_version")
    if not suspect.any():
        return suspect.to_numpy()
    kept = then is not None and then <= versions.interactions
    if not kept or not is_kept(table_path(settings.warehouse, INTERACTIONS), then):
        return suspect.to_numpy()
    types, before = (one.collect_schema() for one in (log, scan(settings.warehouse, INTERACTIONS, then)))
    if any(types[name] != before[name] for name in (USER_ID, ITEM_ID)):
        return suspect.to_numpy()
    those = users.filter(suspect).unique().sort()
    trained, vocabulary = _trained(settings, replace(versions, interactions=then), those)
    learned = _events(
        trained.users.gather(np.repeat(np.arange(len(trained)), trained.lengths)),
        vocabulary.decode(trained.items),
        trained.times,
    )
    rows = np.flatnonzero(suspect.to_numpy() & (asked.targets > 0))
    now = _events(
        users.gather(rows),
        dataset.vocabulary.decode(asked.targets[rows]),
        None if asked.times is None else asked.times[rows],
    )
    keys = [name for name in now.columns if name in learned.columns]
    found = now.with_columns(pl.Series("row", rows)).join(learned, on=keys, how="semi")["row"]
    known = np.zeros(len(asked), dtype=bool)
    known[found.to_numpy()] = True
    return known


def said_learned(previous: Bundle, settings: Settings, versions: TableVersions, dataset: Dataset) -> str | None:
    """Return a sentence on the test questions that a warm start's bundle learned from; None: there are none."""
    if Path(previous.path).resolve().parent != bundles_folder(settings.warehouse).resolve():
        return None  # it learned from another log
    asked = test_questions(settings, dataset)
    known = int(learned_before(previous, settings, versions, dataset, asked).sum())
    if not known:
        return None
    return (
        f"{known:,} of {len(asked):,} test questions ask for events that the bundle {previous.label}, from which "
        "training begins, learned from: later events of their users were taken back since, which flatters the figures."
    )


def _trained(settings: Settings, versions: TableVersions, users: pl.Series) -> tuple[Sequences, Vocabulary]:
    """Return the training histories of some users at earlier versions, with codes for all of their items.

    Items that [filter] left out are among them, so that rather more events count as learned.
    """
    log = scan(settings.warehouse, INTERACTIONS, versions.interactions)
    theirs = log.join(users.alias(USER_ID).to_frame().lazy(), on=USER_ID, how="semi")
    items = theirs.select(pl.col(ITEM_ID).unique()).collect(engine="streaming")[ITEM_ID].sort()
    vocabulary = Vocabulary(items)
    histories = histories_of(settings, versions, vocabulary, users).histories
    return leave_one_out(histories, baskets=settings.split.same_time == "basket").train, vocabulary


def _events(users: pl.Series, items: pl.Series, times: np.ndarray | None) -> pl.DataFrame:
    frame = pl.DataFrame({USER_ID: users, ITEM_ID: items})
    return frame if times is None else frame.with_columns(pl.Series(TIMESTAMP, times))
