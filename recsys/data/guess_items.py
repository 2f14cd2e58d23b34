"""Which columns of a catalogue are the id, the words of the item's sentence, and categorical attributes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from recsys.config import RESERVED
from recsys.data.sniff import Sample, known_share, looks_numeric, share
from recsys.errors import InputError

_TITLE: Final = re.compile(r"(?i)(^|_|\b)(title|name|headline|label)|(title|name)$")
_LONG: Final = re.compile(r"(?i)desc|plot|summary|overview|abstract|feature|about|text|body|review")
_BRAND: Final = re.compile(r"(?i)brand|manufact|author|artist|publisher|studio|maker|vendor|director")
_CATEGORY: Final = re.compile(r"(?i)categ|genre|tags?$|topic|class|department|type|kind|group|section|attribute")
_ID_NAME: Final = re.compile(r"(?i)(^|_|[a-z])(id|asin|sku|key|code|isbn)$|^(id|asin|sku)")
_ADDRESS: Final = r"^\s*(https?://|www\.|/)"
_SEPARATORS: Final = ("|", ";", " > ", " / ", ", ", ",")


@dataclass(kw_only=True)
class CatalogueGuess:
    """The catalogue's columns by meaning, and what is said about them."""

    item_id: str
    text: list[str] = field(default_factory=list)  # title first
    # attribute -> separator; None where a value is not to be split
    categorical: dict[str, str | None] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


def guess_catalogue(sample: Sample, log_items: pl.Series) -> CatalogueGuess:
    """Look at a catalogue beside the item ids of its log.

    Raises
    ------
    InputError
        No column can be the item's id.
    """
    frame = sample.frame
    result = _guess_id(sample, log_items)
    titles, others, long = [], [], []
    for name in frame.columns:
        values = frame[name]
        if name == result.item_id:
            continue
        if name in RESERVED:
            if values.dtype in (pl.String, pl.List(pl.String)):
                titles.append(name)
            continue
        if values.dtype in (pl.List(pl.String), pl.List(pl.List(pl.String))):
            result.categorical[name] = None
            others.append(name)
            continue
        if values.dtype != pl.String:
            if values.dtype.is_nested():
                result.unsure.append(
                    f"The column {name!r} of {sample.path} is nested ({values.dtype}); it is not used."
                )
            continue
        there = values.drop_nulls()
        there = there.filter(there != "")
        if not len(there) or looks_numeric(there) or share(there.str.contains(_ADDRESS)) > 0.5:
            continue
        separator = _separator(there)
        words = float(there.str.count_matches(r"\S+").to_numpy().mean())
        if separator is not None and not _TITLE.search(name):
            result.categorical[name] = separator
            others.append(name)
        elif _repeats(there) and not (_TITLE.search(name) and words >= 2):
            result.categorical[name] = None
            others.append(name)
        elif words > 25 or (_LONG.search(name) and words > 8):
            long.append(name)
        elif words >= 1.5 or _TITLE.search(name):
            titles.append(name)
    titles.sort(key=lambda name: not _TITLE.search(name))
    others.sort(key=lambda name: 0 if _BRAND.search(name) else 1 if _CATEGORY.search(name) else 2)
    result.text = [*titles, *others, *long]
    _describe(sample, result)
    return result


def _guess_id(sample: Sample, log_items: pl.Series) -> CatalogueGuess:
    """The column whose values are distinct and the most often among the log's items."""
    frame = sample.frame
    shares = {}
    for name in frame.columns:
        values = frame[name]
        flat = values.dtype.is_integer() or values.dtype == pl.String
        if flat and values.n_unique() >= 0.9 * len(values) and values.null_count() == 0:
            shares[name] = known_share(log_items, values)
    if not shares:
        raise InputError(
            f"{sample.path}: no column holds a different value in every row (its columns: "
            f"{', '.join(frame.columns)}); name the id in a configuration: "
            '[items] columns = { item_id = "..." }.'
        )
    best = max(shares, key=lambda name: (shares[name], bool(_ID_NAME.search(name)), -frame.columns.index(name)))
    known = shares[best]
    result = CatalogueGuess(item_id=best)
    shown = repr(best) if sample.header or sample.format != "csv" else f"field {best.removeprefix('column_')}"
    told = f"{len(frame):,} items in {sample.path}, item_id = {shown}: it holds {known:.0%} of the log's items."
    count = _renumbered(log_items)
    if count and known < 1:
        result.unsure.append(
            f"THE CATALOGUE IS PROBABLY JOINED WRONGLY: the log numbers its {count:,} items without a gap, as logs do "
            f"whose ids were replaced, and {sample.path} (item_id = {shown}) has gaps where the log has none, so that "
            f"{known:.0%} of the numbers meet says nothing, and titles and attributes would go to other items. Name a "
            "file of the two ids (the log's, the catalogue's) in items.id_map, or run without the catalogue: --set "
            "items=none."
        )
        return result
    (result.found if known >= 0.5 else result.unsure).append(told)
    if known < 0.5:
        result.unsure.append(
            "If the catalogue numbers the items in another way than the log, name a file of the two ids in "
            "items.id_map."
        )
    elif best != log_items.name and looks_numeric(frame[best]) and looks_numeric(log_items):
        result.unsure.append(
            "Log and catalogue number the items, and no common name says that the numbers are the same; look at "
            "a few items, and if they differ, name a file of the two ids in items.id_map."
        )
    return result


def _renumbered(log_items: pl.Series) -> int:
    """How many items a log has that numbers them 1, 2, 3, ... (or from 0) without a gap; else 0."""
    numbers = log_items.cast(pl.Int64, strict=False).drop_nulls().unique().sort()
    if len(numbers) < 20 or numbers[0] not in (0, 1) or numbers[-1] - numbers[0] + 1 > len(numbers):
        return 0
    return len(numbers)


def _separator(values: pl.Series) -> str | None:
    """What separates several values in one string, when the parts come again and again."""
    for separator in _SEPARATORS:
        if share(values.str.contains(separator, literal=True)) < 0.2:
            continue
        parts = values.str.split(separator).explode(empty_as_null=True, keep_nulls=True)
        if parts.n_unique() <= max(0.05 * len(parts), 10) and len(parts) >= 3 * parts.n_unique():
            return separator
    return None


def _repeats(values: pl.Series) -> bool:
    """Whether a value stands for a class of items: three and more items a value."""
    return values.n_unique() * 3 <= len(values)


def _describe(sample: Sample, result: CatalogueGuess) -> None:
    if result.text:
        result.found.append(f"The item's sentence is made of {', '.join(result.text)}.")
    else:
        result.unsure.append(f"No column of {sample.path} holds words; the text channel has nothing to read.")
    if result.categorical:
        several = [f"{name} (split at {mark!r})" if mark else name for name, mark in result.categorical.items()]
        result.found.append(f"Categorical attributes: {', '.join(several)}.")
    if result.text and not _TITLE.search(result.text[0]) and (sample.header or sample.format != "csv"):
        result.unsure.append(f"{result.text[0]!r} is taken as the title: no column is named like one.")
