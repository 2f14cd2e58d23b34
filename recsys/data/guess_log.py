"""Which columns of an interaction log are user, item, timestamp, event and weight.

Names decide first ("userId", "asin", "ts"), then values (moments, ratings, ids that the catalogue knows).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from recsys.columns import EVENT, ITEM_ID, TIMESTAMP, USER_ID, WEIGHT
from recsys.data.contracts import NAIVE, TIME, with_time
from recsys.data.sniff import Sample, known_share, looks_numeric, share
from recsys.errors import InputError

# normalised names (letters and digits only), the likeliest first; "x" also matches "x_id", "x_key", ...
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    USER_ID: (
        *("user", "uid", "customer", "client", "member", "account", "buyer", "shopper", "reviewer", "reader"),
        *(
            "subscriber",
            "player",
            "visitor",
            "fullvisitor",
            "person",
            "profile",
            "session",
            "device",
            "cookie",
        ),
    ),
    ITEM_ID: (
        *(
            "item",
            "iid",
            "product",
            "movie",
            "asin",
            "parentasin",
            "sku",
            "article",
            "book",
            "isbn",
            "track",
            "song",
        ),
        *("game", "video", "show", "anime", "recipe", "news", "listing", "offer", "ad", "business", "artist"),
        *("content", "material", "stock", "good", "entity", "target"),
    ),
    TIMESTAMP: (
        *(
            "timestamp",
            "ts",
            "eventtime",
            "eventtimestamp",
            "datetime",
            "time",
            "date",
            "createdat",
            "created",
        ),
        *(
            "unixreviewtime",
            "eventdate",
            "orderdate",
            "invoicedate",
            "purchasedate",
            "reviewtime",
            "when",
            "tdat",
        ),
        *("unixtime", "epoch", "day", "updatedat"),
    ),
    EVENT: (
        "event",
        "eventtype",
        "eventname",
        "action",
        "actiontype",
        "behavior",
        "behaviour",
        "behaviortype",
    ),
    WEIGHT: (
        *("rating", "weight", "score", "stars", "overall", "quantity", "qty", "count", "plays", "playcount"),
        *("amount", "value", "label", "feedback", "strength"),
    ),
}
_SUFFIXES: Final = (
    "",
    "id",
    "ids",
    "key",
    "code",
    "no",
    "number",
    "num",
    "idx",
    "index",
    "hash",
    "uuid",
    "name",
)
_NOT_ITEM: Final = re.compile(r"title|descr|categ|price|type|url|brand|count|group")
Take = Callable[[str, str, str], None]  # (our name, the column, why it is only a guess or "")
_READABLE: Final = 0.9  # share of a column's values that must be moments for it to be the time


@dataclass(kw_only=True)
class LogGuess:
    """The log's columns by meaning (ours = theirs), and what is said about them."""

    columns: dict[str, str] = field(default_factory=dict)
    time_unit: str = "auto"
    timezone: str | None = None
    found: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


def guess_log(sample: Sample, catalogue: pl.DataFrame | None = None) -> LogGuess:
    """Which columns of a log are user, item, timestamp, event and weight."""
    frame, result = sample.frame, LogGuess()
    named = sample.header or sample.format in ("jsonl", "sequences")
    result.found.append(_described(sample))
    free = [name for name in frame.columns if not frame.schema[name].is_nested()]

    def take(ours: str, theirs: str, why: str) -> None:
        result.columns[ours] = theirs
        free.remove(theirs)
        if why:
            result.unsure.append(f"{ours} = {_shown(sample, theirs)}: {why}")

    if sample.format == "sequences":
        take(USER_ID, USER_ID, "")
        take(ITEM_ID, ITEM_ID, "")
    else:
        by_name = {ours: _by_name(frame, free, ours) if named else None for ours in _NAMES}
        for ours in (USER_ID, ITEM_ID):
            theirs = by_name[ours]
            if theirs is not None and theirs in free:
                take(ours, theirs, "")
        _take_time(sample, free, by_name[TIMESTAMP], result, take)
        _take_ids(sample, free, catalogue, result, take)
        for ours, fits, why in (
            (WEIGHT, _is_weight, "few different small numbers, as ratings are"),
            (EVENT, _is_event, "few different words, as events are"),
        ):
            theirs = by_name[ours]
            if theirs is not None and theirs in free and fits(frame[theirs], by_name=True):
                take(ours, theirs, "")
            elif not named or ours == EVENT:
                theirs = next((name for name in free if fits(frame[name], by_name=False)), None)
                if theirs is not None:
                    take(ours, theirs, f"taken for its values ({why}).")
    if TIMESTAMP not in result.columns:
        result.found.append("No column holds times: the order of the file is taken as the order of events.")
    _describe_histories(sample, result)
    return result


