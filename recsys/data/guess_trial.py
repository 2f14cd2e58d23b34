"""The trial of a guessed configuration: its log's first rows go through ingest's own rules before it is written."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import polars as pl

from recsys.columns import INTERACTIONS, ITEM_ID, LINE, RAW, REASON, USER_ID
from recsys.config import Settings
from recsys.data.contracts import DEFECT, FILE_LINE, FILE_RAW, MISSING, no_reason
from recsys.data.guess_log import LogGuess
from recsys.data.ingest import try_rows, wanted
from recsys.data.quarantine import by_reason
from recsys.data.readers import Rows, read_rows
from recsys.data.sniff import Sample, write_sample
from recsys.data.sources import SourceFile
from recsys.errors import InputError

_ROOM: Final = 1.5  # times the share of the first rows without an id that the whole log may have


def try_configuration(settings: Settings, sample: Sample, guess: LogGuess) -> None:
    """Add to a guess what ingest would reject; where only ids are missing, allow as many as there are.

    Raises
    ------
    InputError
        Ingest would refuse the log, or reject more rows than the configuration allows.
    """
    section = settings.interactions
    with TemporaryDirectory(prefix="recsys-") as scratch:
        section = section.model_copy(update={"encoding": "utf-8"})
        checked = try_rows(section, _rows(settings, sample, Path(scratch)), datetime.now(UTC))
    if not len(checked.rejected):
        return
    reasons = by_reason(checked.rejected)
    told = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.items())
    share = len(checked.rejected) / checked.read
    allowed = section.max_rejected_share
    if share <= allowed:
        guess.unsure.append(f"{share:.1%} of the rows looked at would be quarantined: {told}.")
        return
    if set(reasons) <= set(MISSING.values()) and len(checked.good):
        guess.max_rejected_share = min(1.0, math.ceil(100 * share * _ROOM) / 100)
        guess.unsure.append(
            f"{share:.1%} of the rows looked at would be quarantined, as an id or a time is missing: {told}; "
            f"max_rejected_share = {guess.max_rejected_share:g} lets them pass."
        )
        return
    line, reason, raw = checked.rejected.filter(pl.col(REASON) == next(iter(reasons))).select(LINE, REASON, RAW).row(0)
    shown = raw if len(raw) <= 120 else raw[:119] + "…"
    raise InputError(
        f"{sample.path} cannot be read safely, and no configuration was written: ingest would reject {share:.0%} of "
        f"its rows ({told}), for example line {line}: {shown!r} ({reason}). Correct or rename the column, or write the "
        "configuration by hand."
    )


def _rows(settings: Settings, sample: Sample, scratch: Path) -> Rows:
    """The sample as ingest's readers give it."""
    section = settings.interactions
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
    ids = [section.columns.get(name, name) for name in (USER_ID, ITEM_ID)]
    return read_rows(
        file, section.model_copy(update={"encoding": "utf-8"}), scratch, wanted(INTERACTIONS, section), (), ids
    )
