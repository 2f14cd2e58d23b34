"""The events that count as histories in codes: the table read once a version, and mapped into memory from then on.

The table is sorted in parts of whole users, so memory depends on the numbers of users and items, not on that of events.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, ITEMS, POSITION, TIMESTAMP, USER_ID, WEIGHT
from recsys.data.baskets import in_drawn_order
from recsys.data.catalogue import attributes_of
from recsys.data.context import context_of, need_context
from recsys.data.filters import counting, k_core, standing_events
from recsys.data.mapped import FRAME, HistoriesWriter, read_frame, read_histories, remove_times, write_frame
from recsys.data.parts import PART, LogUsers, needed, parts_of, users_of
from recsys.data.sequences import AT_ONCE, Sequences, ends_of, first_codes
from recsys.data.vocabulary import Vocabulary
from recsys.data.withdrawals import Withdrawals
from recsys.errors import InputError
from recsys.machine import GIB, free_on_processor
from recsys.runs import code_version, local_folder
from recsys.settings import Settings
from recsys.storage.artefacts import obtain
from recsys.storage.identity import identity
from recsys.storage.warehouse import TableVersions, scan

FOLDER: Final = "prepared"  # of a warehouse, or of its folder on this machine
LOG: Final = "log"  # the kind of artefact, and the name of its histories
_NO_TIME: Final = np.iinfo(np.int64).min
_OF_ROW: Final = 280  # bytes that sorting a row of a part takes, and
_OF_USER: Final = 100  # those of a user
_OF_EVENT: Final = 56  # bytes on disk besides its ids: rows of the parts, sorted, filtered, and as the parts of a split


@dataclass(frozen=True, kw_only=True, eq=False)
class Log:
    """The events that count, before any of them is held out.

    Attributes
    ----------
    histories
        Of all users; an item's code is its place among `ids`, from 1.
    ids
        Distinct item ids, in the order of the histories' first events of them.
    items
        The catalogue's rows of items that may be candidates, by id; None where there is no catalogue.
    rare
        The catalogue's other rows: of items whose events [filter] all leaves out. None where there is no catalogue.
    withdrawals
        Rows that took back events.
    users_before
        Users of the table, also those of whom no event counts.
    folder
        The files that the arrays are mapped from; they may be removed when others are made.
    """

    histories: Sequences
    ids: pl.Series
    items: pl.DataFrame | None
    rare: pl.DataFrame | None
    withdrawals: Withdrawals
    users_before: int
    folder: Path


def home_of(warehouse: str) -> Path:
    """The folder of a warehouse's prepared data."""
    return local_folder(warehouse) / FOLDER


def read_log(settings: Settings, versions: TableVersions) -> Log:
    """Read and filter the tables at these versions.

    Raises
    ------
    InputError
        Nothing is left after filtering, the tables lack what is declared of them, or memory or disk does not suffice.
    """
    log = scan(settings.warehouse, INTERACTIONS, versions.interactions)
    write, read = partial(_write, log=log, settings=settings), partial(_read, settings=settings, versions=versions)
    return obtain(home_of(settings.warehouse), LOG, log_key(settings, versions), write, read)


