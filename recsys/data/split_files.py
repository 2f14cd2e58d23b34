"""A split as files: histories of all users, those that train, and questions as places in the first.

The histories of questions, which are nearly all events again, are no files of their own: see `Slices`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys.columns import USER_ID
from recsys.data.mapped import (
    ARRAY,
    FRAME,
    ArrayWriter,
    HistoriesWriter,
    read_array,
    read_frame,
    read_histories,
    write_array,
    write_frame,
)
from recsys.data.sequences import AT_ONCE, Sequences, Slices, ends_of
from recsys.data.splits import HeldOut, Split

SERVING: Final = "serving"
TRAIN: Final = "train"
_ASKED: Final = ("validation", "test", "newcomers")
_PLAIN: Final = ("test_from", "validation_from", "validation_by", "users_without_history", "cold_targets")


def write_split(folder: Path, split: Split, recode: np.ndarray, source: Path) -> dict[str, Any]:
    """Write a split whose parts are slices of what is served, in other item codes.

    Parameters
    ----------
    recode
        int32 [distinct + 1]: the code of the vocabulary; 0: it lacks the item, whose events leave the histories.
    source
        The files of what is served but for their endings, in the old codes: what stays the same is not written again.

    Returns
    -------
    dict
        What `read_split` needs besides the files; JSON-friendly.
    """
    whole, known = split.serving, recode > 0
    timed, told = whole.times is not None, whole.context is not None
    if known[1:].all() and _linked(folder, source, whole):
        with ArrayWriter(folder / f"{SERVING}-items{ARRAY}", np.int32) as items:
            for _, block in whole.blocks():
                items.append(recode[block.items])
    else:
        with HistoriesWriter(folder, SERVING, times=timed, context=told) as writer:
            for _, block in whole.blocks():
                block = replace(block, items=recode[block.items])
                writer.append(block.keep(block.items > 0))
    write_frame(folder / f"{SERVING}-users{FRAME}", whole.users.alias(USER_ID).to_frame())
    if whole.attributes is not None:
        write_frame(folder / f"{SERVING}-attributes{FRAME}", whole.attributes)
    written = _served(folder)

    def moved(part: Sequences) -> Slices:
        """The same part of what is written."""
        assert isinstance(part, Slices) and part.whole is whole
        places = np.concatenate([part.starts, part.ends])
        starts, ends = np.split(places if known[1:].all() else _kept_before(whole.items, known, places), 2)
        return Slices.of(written, part.rows, starts, ends)

    train = moved(split.train)
    write_array(folder / f"{TRAIN}-rows{ARRAY}", train.rows)
    with HistoriesWriter(folder, TRAIN, times=timed, context=told) as writer:
        for _, block in train.blocks():
            writer.append(block)
    for name in _ASKED:
        asked: HeldOut | None = getattr(split, name)
        if asked is None:
            continue
        for kind, part in (("histories", asked.histories), ("others", asked.others)):
            if part is not None:
                slices = moved(part)
                for field in ("rows", "starts", "ends"):
                    write_array(folder / f"{name}-{kind}-{field}{ARRAY}", getattr(slices, field))
        write_array(folder / f"{name}-targets{ARRAY}", recode[asked.targets])
        if asked.times is not None:
            write_array(folder / f"{name}-times{ARRAY}", asked.times)
    return {field: getattr(split, field) for field in _PLAIN}


def _linked(folder: Path, source: Path, whole: Sequences) -> bool:
    """Give the files that do not depend on the codes of items a second name here; False where the disk has none."""
    try:
        for name in HistoriesWriter.others(SERVING, times=whole.times is not None, context=whole.context is not None):
            os.link(source.with_name(name.replace(SERVING, source.name, 1)), folder / name)
    except OSError:
        for name in HistoriesWriter.others(SERVING, times=True, context=True):
            (folder / name).unlink(missing_ok=True)
        return False
    return True


def read_split(folder: Path, plain: Mapping[str, Any]) -> Split:
    """Map what `write_split` wrote."""
    whole = _served(folder)
    rows = read_array(folder / f"{TRAIN}-rows{ARRAY}")
    all_train = len(rows) == len(whole)  # they ascend
    attributes = whole.attributes if all_train or whole.attributes is None else whole.attributes[rows]
    train = read_histories(folder, TRAIN, whole.users if all_train else whole.users[rows], attributes)
    asked = {name: _asked(folder, name, whole) for name in _ASKED}
    return Split(train=train, serving=whole, **asked, **plain)  # type: ignore[arg-type]


def _served(folder: Path) -> Sequences:
    attributes = folder / f"{SERVING}-attributes{FRAME}"
    users = read_frame(folder / f"{SERVING}-users{FRAME}")[USER_ID]
    return read_histories(folder, SERVING, users, read_frame(attributes) if attributes.exists() else None)


def _asked(folder: Path, name: str, whole: Sequences) -> HeldOut | None:
    """Return a held-out part; None where it was None."""

    def optional(what: str) -> np.ndarray | None:
        path = folder / f"{name}-{what}{ARRAY}"
        return read_array(path) if path.exists() else None

    targets = optional("targets")
    if targets is None:
        return None

    def slices(kind: str) -> Slices | None:
        rows, starts, ends = (optional(f"{kind}-{field}") for field in ("rows", "starts", "ends"))
        return None if rows is None or starts is None or ends is None else Slices.of(whole, rows, starts, ends)

    histories = slices("histories")
    assert histories is not None
    return HeldOut(histories=histories, targets=targets, times=optional("times"), others=slices("others"))


def _kept_before(items: np.ndarray, known: np.ndarray, places: np.ndarray) -> np.ndarray:
    """int64: how many events of known items stand before places of the flat arrays, in whatever order these are."""
    order = np.argsort(places, kind="stable")
    ascending, found, before = places[order], np.empty(len(places), dtype=np.int64), 0
    for start in range(0, len(items) + 1, AT_ONCE):
        sums = ends_of(known[items[start : start + AT_ONCE]])
        first, last = np.searchsorted(ascending, [start, start + AT_ONCE])
        found[order[first:last]] = before + sums[ascending[first:last] - start]
        before += int(sums[-1])
    return found
