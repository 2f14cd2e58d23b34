"""Records that MLflow has not taken: JSON lines beside the run states, until it does.

Every process writes to a file of its own, which it holds locked; the lock of a killed one is free, so that the next
start sends its records. A line that a kill cut short is left out.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Final

from recsys.errors import RecsysError
from recsys.storage.files import file_aside
from recsys.storage.locks import locks

Record = dict[str, Any]
QUOTING: Final = frozenset(
    {"candidates.json", "candidates.md", "users.parquet", "report.html"}
)  # artifacts that quote users


class Spool:
    """The records of one process for one store.

    Parameters
    ----------
    folder
        Made with the first record.
    store
        Short name of the store and experiment; the beginning of the file's name.
    """

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.store = folder, store
        self.path = folder / f"{store}-{uuid.uuid4().hex[:12]}.jsonl"
        self.kept = 0  # records
        self.dropped = 0  # records that the disk did not take
        self._file: FileIO | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a record; where the disk does not take it, it is counted as dropped."""
        try:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)  # what a full disk refuses must not come later
                locks(self._file)
            line = json.dumps(record).encode() + b"\n"
            if self._file.write(line) != len(line):
                raise OSError("the disk took a part")
        except OSError:
            self.dropped += 1
        else:
            self.kept += 1

    def records(self) -> list[Record]:
        """Return the kept records in their order."""
        return read(self.path) if self.kept else []

    def clear(self) -> None:
        """Forget the records: they were sent."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
        self.close()
        self.kept = 0

    def close(self) -> None:
        """Let go of the file; what it holds is sent at the next start."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def left_by_others(self) -> Iterator[Path]:
        """The files that ended processes have left for this store, oldest first, each locked while it is used."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob(f"{self.store}-*.jsonl"), key=lambda path: path.stat().st_mtime):
            with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
                if locks(file):
                    yield path


def read(path: Path) -> list[Record]:
    """The whole records of a file."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


def quoting_records(folder: Path) -> int:
    """Count the records that quote users, in every file of a folder."""
    records = (record for path in folder.glob("*.jsonl") for record in read(path))
    return sum(record.get("path") in QUOTING for record in records)


def drop_quotes(folder: Path) -> int:
    """Drop the records that quote users from every file of a folder; returns their number.

    Raises
    ------
    RecsysError
        Another process is writing to one of the files.
    """
    dropped = 0
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("a", encoding="utf-8") as file:
            if not locks(file):
                raise RecsysError(
                    f"Another process is writing to {path}, which may quote a user; run the same command again when "
                    "it has ended."
                )
            records = read(path)
            kept = [record for record in records if record.get("path") not in QUOTING]
            with file_aside(path) as aside:  # a line that a kill cut short goes, too
                aside.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
            dropped += len(records) - len(kept)
    return dropped
