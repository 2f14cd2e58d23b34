"""Look-up of one user's rows in the candidate table, whose files are sorted by user.

The footers of the Parquet files tell which users a row group holds. A look-up reads one group of about 131,072 rows, or
takes it from the cache of the groups read last, so memory does not grow with the table.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import ArrowException

from recsys.columns import AS_OF, BUNDLE, CANDIDATE_SOURCE, ITEM_ID, RANK, RUN, SCORE, USER_ID
from recsys.errors import RecsysError, first_line
from recsys.storage.delta import data_files
from recsys.storage.remote import filesystem

ROWS_HELD: Final = 4_000_000  # rows in memory, some 100 MB; a group that is larger is held alone
_READ: Final = (USER_ID, RANK, ITEM_ID, SCORE, CANDIDATE_SOURCE, RUN, BUNDLE, AS_OF)
_REPEATED: Final = (USER_ID, CANDIDATE_SOURCE, RUN, BUNDLE)  # texts that a dictionary keeps small


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """A row group: its file, its number there, and the range of its users."""

    file: str
    number: int
    first: Any
    last: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """A row group in memory: its rows, and where each user's begin and end."""

    rows: pa.Table
    places: dict[Any, list[tuple[int, int]]]


class UserTable:
    """A version of a candidate table, by user.

    Attributes
    ----------
    path, version
        Of the Delta table.
    """

    def __init__(self, path: str, version: int) -> None:
        """Read the footers of the table's files.

        Raises
        ------
        RecsysError
            The version, or one of its files, is gone or damaged.
        """
        self.path, self.version = path, version
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, int], _Held] = OrderedDict()
        self._rows_held = 0
        try:
            files = data_files(DeltaTable(path, version=version))
            groups = [group for file in files for group in _groups(file)]
        except (DeltaError, OSError, ArrowException) as error:
            raise self._unreadable(error) from None
        self._groups = sorted(groups, key=lambda group: (group.last, group.first))
        self._last = [group.last for group in self._groups]
        self.integer = bool(groups) and isinstance(groups[0].first, int)

    @property
    def first(self) -> Any | None:
        """Return a user that has rows; None: the table is empty."""
        return self._groups[0].first if self._groups else None

    def rows(self, user: str) -> list[dict[str, Any]]:
        """Rows of a user, by rank: `user_id`, `rank`, `item_id`, `score`, `source`, `run`, `bundle`, `as_of`.

        Raises
        ------
        RecsysError
            A file is gone or damaged.
        """
        key: Any = user
        if self.integer:
            if not (user.isascii() and user.removeprefix("-").isdigit() and len(user) < 20):
                return []
            key = int(user)
        found: list[dict[str, Any]] = []
        for place in range(bisect_left(self._last, key), len(self._groups)):
            if self._groups[place].first <= key:
                held = self._read(self._groups[place])
                for start, stop in held.places.get(key, ()):
                    found += held.rows.slice(start, stop - start).to_pylist()
        return sorted(found, key=lambda row: row[RANK])

    def _read(self, group: _Group) -> _Held:
        key = (group.file, group.number)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        try:
            store, name = filesystem(group.file)
            with store.open_input_file(name) as stream:
                file = pq.ParquetFile(stream, read_dictionary=list(_REPEATED))
                rows = file.read_row_group(group.number, columns=list(_READ)).combine_chunks()
        except (OSError, ArrowException) as error:
            raise self._unreadable(error) from None
        held = _Held(rows=rows, places=_places(rows[USER_ID].chunk(0) if len(rows) else None))
        with self._lock:
            if key not in self._held:
                self._held[key] = held
                self._rows_held += len(rows)
            while self._rows_held > ROWS_HELD and len(self._held) > 1:
                self._rows_held -= len(self._held.popitem(last=False)[1].rows)
        return held

    def _unreadable(self, error: Exception) -> RecsysError:
        return RecsysError(f"Version {self.version} of the table {self.path} cannot be read: {first_line(error)}.")


def _places(users: pa.Array | None) -> dict[Any, list[tuple[int, int]]]:
    """Runs of equal values: a sorted file has one a user, one that another program has written may have several."""
    if users is None:
        return {}
    has_dictionary = pa.types.is_dictionary(users.type)
    codes = np.asarray(users.indices if has_dictionary else users)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1])
    stops = np.concatenate([starts[1:], [len(codes)]])
    values = codes[starts].tolist()
    if has_dictionary:
        names = users.dictionary.to_pylist()
        values = [names[code] for code in values]
    found: dict[Any, list[tuple[int, int]]] = {}
    for value, start, stop in zip(values, starts.tolist(), stops.tolist(), strict=True):
        found.setdefault(value, []).append((start, stop))
    return found


def _groups(file: str) -> list[_Group]:
    store, name = filesystem(file)
    with store.open_input_file(name) as stream:
        metadata = pq.read_metadata(stream)
        column = metadata.schema.names.index(USER_ID)
        found = []
        for number in range(metadata.num_row_groups):
            of = metadata.row_group(number).column(column).statistics
            if of is not None and of.has_min_max:
                first, last = of.min, of.max
            else:  # another program has written it
                users = pq.ParquetFile(stream).read_row_group(number, columns=[USER_ID])[USER_ID].to_pylist()
                first, last = min(users), max(users)
            found.append(_Group(file=file, number=number, first=first, last=last))
    return found
