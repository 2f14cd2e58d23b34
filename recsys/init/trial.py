"""The trial of a guessed configuration: each table's first rows go through ingest's own rules before it is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import polars as pl

from recsys.columns import LINE, RAW, REASON
from recsys.errors import InputError
from recsys.ingestion.checking import id_columns, try_rows, wanted
from recsys.reading.readers import Rows, read_rows
from recsys.reading.reasons import DEFECT, FILE_LINE, FILE_RAW, MISSING, no_reason
from recsys.reading.sniff import Sample, write_sample
from recsys.reading.sources import SourceFile
from recsys.settings import SourceSettings

_ROOM: Final = 1.5  # times the share of the first rows without an id that the whole table may have


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Rows of a table that ingest would reject."""

    max_rejected_share: float | None = None  # None: as the settings have it
    unsure: tuple[str, ...] = ()


def try_table(table: str, section: SourceSettings, sample: Sample) -> Trial:
    """Judge a table's first rows as ingest does; where only ids are missing, allow as many as there are.

    Raises
    ------
    InputError
        Ingest would refuse the table, or reject more rows than the configuration allows.
    """
    with TemporaryDirectory(prefix="recsys-") as scratch:
        plain = section.model_copy(update={"encoding": "utf-8"})
        checked = try_rows(table, plain, _rows(table, plain, sample, Path(scratch)), datetime.now(UTC))
    if not checked.refused:
        return Trial()
    reasons = checked.reasons
    told = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.items())
    share = checked.refused / checked.judged
    begin = f"{share:.1%} of the rows of {sample.path} that were looked at would be quarantined"
    if share <= section.max_rejected_share:
        return Trial(unsure=(f"{begin}: {told}.",))
    if set(reasons) <= set(MISSING.values()) and len(checked.good):
        allowed = min(1.0, math.ceil(100 * share * _ROOM) / 100)
        why = f"{begin}, as an id or a time is missing: {told}; max_rejected_share = {allowed:g} lets them pass."
        return Trial(max_rejected_share=allowed, unsure=(why,))
    line, reason, raw = checked.rejected.filter(pl.col(REASON) == next(iter(reasons))).select(LINE, REASON, RAW).row(0)
    shown = raw if len(raw) <= 120 else raw[:119] + "…"
    raise InputError(
        f"{sample.path} cannot be read safely, and no configuration was written: ingest would reject {share:.0%} of "
        f"its rows ({told}), for example line {line}: {shown!r} ({reason}). Correct the row or the column, or write "
        "the configuration by hand."
    )


def _rows(table: str, section: SourceSettings, sample: Sample, scratch: Path) -> Rows:
    """The sample as ingest's readers give it."""
    file = SourceFile(name=sample.path, path=sample.path, format=sample.format, separator=sample.separator)
    if sample.text is None:
        frame = sample.frame.lazy().with_row_index(FILE_LINE, offset=1)
        frame = frame.with_columns(
            pl.col(FILE_LINE).cast(pl.Int64),
            pl.struct(sample.frame.columns).struct.json_encode().alias(FILE_RAW),
            no_reason().alias(DEFECT),
        )
        return Rows(file=file, frame=frame, columns=tuple(sample.frame.columns), digest="")
    copy = scratch / "sample.txt"
    write_sample(copy, sample.text)
    file = SourceFile(name=sample.path, path=str(copy), format=sample.format, separator=sample.separator)
    return read_rows(file, section, scratch, wanted(table, section), (), id_columns(table, section))
