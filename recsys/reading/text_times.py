"""Times as text in ISO 8601: the form that they are written in, and other times in the same form."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

import polars as pl

_HEAD: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?"
_FRACTION: Final = "(?:[.,][0-9]{1,9})?"
_ZONE: Final = "(?: ?(?:Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?))?"
_ISO: Final = f"^({_HEAD})({_FRACTION})({_ZONE})$"


def written_time(text: str) -> datetime | None:
    """The time that a text writes, with its offset from UTC where it has one; None: it writes none."""
    parts = re.match(_ISO, text)
    if parts is None:
        return None
    head, fraction, zone = parts.groups()
    zone = zone.strip()
    try:
        return datetime.fromisoformat(head + fraction + ("+00:00" if zone[:1].isalpha() else zone))
    except ValueError:
        return None


def like(clock: datetime, sample: str) -> str:
    """A clock's reading in the form of a sample, which no text of this form and second comes before."""
    parts = re.match(_ISO, sample)
    assert parts is not None
    head, fraction, zone = parts.groups()
    if len(head) == 10:
        return clock.date().isoformat() + zone
    text = clock.isoformat(sep=head[10], timespec="minutes" if len(head) == 16 else "seconds")
    return text + (re.sub("[0-9]", "0", fraction) if _is_strict(fraction, zone) else "") + zone


def shapes(values: pl.Series) -> pl.Series:
    """The form of each text; null where it is no time.

    The order of texts of one form is that of their times. The digits of a fraction may vary where that holds.
    """
    parts = values.to_frame("text").select(pl.col("text").str.extract_groups(_ISO)).unnest("text")
    head, fraction, zone = (pl.col(name) for name in ("1", "2", "3"))
    strict = fraction.str.starts_with(",") | zone.str.contains("^[A-Za-z]")
    shape = pl.concat_str(
        head.str.replace_all("[0-9]", "0"),
        pl.when(strict).then(fraction.str.replace_all("[0-9]", "0")).otherwise(pl.lit("")),
        zone,
    )
    return parts.select(shape).to_series()


def _is_strict(fraction: str, zone: str) -> bool:
    """Return whether "Z" or a comma, behind a point or before a sign, would mix up fractions of other lengths."""
    return fraction.startswith(",") or zone[:1].isalpha()