def _take_time(sample: Sample, free: list[str], named: str | None, result: LogGuess, take: Take) -> None:
    candidates = [named] if named is not None and named in free else []
    candidates += [name for name in free if name not in candidates]
    for name in candidates:
        values = sample.frame[name].drop_nulls()
        unit = _unit(values)
        if name != named and unit is None:
            continue
        readable, naive, unread = _moments(values)
        if readable < _READABLE:
            if name == named and len(values):
                then = (
                    "ingest rejects such rows" if name == TIMESTAMP else "it was left out; rewrite it to have the order"
                )
                result.unsure.append(
                    f"The column {name!r} is named like a time, but values such as {unread!r} are "
                    f"neither ISO 8601 nor seconds since 1970: {then}."
                )
            continue
        take(
            TIMESTAMP,
            name,
            "" if name == named else "taken for its values, which are moments of 1990 to 2100.",
        )
        result.time_unit = unit if unit in ("s", "ms", "us") else "auto"
        if naive:
            result.timezone = "UTC"
            result.unsure.append(
                f"The times in {_shown(sample, name)} have no zone (such as {str(values[0])!r}); "
                'timezone = "UTC" is a guess.'
            )
        return


def _take_ids(sample: Sample, free: list[str], catalogue: pl.DataFrame | None, result: LogGuess, take: Take) -> None:
    """What names did not tell: columns of ids, the user's first unless the catalogue knows better."""
    frame = sample.frame
    missing = [ours for ours in (USER_ID, ITEM_ID) if ours not in result.columns]
    if not missing:
        return
    ids = [name for name in free if _is_id(frame[name])]
    likely = [n for n in ids if not (_is_event(frame[n], by_name=False) or _is_weight(frame[n], by_name=False))]
    ids = likely if len(likely) >= len(missing) else ids
    if ITEM_ID in missing and catalogue is not None and ids:
        known = {name: _known(frame[name], catalogue) for name in ids}
        best = max(ids, key=lambda name: known[name])
        # numbers of users and of items overlap by chance: only a clear lead says something
        second = max((share for name, share in known.items() if name != best), default=0.0)
        if known[best] > 0.5 and second < known[best] - 0.2:
            take(ITEM_ID, best, f"taken because the catalogue knows {known[best]:.0%} of its values.")
            ids.remove(best)
            missing.remove(ITEM_ID)
    for ours in missing:
        if not ids:
            names = ", ".join(frame.columns)
            whose = "user's" if ours == USER_ID else "item's"
            raise InputError(
                f"{sample.path}: no column looks like the {whose} id (its columns: {names}); name them in a "
                'configuration: [interactions] columns = { user_id = "...", item_id = "..." }.'
            )
        why = f"taken for its place, the {'first' if ours == missing[0] else 'next'} column of ids."
        take(ours, ids.pop(0), why)


def _by_name(frame: pl.DataFrame, names: Sequence[str], ours: str) -> str | None:
    """The column whose name means this, the likeliest meaning first."""
    plain = {name: re.sub(r"[^a-z0-9]", "", name.lower()) for name in names}
    suffixes = _SUFFIXES if ours in (USER_ID, ITEM_ID) else ("", "ms", "s", "utc", "type", "seconds")
    for word in _NAMES[ours]:
        for suffix in suffixes:
            for name, written in plain.items():
                if written == word + suffix and frame[name].n_unique() > 1:
                    return name
    if ours in (EVENT, WEIGHT):
        return None
    for word in _NAMES[ours]:  # "shop_product_id", "product.id", "viewed_at_time"
        for name in names:
            tokens = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
            if word in (token.lower() for token in tokens) and not _NOT_ITEM.search(name.lower()):
                return name
    return None


def _is_id(values: pl.Series) -> bool:
    """Numbers without fractions or short strings, more than one of them, without gaps."""
    if values.null_count() > 0.1 * len(values) or values.n_unique() < 2:
        return False
    if values.dtype.is_integer():
        return True
    if values.dtype != pl.String:
        return False
    return not values.str.contains(r"^\s*\d+\.\d+\s*$|\s\S+\s").any()


