"""Files of the log that an earlier reading put into the table whole, so that they need not be read again.

Each commit of the log says which files its reading was of: size, times and digest of each, what came of its rows, and
by which rules they were read. A file that is as it was, by size and times or else by its digest, would add nothing, so
its counts are taken from there. All is read where that is not certain: other rules, other users who are to stay out, a
table that somebody else has written or brought back, a log without times of which any file changed, weights that
another order of files may correct.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from recsys.columns import INTERACTIONS
from recsys.forgetting.forgotten import Forgotten
from recsys.reading.reasons import FUTURE_TIME
from recsys.reading.sources import SourceFile, digest_file
from recsys.settings import SourceSettings
from recsys.storage import warehouse
from recsys.storage.remote import filesystem, is_url

FILES: Final = "files"  # key in a commit's metadata: `key`, the rules, and `known`, the files in the order of the log
_MOST: Final = 2000  # that a commit holds, the newest
_READING: Final = 1  # to be raised when a change of this program makes other rows of the same bytes
# settings that no row depends on, and those that hold for rows that are read from now on
_OTHER: Final = frozenset({"source", "max_rejected_share", "late_hours", "late", "corrections"})
_RACE: Final = 2_000_000_000  # (ns) a file as young as this may yet change and keep its times


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownFile:
    """A file as it was when it was read, and what came of its rows."""

    sha256: str
    size: int | None = None  # bytes; None: not of one file
    times: tuple[int, ...] | None = None  # (ns) of the last change of content and of inode; None: not to be relied on
    timed: bool = True
    weighted: bool = False
    accepted: int = 0
    withdrawals: int = 0
    forgotten: int = 0  # accepted rows of users who are to stay out, which are not among `accepted`
    reasons: dict[str, int] = field(default_factory=dict)  # rejected rows
    dropped: dict[str, int] = field(default_factory=dict)  # rows left out by a condition

    @property
    def read(self) -> int:
        """Rows of the file."""
        return self.accepted + sum(self.reasons.values()) + sum(self.dropped.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values without those that say nothing."""
        return {name: value for name, value in asdict(self).items() if value not in (None, 0, {})} | {
            "timed": self.timed
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> KnownFile:
        """Undo `to_json`."""
        times = given.get("times")
        return cls(**{**given, "times": None if times is None else tuple(times)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Size and times of a file at one moment; None where there are none."""

    size: int | None
    times: tuple[int, ...] | None

    @property
    def settled(self) -> tuple[int, ...] | None:
        """The times, where a change after this moment would show in them."""
        return self.times if self.times is not None and max(self.times) < time.time_ns() - _RACE else None


def look_at(file: SourceFile) -> Look:
    """Size and times of a file, without reading it."""
    if file.database is not None or file.format == "delta":
        return Look(size=None, times=None)
    if is_url(file.path):
        store, inside = filesystem(file.path)
        info = store.get_file_info(inside)
        return Look(size=info.size, times=None if info.mtime_ns is None else (info.mtime_ns,))
    told = Path(file.path).stat()
    return Look(size=told.st_size, times=(told.st_mtime_ns, told.st_ctime_ns))


def known_files(root: str, section: SourceSettings, forgotten: Forgotten | None) -> dict[str, KnownFile]:
    """The files that are in the log whole, in the order of the reading; empty where nothing is certain."""
    said = warehouse.said_last(root, INTERACTIONS).get(FILES, {})
    if said.get("key") != _key(section, forgotten):
        return {}
    return {name: KnownFile.from_json(given) for name, given in said["known"].items()}


def files_before(root: str) -> dict[str, KnownFile]:
    """The files that the reading before was of, by whatever rules it read them."""
    known = warehouse.said_last(root, INTERACTIONS).get(FILES, {}).get("known", {})
    return {name: KnownFile.from_json(given) for name, given in known.items()}


def shorter_than(before: Mapping[str, KnownFile], files: Mapping[str, KnownFile]) -> list[str]:
    """Names of the files that held more rows at the reading before."""
    both = [(name, file, before[name]) for name, file in files.items() if name in before]
    return [name for name, now, then in both if now.read + now.forgotten < then.read + then.forgotten]


def record_of(section: SourceSettings, forgotten: Forgotten | None, files: Mapping[str, KnownFile]) -> dict[str, Any]:
    """Return what a commit of the log says of the files of its reading."""
    newest = list(files.items())[-_MOST:]
    return {"key": _key(section, forgotten), "known": {name: file.to_json() for name, file in newest}}


def unchanged(found: Sequence[SourceFile], known: Mapping[str, KnownFile]) -> dict[str, KnownFile]:
    """The files of a reading that need not be read, by name."""
    if not known:
        return {}
    same = {file.name: same for file in found if (same := _same(file, known.get(file.name))) is not None}
    names = [file.name for file in found]
    if not all(file.timed for file in known.values()):  # events are known by their place in the whole log
        return same if names == list(known) and len(same) == len(names) else {}
    if any(file.weighted for file in known.values()):  # of two weights the later one counts, in the order of the files
        if [name for name in names if name in same] != list(known):
            return {}
        first = next((place for place, name in enumerate(names) if name not in same), len(names))
        return {name: file for name, file in same.items() if name in names[:first] or not file.weighted}
    return same


def _same(file: SourceFile, known: KnownFile | None) -> KnownFile | None:
    """A known file that is as it was; one with rows that may have been of the future is not."""
    if known is None or file.database is not None or FUTURE_TIME in known.reasons:
        return None
    now = look_at(file)
    if now.size != known.size:
        return None
    if known.times is not None and now.times == known.times:
        return known
    return replace(known, times=now.settled) if digest_file(file) == known.sha256 else None


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    added: dict[str, int] = {}
    for one in counts:
        for name, number in one.items():
            added[name] = added.get(name, 0) + number
    return added


def _key(section: SourceSettings, forgotten: Forgotten | None) -> str:
    """Digest of what decides which rows a file gives: the rules, and how many users are to stay out."""
    users = 0 if forgotten is None else len(forgotten.digests)
    rules = section.model_dump(mode="json", exclude=set(_OTHER))
    return hashlib.sha256(json.dumps([_READING, rules, users], sort_keys=True).encode()).hexdigest()[:16]
