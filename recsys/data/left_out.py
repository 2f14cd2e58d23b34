"""Users of the log whom [filter] leaves out: too few events, or none that counts. They are served all the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, PADDING, POSITION, TIMESTAMP, USER_ID, WITHDRAWAL
from recsys.data.baskets import in_drawn_order
from recsys.data.catalogue import attributes_of
from recsys.data.context import context_of
from recsys.data.filters import counting, standing_events
from recsys.data.sequences import Sequences, from_sorted_frame
from recsys.data.vocabulary import Vocabulary
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, scan


@dataclass(frozen=True, kw_only=True, eq=False)
class LeftOut:
    """Users without a history in the prepared data.

    Attributes
    ----------
    histories
        Of all L of them, ascending by user: the events that count, of items that the vocabulary knows. Most are short,
        and some are empty.
    unknown
        `user` (place in `histories`) and `item_id`, a row an event of an item that the vocabulary does not know.
    """

    histories: Sequences
    unknown: pl.DataFrame


def left_out(settings: Settings, versions: TableVersions, vocabulary: Vocabulary, prepared: pl.Series) -> LeftOut:
    """Read the histories of all users of the log but those of the prepared data.

    Parameters
    ----------
    vocabulary
        Of the bundle that is to serve them.
    prepared
        [U] users that have a history already.
    """
    log = scan(settings.warehouse, INTERACTIONS, versions.interactions)
    others = (
        log.filter(pl.col(EVENT) != WITHDRAWAL)
        .select(pl.col(USER_ID).unique())
        .join(prepared.alias(USER_ID).to_frame().lazy(), on=USER_ID, how="anti")
        .collect(engine="streaming")[USER_ID]
        .sort()
    )
    return histories_of(settings, versions, vocabulary, others)


def histories_of(settings: Settings, versions: TableVersions, vocabulary: Vocabulary, users: pl.Series) -> LeftOut:
    """Read the histories of some users, however few events they have; `users` ascend."""
    log = scan(settings.warehouse, INTERACTIONS, versions.interactions)
    asked = users.alias(USER_ID).to_frame()
    standing, _ = standing_events(log.join(asked.lazy(), on=USER_ID, how="semi"), settings.filter)
    names = settings.model.event_context
    events = counting(standing, settings.filter, names).collect(engine="streaming").sort(USER_ID, TIMESTAMP, POSITION)
    if settings.split.same_time == "basket" and len(events):
        events = in_drawn_order(events, settings.seed)
    codes = vocabulary.encode(events[ITEM_ID])
    lacking = pl.Series(codes == PADDING)
    strange = events.filter(lacking)
    if len(strange):  # before the context, as training measures the gap between the events that it keeps
        events, codes = events.filter(~lacking), codes[codes != PADDING]
    few = from_sorted_frame(events, codes)
    few = replace(few, context=context_of(events, names) if names else None)
    place = few.users.to_frame().with_row_index("row")
    rows = asked.join(place, on=USER_ID, how="left", maintain_order="left")["row"]
    lengths = np.zeros(len(users), dtype=np.int64)
    lengths[rows.is_not_null().to_numpy()] = few.lengths  # both ascend by user
    histories = Sequences(
        users=users,
        items=few.items,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        times=few.times,
        attributes=attributes_of(users, settings, versions),
        context=few.context,
    )
    places = asked.with_row_index("user").with_columns(pl.col("user").cast(pl.Int64))
    unknown = strange.join(places, on=USER_ID, how="left", maintain_order="left").select("user", ITEM_ID)
    return LeftOut(histories=histories, unknown=unknown)
