"""Lists of ids, of users or of items: from a file, or from a query of a database."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import polars as pl

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError, first_line
from recsys.reading.databases import spool
from recsys.reading.reasons import DEFECT
from recsys.reading.sources import find_files, resolve
from recsys.reading.unpack import FAILURES, read_blocks, without_packing
from recsys.settings import IdListSettings, SourceSettings
from recsys.storage.addresses import masked

_BLOCK: Final = 4 << 20  # bytes read at a time
_NAMES: Final = (USER_ID, ITEM_ID, "id")  # of columns with ids, where none is named
_ENDINGS: Final = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}  # any other: a line an id


def read_ids(given: str | IdListSettings, key: str, data_root: str, usual: str = USER_ID) -> pl.Series:
    """Return the ids of a list as text, in its order, without blanks around them and without empty ones.

    Parameters
    ----------
    given
        A file under `data_root` (txt: an id a line; csv, parquet: a column), or where the list is and in which column.
    key
        The setting that names the list, for messages.
    usual
        The column that is taken where none is named and a list has both user_id and item_id.

    Raises
    ------
    InputError
        The list cannot be read, lacks the column, or has several and none that is known.
    RecsysError
        A store or a server does not answer; it may the next time.
    """
    settings = given if isinstance(given, IdListSettings) else IdListSettings(source=given)
    frame = _from_database(settings, key, data_root) if settings.from_database else _from_file(settings, key, data_root)
    shown = masked(settings.source)
    known = [name for name in (usual, *_NAMES) if name in frame.columns]
    if settings.column is None and not known and frame.width > 1:
        raise InputError(
            f"{shown}, which {key} names, has the columns {', '.join(frame.columns)}, and none is called "
            f"{usual}; name the one with the ids in {key}.column."
        )
    name = settings.column or next(iter(known), None) or frame.columns[0]
    if name not in frame.columns:
        raise InputError(f"{shown}, which {key} names, has no column {name!r}; it has {', '.join(frame.columns)}.")
    ids = frame[name]
    if ids.dtype.is_nested():
        raise InputError(
            f"{shown}, which {key} names, holds lists or objects in the column {name!r} ({ids.dtype}); write one a row."
        )
    if ids.dtype.is_float() and ids.cast(pl.Int64, strict=False).cast(ids.dtype).eq_missing(ids).all():
        ids = ids.cast(pl.Int64)  # whole numbers beside an empty one, as pandas writes them
    text = ids.cast(pl.String).str.strip_chars()
    return text.filter(text != "")


def _from_database(settings: IdListSettings, key: str, data_root: str) -> pl.DataFrame:
    source = SourceSettings.model_validate(settings.model_dump(exclude={"column"}))
    with TemporaryDirectory(prefix="recsys-") as scratch:
        frames = []
        for number, file in enumerate(find_files(key, source, data_root)):
            path = spool(file, source, Path(scratch, f"{number}.parquet")).path
            frames.append(pl.read_parquet(path).drop(DEFECT, strict=False))
    return pl.concat(frames)


def _from_file(settings: IdListSettings, key: str, data_root: str) -> pl.DataFrame:
    path = resolve(settings.source, data_root)
    form = settings.format or _ENDINGS.get(Path(without_packing(path)).suffix.lower(), "txt")
    try:
        content = b"".join(read_blocks(path, _BLOCK, unpack=form != "parquet"))
        if form == "parquet":
            return pl.read_parquet(BytesIO(content))
        if form == "csv":
            return _from_csv(content, settings.column)
        return pl.DataFrame({USER_ID: content.decode("utf-8-sig").splitlines()}, schema={USER_ID: pl.String})
    except FileNotFoundError:
        raise InputError(f"{key} names {path}, and there is no such file.") from None
    except (pl.exceptions.PolarsError, *FAILURES) as error:
        raise InputError(f"{path}, which {key} names, cannot be read: {first_line(error)}.") from None


def _from_csv(content: bytes, column: str | None) -> pl.DataFrame:
    frame = pl.read_csv(BytesIO(content), infer_schema=False)
    if column is not None or frame.width > 1 or frame.columns[0] in _NAMES:
        return frame
    # the first line is an id, for all that one can tell; if it is a name, an id that nobody has does no harm
    return pl.read_csv(BytesIO(content), infer_schema=False, has_header=False, new_columns=[USER_ID])
