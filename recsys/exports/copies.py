"""Description of a target's own copy: which version of which candidate table it is, and by which settings.

A target keeps this beside the rows, in the act that switches them in: a table's comment, a key, an object. By it a
copy of another configuration and an older run are refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake import DeltaTable

from recsys.columns import AS_OF
from recsys.errors import InputError, RecsysError
from recsys.settings import ExportSettings

if TYPE_CHECKING:
    from recsys.exports.base import CandidateTable

_BY = "recsys"  # marks a comment of ours


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A copy in a target; JSON-friendly, and without a secret.

    Attributes
    ----------
    name
        Of the configuration.
    table
        Id of the Delta table that it was made of, which a table made anew changes.
    version, run
        Of the candidate table.
    as_of
        Moment of the run (ISO 8601, UTC), as the rows say.
    shape
        Digest of the settings: equal ones make equal copies.
    """

    name: str
    table: str
    version: int
    run: str | None
    as_of: str | None
    shape: str

    def is_of(self, other: Copy) -> bool:
        """Return whether both are of one version of one table."""
        return (self.table, self.version) == (other.table, other.version)

    def is_release_of(self, other: Copy) -> bool:
        """Return whether both are of one run's table, as it was published or with users whose rows came anew since.

        One takes the other's place without becoming the former copy, so that `rollback` goes back to the run before.
        """
        return self.table == other.table and (self.version == other.version or self.run == other.run is not None)

    def text(self) -> str:
        """JSON, as a target keeps it."""
        return json.dumps({"by": _BY, **asdict(self)}, sort_keys=True)

    @classmethod
    def read(cls, text: str | bytes | None) -> Copy | None:
        """The copy that a text of a target describes; None where no export has written it."""
        try:
            given = json.loads(text or "")
            return cls(**{key: given[key] for key in cls.__dataclass_fields__}) if given["by"] == _BY else None
        except (ValueError, KeyError, TypeError):
            return None


def copy_of(candidates: CandidateTable, files: list[str], name: str, settings: ExportSettings) -> Copy:
    """Describe the copy that a version of the candidate table will be; `files` are its Parquet files."""
    latest: Any = pl.scan_parquet(files).select(pl.col(AS_OF).max()).collect().item() if files else None
    return Copy(
        name=name,
        table=str(DeltaTable(candidates.path).metadata().id),
        version=candidates.version,
        run=candidates.run,
        as_of=latest.astimezone(UTC).isoformat() if isinstance(latest, datetime) else None,
        shape=shape_of(settings),
    )


def shape_of(settings: ExportSettings) -> str:
    """Digest of the settings that decide what a copy holds and where, without passwords."""
    told = settings.model_dump(mode="json", exclude={"address", "keep_hours"})
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def is_held(held: Copy | None, candidates: CandidateTable, settings: ExportSettings) -> bool:
    """Return whether a target's copy is this version of the candidate table, as these settings shape it."""
    if held is None or held.version != candidates.version or held.shape != shape_of(settings):
        return False
    return held.table == str(DeltaTable(candidates.path).metadata().id)


def check_owner(held: Copy | None, name: str, place: str, key: str) -> None:
    """Refuse the place of another configuration's copy.

    Parameters
    ----------
    name
        Of the configuration that asks.
    place, key
        The place in words, and the setting that names it.

    Raises
    ------
    InputError
        The copy there is another configuration's.
    """
    if held is not None and held.name != name:
        raise InputError(
            f"{place} holds the candidates of the configuration {held.name!r}, and this one is {name!r}; choose "
            f"another {key}."
        )


def check_newer(held: Copy | None, new: Copy, place: str) -> None:
    """Refuse to let an older run take a newer one's place.

    Versions of one table are in order. A table that was made anew counts from 0 again: there the runs' moments decide.

    Raises
    ------
    RecsysError
        The copy there is newer.
    """
    if held is None:
        return
    if held.table == new.table:
        older = new.version < held.version
    else:
        older = held.as_of is not None and new.as_of is not None and new.as_of < held.as_of
    if older:
        raise RecsysError(
            f"{place} holds version {held.version} of the candidate table (run {held.run}), which is newer than "
            f"version {new.version}; nothing was changed. `recsys export CONFIG --rollback` brings an older copy back."
        )
