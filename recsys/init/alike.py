"""Check whether the other files of a pattern are like the one that was looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from recsys.errors import InputError
from recsys.reading.readers import reading, scan_table
from recsys.reading.sniff import NothingInside, Sample, files_of, take_sample
from recsys.reading.sources import SourceFile

_FILES: Final = 100  # that are looked at
_BYTES: Final = 64 << 10  # of each
_SHOWN: Final = 3


def unlike(sample: Sample) -> tuple[str, ...]:
    """A sentence about files of the sample's pattern that another format, separator, header or encoding sets apart."""
    files = files_of(sample.path)
    looked_at = files[:_FILES] if len(files) > 1 else []
    found = [f"{Path(file).name} ({why})" for file in looked_at if (why := _difference(sample, file))]
    if not found:
        return ()
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return (
        f"{len(found):,} of the {len(looked_at):,} files of {sample.path} that were looked at are not like the first "
        f"one, as which they would be read: {', '.join(found[:_SHOWN])}{more}. Export them alike.",
    )


def _difference(sample: Sample, path: str) -> str:
    """Return the differences between a file and the sample; empty where nothing matters."""
    try:
        if sample.format == "parquet":
            with reading(SourceFile(name=path, path=path, format="parquet", separator=",")):
                return _lacking(sample, scan_table(path, "parquet").collect_schema().names())
        other = take_sample(path, limit=_BYTES)
    except NothingInside:
        return ""
    except InputError as error:
        return str(error)
    if other.format != sample.format:
        return f"format {other.format} instead of {sample.format}"
    ascii_alone = other.text is not None and other.text.isascii()
    wide = {"utf-16", "utf-32"} & {other.encoding[:6], sample.encoding[:6]}
    readable = other.encoding == sample.encoding or (ascii_alone and not wide)
    if not readable and (sample.encoding, other.encoding) != ("cp1252", "latin-1"):
        return f"encoding {other.encoding} instead of {sample.encoding}"
    if sample.format != "csv":
        return ""
    if other.separator != sample.separator:
        return f"separator {other.separator!r} instead of {sample.separator!r}"
    if other.header != sample.header:
        return "no header line" if sample.header else "a header line"
    return _lacking(sample, other.frame.columns)


def _lacking(sample: Sample, columns: list[str]) -> str:
    lacking = [name for name in sample.frame.columns if name not in columns]
    if lacking:
        return f"no column {', '.join(map(repr, lacking))}"
    more = len(columns) - len(sample.frame.columns)
    return f"{more} fields more a line" if more and not sample.named else ""
