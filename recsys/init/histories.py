"""Facts about a log's histories: their order, repeats, events, and ids that stand for no id."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import polars as pl

from recsys.columns import EVENT, ITEM_ID, TIMESTAMP, USER_ID
from recsys.ingestion.contracts import is_missing
from recsys.init.log import LogGuess, shown
from recsys.reading.sniff import Sample, share

# written for a missing value by databases, programs and people, in lower case
_NULL_WORDS: Final = (
    *("", "-", "--", "?", ".", "null", "(null)", "<null>", "[null]", "nil", "none", "nan", "na", "n/a", "#n/a", "\\n"),
    *("<na>", "nat", "undefined", "unknown", "(none)", "#null!", "missing", "empty"),
)
_VIEWS: Final = r"(?i)view|click|visit|impress|open|pv|detail|besuch|ansicht|vue|vista|visual"
_PURCHASES: Final = r"(?i)purchas|buy|bought|order|transact|checkout|sale|sold|kauf|bestell|achat|compra|acquist|koop"
_SORTED: Final = 0.98  # share of the steps that go one way for a column to be in order
_TIED: Final = 0.05  # share of the events whose user and time another one has too, from which this is said


def describe_histories(
    sample: Sample, guess: LogGuess, looked_at: Collection[str] = (), *, again: bool = False
) -> dict[str, int]:
    """Add what is found and what is to check to a guess; returns the rows by event, the most frequent first.

    `looked_at` are columns of conditions: they are used, too. With `again` the configuration recommends what was had,
    and what repeats mean has been said.
    """
    frame = sample.frame.select(
        pl.col(guess.columns[USER_ID]).alias(USER_ID),
        pl.col(guess.columns[ITEM_ID]).alias(ITEM_ID),
        pl.lit(None, pl.Datetime("us", "UTC")).alias(TIMESTAMP) if guess.moments is None else guess.moments,
    )
    if guess.moments is not None:
        frame = frame.rename({guess.moments.name: TIMESTAMP})
    _say_counts(sample, frame, guess)
    _say_null_words(sample, guess)
    _say_order(sample, frame, guess)
    if not again:
        _say_repeats(sample, frame.drop_nulls([USER_ID, ITEM_ID]), guess)
    events = _say_events(sample, guess)
    used = {*guess.columns.values(), *looked_at}
    constant = [n for n in sample.frame.columns if n not in used and sample.frame[n].drop_nulls().n_unique() <= 1]
    if constant and sample.format != "sequences":
        guess.found.append(f"Not used, as every row says the same: {', '.join(shown(sample, n) for n in constant)}.")
    return events


def _say_counts(sample: Sample, frame: pl.DataFrame, guess: LogGuess) -> None:
    told = frame.filter(*(~is_missing(name, frame.schema[name]) for name in (USER_ID, ITEM_ID)))
    part = f" among {sample.part}; every count here is of these rows, the others were not looked at"
    if sample.complete:  # a line of sequences is several interactions
        lines = sample.format != "sequences" and sample.looked_at > len(told)
        part = f" among {sample.looked_at:,} rows" if lines else ""
    guess.found.append(
        f"{len(told):,} interactions of {told[USER_ID].n_unique():,} users with "
        f"{told[ITEM_ID].n_unique():,} items{part}."
    )


def _say_null_words(sample: Sample, guess: LogGuess) -> None:
    for ours in (USER_ID, ITEM_ID):
        values = sample.frame[guess.columns[ours]]
        if values.dtype != pl.String:
            continue
        written = values.str.strip_chars()
        words = written.filter(written.str.to_lowercase().is_in(_NULL_WORDS) & (written != ""))
        if len(words):
            counts = words.value_counts(sort=True).rows()
            told = ", ".join(f"{word!r} ({count:,})" for word, count in counts[:5])
            whose = "user" if ours == USER_ID else "item"
            guess.unsure.append(
                f"{len(words):,} rows of {sample.path} have a word for nothing as {ours}: {told}. Each would be one "
                f"{whose} like any other; empty the cells to have the rows quarantined."
            )


def _say_order(sample: Sample, frame: pl.DataFrame, guess: LogGuess) -> None:
    if sample.format == "sequences":
        guess.found.append("No column holds times: the order of the file is taken as the order of events.")
        return
    if guess.moments is not None:
        falls = _direction(frame[TIMESTAMP].dt.epoch("us")) == -1
        if falls:
            guess.found.append("The newest events come first in the file; their times put them in order.")
        known = frame.drop_nulls()
        tied = 1 - known.select(USER_ID, TIMESTAMP).n_unique() / len(known) if len(known) else 0.0
        if falls and tied > _TIED:
            guess.unsure.append(
                f"{sample.path} is in descending order of time, newest first, and {tied:.0%} of the events have user "
                "and time in common with another one: those keep the order of the file, which is backwards. Reverse "
                "the file, or give times that tell them apart."
            )
        return
    base = "No column holds times: the order of the file is taken as the order of events"
    numbered = [
        (name, _direction(sample.frame[name].cast(pl.Int64, strict=False)))
        for name in sample.frame.columns
        if name not in guess.columns.values() and _all_differ(sample.frame[name])
    ]
    rising = next((name for name, way in numbered if way == 1), None)
    falling = next((name for name, way in numbered if way == -1), None)
    if falling is not None:
        guess.unsure.append(
            f"{base}, and {shown(sample, falling)} numbers the rows downwards: the file is probably NEWEST FIRST, and "
            "every history would be learnt backwards. Reverse the file."
        )
    elif _by_item(frame):
        guess.unsure.append(
            f"{base}, and each user's rows are sorted by {shown(sample, guess.columns[ITEM_ID])}, which is hardly the "
            "order of events. Export the log with its times."
        )
    elif rising is not None:
        guess.found.append(f"{base}; {shown(sample, rising)} numbers the rows upwards.")
    else:
        guess.unsure.append(
            f"{base}. Nothing in it says that this is so: if the newest come first, reverse the file; if the order is "
            "another one, export the log with its times."
        )


def _all_differ(values: pl.Series) -> bool:
    return len(values) > 10 and not values.dtype.is_nested() and values.n_unique() == len(values)


def _direction(values: pl.Series) -> int:
    """1 or -1 where nearly all steps between values go up or down, else 0."""
    if values.null_count() > 0.1 * len(values):
        return 0
    steps = values.drop_nulls().diff().drop_nulls()
    steps = steps.filter(steps != 0)
    if len(steps) < 10:
        return 0
    up = share(steps > 0)
    return 1 if up >= _SORTED else -1 if up <= 1 - _SORTED else 0


def _by_item(frame: pl.DataFrame) -> bool:
    """Return whether users with several rows have them in the ascending order of items."""
    item = frame[ITEM_ID].cast(pl.Int64, strict=False)
    items = item if item.null_count() < 0.1 * len(item) else frame[ITEM_ID]
    users = (
        pl.DataFrame([frame[USER_ID], items.alias(ITEM_ID)])
        .group_by(USER_ID, maintain_order=True)
        .agg(pl.len(), (pl.col(ITEM_ID) == pl.col(ITEM_ID).sort()).all().alias("sorted"))
        .filter(pl.col("len") >= 4)
    )
    return len(users) >= 10 and share(users["sorted"]) > 0.9


def _say_repeats(sample: Sample, frame: pl.DataFrame, guess: LogGuess) -> None:
    """Repeats, and what they mean for the report: a target that the history holds cannot be recommended."""
    if frame.is_empty():
        return
    repeats = 1 - frame.select(USER_ID, ITEM_ID).n_unique() / len(frame)
    if repeats <= 0.05:
        return
    ordered = frame.sort(TIMESTAMP, maintain_order=True) if guess.moments is not None else frame
    last = (
        ordered.with_columns(pl.int_range(pl.len()).over(USER_ID, ITEM_ID).alias("seen"))
        .group_by(USER_ID)
        .agg(pl.len(), pl.last("seen"))
    )
    several = last.filter(pl.col("len") >= 3)
    repeated = share(several["seen"] > 0)
    guess.unsure.append(
        f"{repeats:.0%} of the interactions repeat an item of the same user; every one counts "
        '(filter.repeats = "keep"): "first" or "last" keeps one of them.'
    )
    if repeated > 0.01:
        guess.unsure.append(
            f"{repeated:.0%} of the users' last events, which are the test targets, repeat an item of the history "
            f"(repeated_targets). Seen items are not recommended, so that no hit rate can pass {1 - repeated:.2f}: "
            'set filter.repeats = "first" to test new items alone, or exclude_seen = false in [evaluate] and '
            "[retrieve] to recommend items again."
        )


def _say_events(sample: Sample, guess: LogGuess) -> dict[str, int]:
    if EVENT not in guess.columns:
        return {}
    values = sample.frame[guess.columns[EVENT]].cast(pl.String).fill_null("")
    counts = dict(values.value_counts(sort=True).rows())
    told = ", ".join(f"{event or 'none'} {count:,}" for event, count in list(counts.items())[:12])
    kinds = [
        f"{', '.join(matching)} look{'s' if len(matching) == 1 else ''} like {kind}"
        for kind, pattern in (("views", _VIEWS), ("purchases", _PURCHASES))
        if (matching := [event for event in counts if pl.Series([event]).str.contains(pattern).item()])
    ]
    guess.unsure.append(
        f"{shown(sample, guess.columns[EVENT])} holds {len(counts)} events: {told}. All of them count alike"
        f"{'; ' + ', '.join(kinds) if kinds else ''}; name those that shall count in filter.events."
    )
    return counts