def _is_weight(values: pl.Series, *, by_name: bool) -> bool:
    if not looks_numeric(values):
        return False
    small = share(values.drop_nulls().cast(pl.Float64, strict=False).abs() <= 100) == 1
    return by_name or (values.n_unique() <= 20 and small)


def _is_event(values: pl.Series, *, by_name: bool) -> bool:
    if values.dtype != pl.String or looks_numeric(values):
        return False
    distinct = values.n_unique()
    few = distinct <= 50 if by_name else 2 <= distinct <= 12 and distinct < 0.01 * len(values) + 3
    return few and bool(values.drop_nulls().str.contains(r"^[A-Za-z][\w -]*$").all())


def _unit(values: pl.Series) -> str | None:
    """Of numbers that are moments of 1990 to 2100: "s", "ms", "us", "ns"; "text" of dates; else None."""
    if isinstance(values.dtype, pl.Datetime | pl.Date):
        return "text"
    if not looks_numeric(values):
        dates = values.dtype == pl.String and len(values) and values.str.contains(r"^\s*\d{4}-\d{2}-\d{2}").all()
        return "text" if dates else None
    numbers = values.cast(pl.Float64, strict=False)
    for unit, scale in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        if share(numbers.is_between(631_152_000 * scale, 4_102_444_800 * scale)) >= _READABLE:
            return unit
    return None


def _moments(values: pl.Series) -> tuple[float, bool, str]:
    """The share of values that ingest can read as times, whether some have no zone, and one that it cannot read."""
    if not len(values) or values.dtype == pl.Boolean:
        return 0.0, False, "" if values.is_empty() else str(values[0])
    head = values.head(100_000).alias(TIMESTAMP).to_frame().lazy()
    told = with_time(head, TIMESTAMP, "auto", "UTC").select(TIMESTAMP, TIME, NAIVE).collect()
    unread = told.filter(pl.col(TIME).is_null())[TIMESTAMP].head(1).to_list()
    return share(told[TIME].is_not_null()), bool(told[NAIVE].any()), str(*unread)


def _known(values: pl.Series, catalogue: pl.DataFrame) -> float:
    """Share of a column's distinct values that a column of the catalogue holds that tells items apart."""
    flat = [catalogue[name] for name in catalogue.columns if not catalogue.schema[name].is_nested()]
    telling = [column for column in flat if column.n_unique() >= 0.9 * len(column)]
    return max((known_share(values, column) for column in telling), default=0.0)


def _describe_histories(sample: Sample, result: LogGuess) -> None:
    ids = sample.frame.select(
        pl.col(result.columns[USER_ID]).alias(USER_ID), pl.col(result.columns[ITEM_ID]).alias(ITEM_ID)
    )
    repeats = 1 - ids.n_unique() / len(ids)
    part = "" if sample.complete else f" among the first {len(ids):,} rows"
    result.found.append(
        f"{len(ids):,} interactions of {ids[USER_ID].n_unique():,} users with "
        f"{ids[ITEM_ID].n_unique():,} items" + (part and f"{part} (the rest of the file was not looked at)") + "."
    )
    if repeats > 0.05:
        result.unsure.append(
            f"{repeats:.0%} of the interactions repeat an item of the same user; every one counts "
            '(filter.repeats = "keep"): "first" or "last" keeps one of them.'
        )
    if sample.rejected:
        reason, rows = next(iter(sample.rejected.items()))
        result.unsure.append(f"{rows:,} rows of {sample.path} cannot be read and would be quarantined: {reason}.")


def _described(sample: Sample) -> str:
    names = {"\t": "tab", " ": "space"}
    if sample.format == "csv":
        header = "with" if sample.header else "without"
        separator = names.get(sample.separator, repr(sample.separator))
        return f"{sample.path} is csv, separator {separator}, {header} a header line, {sample.encoding}."
    if sample.format == "sequences":
        return f"{sample.path} holds sequences: a user and the items in order, a line."
    return f"{sample.path} is {sample.format}."


def _shown(sample: Sample, column: str) -> str:
    return repr(column) if sample.header or sample.format != "csv" else f"field {column.removeprefix('column_')}"
