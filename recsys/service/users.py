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

import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import ArrowException

from recsys.columns import AS_OF, BUNDLE, CANDIDATE_SOURCE, ITEM_ID, RANK, RUN, SCORE, USER_ID
from recsys.errors import RecsysError, first_line
from recsys.storage.delta import data_files
from recsys.storage.intact import filesystem

GROUPS_HELD: Final = 16  # row groups in memory, some 5 MB each
_READ: Final = (USER_ID, RANK, ITEM_ID, SCORE, CANDIDATE_SOURCE, RUN, BUNDLE, AS_OF)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """A row group: its file, its number there, and the range of its users."""

    file: str
    number: int
    first: Any
    last: Any


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
        self._held: OrderedDict[tuple[str, int], pl.DataFrame] = OrderedDict()
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

    def rows(self, user: str) -> pl.DataFrame:
        """Rows of a user, by rank: `user_id`, `rank`, `item_id`, `score`, `source`, `run`, `bundle`, `as_of`.

        Raises
        ------
        RecsysError
            A file is gone or damaged.
        """
        key: Any = user
        if self.integer:
            if not (user.isascii() and user.removeprefix("-").isdigit() and len(user) < 20):
                return self._none()
            key = int(user)
        found = []
        for place in range(bisect_left(self._last, key), len(self._groups)):
            group = self._groups[place]
            if group.first <= key:
                frame = self._read(group)
                start, stop = (frame[USER_ID].search_sorted(key, side) for side in ("left", "right"))
                found.append(frame[int(start) : int(stop)])
        return pl.concat(found).sort(RANK) if found else self._none()

    def _none(self) -> pl.DataFrame:
        return (
            self._read(self._groups[0]).clear() if self._groups else pl.DataFrame(schema=dict.fromkeys(_READ, pl.Null))
        )

    def _read(self, group: _Group) -> pl.DataFrame:
        key = (group.file, group.number)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        try:
            store, name = filesystem(group.file)
            with store.open_input_file(name) as stream:
                read = pq.ParquetFile(stream).read_row_group(group.number, columns=list(_READ))
        except (OSError, ArrowException) as error:
            raise self._unreadable(error) from None
        frame = pl.DataFrame(read)
        if not frame[USER_ID].is_sorted():  # another program has written it
            frame = frame.sort(USER_ID, RANK)
        with self._lock:
            self._held[key] = frame
            while len(self._held) > GROUPS_HELD:
                self._held.popitem(last=False)
        return frame

    def _unreadable(self, error: Exception) -> RecsysError:
        return RecsysError(f"Version {self.version} of the table {self.path} cannot be read: {first_line(error)}.")


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