def log_key(settings: Settings, versions: TableVersions) -> str:
    """The hash of whatever the histories depend on."""
    parts = [
        code_version(),
        identity(settings.warehouse, INTERACTIONS, versions.interactions),
        settings.filter.model_dump(mode="json"),
        settings.seed if settings.split.same_time == "basket" else None,
        list(settings.model.event_context),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(folder: Path, facts: Any, settings: Settings, versions: TableVersions) -> Log:
    """Map the files of an artefact; see `read_log`."""
    users = read_frame(folder / f"users{FRAME}")[USER_ID]
    items = rare = None
    if settings.items is not None and versions.items is not None:
        items = scan(settings.warehouse, ITEMS, versions.items).collect().sort(ITEM_ID)
        # figures rank no item that the filter removed for having too few interactions, as published ones do not;
        # items that nobody has touched yet are ranked
        removed = pl.col(ITEM_ID).is_in(read_frame(folder / f"removed{FRAME}")[ITEM_ID].implode())
        items, rare = items.filter(~removed), items.filter(removed)
    return Log(
        histories=read_histories(folder, LOG, users, attributes_of(users, settings, versions)),
        ids=read_frame(folder / f"ids{FRAME}")[ITEM_ID],
        items=items,
        rare=rare,
        withdrawals=Withdrawals(**facts["withdrawals"]),
        users_before=facts["users_before"],
        folder=folder,
    )


def _write(folder: Path, log: pl.LazyFrame, settings: Settings) -> dict[str, Any]:
    """Fill the folder of an artefact."""
    users = users_of(log)
    _check_room(folder, users)
    scratch = folder / "scratch"
    scratch.mkdir()
    raw, ids, touched, withdrawals = _sorted(scratch, log, users, settings)
    least = settings.filter.min_user_interactions, settings.filter.min_item_interactions
    left = np.ones(0, dtype=bool)
    if max(least) > 1:
        left = k_core(raw.items, raw.offsets, *least)
        parts = (slice(start, start + AT_ONCE) for start in range(0, len(left), AT_ONCE))
        order = first_codes((raw.items[part][left[part]] for part in parts), len(ids))
    else:
        order = np.arange(1, len(ids) + 1)  # which is that of the first events already
    if not len(order):
        raise InputError(
            "No interaction is left after [filter]: min_user_interactions = "
            f"{settings.filter.min_user_interactions}, min_item_interactions = "
            f"{settings.filter.min_item_interactions}, events = {settings.filter.events}; loosen them."
        )
    _write_left(folder, raw, left if max(least) > 1 else None, order, settings)
    kept = ids.gather(order - 1).alias(ITEM_ID).to_frame()
    write_frame(folder / f"ids{FRAME}", kept)
    write_frame(
        folder / f"removed{FRAME}", touched.unique().alias(ITEM_ID).to_frame().join(kept, on=ITEM_ID, how="anti")
    )
    del raw
    shutil.rmtree(scratch)
    return {"withdrawals": asdict(withdrawals), "users_before": users.with_events}


def _sorted(
    scratch: Path, log: pl.LazyFrame, users: LogUsers, settings: Settings
) -> tuple[Sequences, pl.Series, pl.Series, Withdrawals]:
    """Sort the events that count one by one; the k-core comes later.

    Returns
    -------
    Sequences
        With the event and the weight as context where `model.context` names them; `_NO_TIME` stands for no time.
    Series
        Ids by their code, in the order of the first events.
    Series
        Ids of the table's items, some of them more than once.
    Withdrawals
        What was taken back.
    """
    names = settings.model.event_context
    own = [name for name in (EVENT, WEIGHT) if name in names]
    log = needed(log, users, settings.filter, names)
    vocabulary = Vocabulary(pl.Series(ITEM_ID, [], dtype=log.collect_schema()[ITEM_ID]))
    owners, touched, withdrawals = [users.ids.clear()], [vocabulary.items], Withdrawals()
    with HistoriesWriter(scratch, LOG, times=True, context=bool(own)) as writer:
        for rows in parts_of(log, users, scratch):
            standing, told = standing_events(rows.lazy(), settings.filter) if users.withdrawals else (rows.lazy(), None)
            frame = counting(standing, settings.filter, names).collect().sort(USER_ID, TIMESTAMP, POSITION)
            if len(frame) < len(rows):
                touched.append(rows[ITEM_ID].unique())
            withdrawals = withdrawals if told is None else withdrawals + told
            del rows, standing  # before more is made of them
            if settings.split.same_time == "basket" and len(frame):
                frame = in_drawn_order(frame, settings.seed)
            vocabulary = vocabulary.grow(frame[ITEM_ID])
            runs = frame.select(pl.col(USER_ID).rle()).unnest(USER_ID)
            owners.append(runs["value"].alias(USER_ID))
            writer.append(
                Sequences(
                    users=owners[-1],
                    items=vocabulary.encode(frame[ITEM_ID]),
                    offsets=ends_of(runs["len"].to_numpy()),
                    times=frame[TIMESTAMP].dt.epoch("us").fill_null(_NO_TIME).to_numpy(),
                    context=frame.select(own) if own else None,
                )
            )
    raw = read_histories(scratch, LOG, pl.concat(owners).alias(USER_ID))
    return raw, vocabulary.items, pl.concat([*touched, vocabulary.items]), withdrawals


def _write_left(folder: Path, raw: Sequences, left: np.ndarray | None, order: np.ndarray, settings: Settings) -> None:
    """Write the events that are left, in their own codes and with their context, and whose they are.

    Parameters
    ----------
    left
        bool [N]; None: all.
    order
        int64 [distinct], the old codes by the new ones.
    """
    names = settings.model.event_context
    numbers = np.zeros(int(order.max()) + 1, dtype=np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    users, known = [raw.users.clear()], {TIMESTAMP: True, EVENT: False, WEIGHT: False}
    with HistoriesWriter(folder, LOG, times=True, context=bool(names)) as writer:
        for part, block in raw.blocks():
            if left is not None:
                block = block.keep(left[raw.offsets[part.start] : raw.offsets[part.stop]])
                if not block.lengths.all():
                    block = block.select(block.lengths > 0)
            users.append(block.users)
            frame = _frame(block)
            known[TIMESTAMP] &= not frame[TIMESTAMP].null_count()
            known[EVENT] |= EVENT in names and bool((frame[EVENT] != "").any())
            known[WEIGHT] |= WEIGHT in names and frame[WEIGHT].null_count() < len(frame)
            writer.append(block, numbers[block.items], context_of(frame, names) if names else None)
    need_context(names, known)
    if not known[TIMESTAMP]:
        remove_times(folder, LOG)
    write_frame(folder / f"users{FRAME}", pl.concat(users).alias(USER_ID).to_frame())


def _frame(block: Sequences) -> pl.DataFrame:
    """Return the events of histories as a log has them, each user by a number."""
    assert block.times is not None
    times = pl.Series(TIMESTAMP, block.times).set(pl.Series(block.times == _NO_TIME), None)
    owner = pl.Series(USER_ID, np.repeat(np.arange(len(block)), block.lengths))
    own = [] if block.context is None else block.context.get_columns()
    return pl.DataFrame([owner, times.cast(pl.Datetime("us", "UTC")), *own])


def _check_room(folder: Path, users: LogUsers) -> None:
    """Refuse what would not fit before the work begins.

    Raises
    ------
    InputError
        Says how much memory or disk is lacking.
    """
    events = int(users.rows.sum())
    rows = min(events, max(PART, int(users.rows.max(initial=0))))  # of the largest part
    memory, free = _OF_ROW * rows + _OF_USER * len(users.ids), free_on_processor()
    if free is not None and memory > free:
        raise InputError(
            f"Preparing {events:,} events takes about {memory / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB are "
            "free; end other programs, or use a machine with more memory."
        )
    ids = 2 * users.ids.estimated_size() / max(len(users.ids), 1)  # those of items are about as long as those of users
    disk, free = round((_OF_EVENT + ids) * events), shutil.disk_usage(folder).free
    if disk > free:
        raise InputError(
            f"Preparing {events:,} events takes about {disk / GIB:.1f} GiB of disk in {folder.parent}, and "
            f"{free / GIB:.1f} GiB are free; make room, or set warehouse to a folder of a larger disk."
        )
