"""Vectors of texts that no item has any more, and of encoders that no configuration reads any more.

Only vectors that were written long ago go, and only where a fifth of the table or more is unused: it is written anew
then. A vector that is needed after all costs one more encoding of its text.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable

from recsys.columns import CONTENT_HASH, ENCODER, ITEM_VECTORS, ITEMS
from recsys.retention.kept import Kept
from recsys.retention.removal import Removal
from recsys.settings import Settings
from recsys.storage.delta import data_files
from recsys.storage.remote import is_url
from recsys.storage.warehouse import SCHEMAS, commit_metadata, latest_version, overwrite, scan, table_path
from recsys.text.known import remembered
from recsys.text.uses import Use, needed, use_of, uses

SHARE: Final = 0.2  # of the vectors: so many must be unused
ROWS: Final = 8_192  # in memory at once

_KEY: Final = [ENCODER, CONTENT_HASH]


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Data files of the table at a version; `old` ones were written before all that stays for its age."""

    version: int
    old: list[str]
    young: list[str]
    old_rows: int
    rows: int
    size: int


def unused_vectors(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Vectors that no item of the newest catalogue needs, for whatever configuration of the warehouse."""
    root, version = settings.warehouse, latest_version(settings.warehouse, ITEMS)
    if version is None or latest_version(root, ITEM_VECTORS) is None:
        return
    wanted, files = _wanted(settings, kept.since), _files(root, kept.since)
    if wanted is None or not files.old:
        return
    items = int(scan(root, ITEMS, version).select(pl.len()).collect(engine="streaming").item())
    if files.old_rows - items * len(wanted) <= SHARE * files.rows:  # the fewest that can be unused
        return
    stay = needed(root, version, wanted)
    if stay is None or (not is_url(root) and shutil.disk_usage(root).free < files.size):
        return
    goes = pl.scan_parquet(files.old, glob=False).select(_KEY).join(stay.lazy(), on=_KEY, how="anti")
    count = int(goes.select(pl.len()).collect(engine="streaming").item())
    yield Removal(
        kind="text vectors",
        what=f"{table_path(root, ITEM_VECTORS)}: {count:,} vectors of texts that no item has",
        size=0,  # their files go with the versions that have them
        act=partial(_write_anew, root, files, stay),
    )


def _wanted(settings: Settings, since: datetime) -> list[Use] | None:
    """The texts that the configurations read, each once; None: that is not known of all of them.

    The notes are young where some configuration has perhaps not been run since there are any, or where the texts that
    one reads have just changed. Of the configuration at work they must say what it says.
    """
    found = uses(settings.warehouse)
    noted = [use for use, _ in found.values() if use is not None]
    if not noted or len(noted) < len(found) or min(at for _, at in found.values()) >= since:
        return None
    if settings.items is not None and settings.items.text:
        encoder = remembered(settings)
        if encoder is None or found.get(settings.name, (None,))[0] != use_of(settings, encoder.id):
            return None
    return list(dict.fromkeys(noted))


def _files(root: str, since: datetime) -> _Files:
    table = DeltaTable(table_path(root, ITEM_VECTORS))
    actions = pl.DataFrame(table.get_add_actions(flatten=True)).with_columns(
        old=pl.col("modification_time").dt.epoch("ms") < since.timestamp() * 1000
    )
    names = {unquote(name).rpartition("/")[2] for name in actions.filter("old")["path"]}
    files = data_files(table)
    return _Files(
        version=int(table.version()),
        old=[file for file in files if unquote(file).rpartition("/")[2] in names],
        young=[file for file in files if unquote(file).rpartition("/")[2] not in names],
        old_rows=int(actions.filter("old")["num_records"].sum()),
        rows=int(actions["num_records"].sum()),
        size=int(actions["size_bytes"].sum()),
    )


def _write_anew(root: str, files: _Files, stay: pl.DataFrame) -> None:
    overwrite(
        root,
        ITEM_VECTORS,
        _staying(files, stay),
        expected=files.version,
        metadata=commit_metadata(root, ITEM_VECTORS),
    )


def _staying(files: _Files, stay: pl.DataFrame) -> Iterator[pl.DataFrame]:
    yield pl.DataFrame(schema=SCHEMAS[ITEM_VECTORS])  # of no row at all there is a table, too
    old = pl.scan_parquet(files.old, glob=False).join(stay.lazy(), on=_KEY, how="semi")
    for rows in (old, *([pl.scan_parquet(files.young, glob=False)] if files.young else [])):
        yield from rows.collect_batches(chunk_size=ROWS)
