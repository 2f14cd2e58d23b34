"""Numbers, times and names as a page writes them."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Final, TypeGuard

DASH: Final = "–"
MINUS: Final = "−"
NAMES: Final = {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}
OBJECTIVES: Final = {"next-item": "next items", "cloze": "hidden items (cloze)"}


def known(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def figure(value: Any, digits: int = 4) -> str:
    """Write a figure with so many decimals; a dash for what is no number.

    >>> figure(0.13216), figure(float("nan")), figure(None)
    ('0.1322', '–', '–')
    """
    return f"{value:.{digits}f}".replace("-", MINUS) if known(value) else DASH


def signed(value: Any, digits: int = 4) -> str:
    """Write a difference with its sign.

    >>> signed(0.004), signed(-0.469)
    ('+0.0040', '−0.4690')
    """
    return f"{value:+.{digits}f}".replace("-", MINUS) if known(value) else DASH


def percent(value: Any) -> str:
    """Write a share as a percentage, with a decimal where it is below ten or just not the whole.

    >>> percent(0.4213), percent(0.0421), percent(0.0), percent(0.999), percent(1.0)
    ('42%', '4.2%', '0%', '99.9%', '100%')
    """
    if not known(value):
        return DASH
    rough = 0.0995 <= value < 0.995 or value in (0, 1)
    return f"{100 * value:.0f}%" if rough else f"{100 * value:.1f}%"


def count(value: Any) -> str:
    """Write a whole number with separators, other numbers as short as they are exact.

    >>> count(112096), count(0.25), count("popular")
    ('112,096', '0.25', 'popular')
    """
    if not known(value):
        return DASH if value is None or isinstance(value, float) else str(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


def seconds(value: Any) -> str:
    """Write a duration.

    >>> seconds(0.8), seconds(75), seconds(7325)
    ('0.8 s', '1 min 15 s', '2 h 2 min')
    """
    if not known(value):
        return DASH
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(value: Any) -> str:
    """Write bytes.

    >>> size(3 * 2**30), size(5_000_000)
    ('3.0 GiB', '5 MiB')
    """
    if not known(value):
        return DASH
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def metric(name: str) -> str:
    """Write a metric's key for people.

    >>> metric("test/ndcg_at_10"), metric("val/hr_at_5"), metric("ndcg@10"), metric("test/cold_hr_at_10")
    ('NDCG@10', 'HR@5', 'NDCG@10', 'cold HR@10')
    """
    short, _, k = name.rpartition("/")[2].replace("@", "_at_").partition("_at_")
    words = [NAMES.get(word, word) for word in short.split("_")]
    return " ".join(words) + (f"@{k}" if k else "")


def day(text: Any) -> str:
    """Write the day and time of an ISO 8601 moment; other text as it is.

    >>> day("2026-11-28T20:59:07+00:00")
    '28 November 2026, 20:59 UTC'
    """
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text or DASH)
    zone = " UTC" if moment.utcoffset() is not None and not moment.utcoffset() else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"


def short(text: Any, digits: int = 12) -> str:
    """Write the first digits of a hash."""
    return str(text)[:digits] if text else DASH
