"""Lists of ids, of users or of items: from a file, or from a query of a database."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Final

import polars as pl

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError, first_line
from recsys.reading.sources import resolve
from recsys.reading.unpack import FAILURES, read_blocks, without_packing
from recsys.settings import IdListSettings

_BLOCK: Final = 4 << 20  # bytes read at a time
_ENDINGS: Final = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}  # any other: a line an id


def read_ids(given: str | IdListSettings, key: str, data_root: str) -> pl.Series:
    """Return the ids of a list as text, in its order, without blanks around them and without empty ones.

    Parameters
    ----------
    given
        A file under `data_root` (txt: an id a line; csv, parquet: a column), or where the list is and in which column.
    key
        The setting that names the list, for messages.

    Raises
    ------
    InputError
        The list cannot be read, or lacks the column.
    RecsysError
        A store or a server does not answer; it may the next time.
    """
    settings = given if isinstance(given, IdListSettings) else IdListSettings(source=given)
    frame = _from_file(settings, key, data_root)
    usual = next((name for name in (USER_ID, ITEM_ID) if name in frame.columns), None)
    name = settings.column or usual or frame.columns[0]
    if name not in frame.columns:
        raise InputError(
            f"{settings.source}, which {key} names, has no column {name!r}; it has {', '.join(frame.columns)}."
        )
    ids = frame[name]
    if ids.dtype.is_float() and ids.cast(pl.Int64, strict=False).cast(ids.dtype).eq_missing(ids).all():
        ids = ids.cast(pl.Int64)  # whole numbers beside an empty one, as pandas writes them
    text = ids.cast(pl.String).str.strip_chars()
    return text.filter(text != "")


def _from_file(settings: IdListSettings, key: str, data_root: str) -> pl.DataFrame:
    path = resolve(settings.source, data_root)
    form = settings.format or _ENDINGS.get(Path(without_packing(path)).suffix.lower(), "txt")
    try:
        content = b"".join(read_blocks(path, _BLOCK, unpack=form != "parquet"))
        if form == "parquet":
            return pl.read_parquet(BytesIO(content))
        if form == "csv":
            return pl.read_csv(BytesIO(content), infer_schema=False)
        return pl.DataFrame({USER_ID: content.decode("utf-8-sig").splitlines()}, schema={USER_ID: pl.String})
    except FileNotFoundError:
        raise InputError(f"{key} names {path}, and there is no such file.") from None
    except (pl.exceptions.PolarsError, *FAILURES) as error:
        raise InputError(f"{path}, which {key} names, cannot be read: {first_line(error)}.") from None
