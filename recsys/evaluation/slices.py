"""Accuracy by group of targets: attributes of user and target, history length, popularity, cold, repeated, same-day.

Shapes: U rows of the test part, a user and a target each, V items (arrays by code have V + 1 entries).
"""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import PADDING, metric_name
from recsys.data.splits import HeldOut
from recsys.evaluation.lists import popularity_places
from recsys.evaluation.metrics import Metric, per_user
from recsys.evaluation.significance import CONFIDENCE, Interval, intervals

SMALL: Final = 100  # users; the figures of a smaller slice are flagged
MOST_VALUES: Final = 20  # of an attribute, the most frequent ones; the others are one slice
OTHERS: Final = "(others)"
MISSING: Final = "(none)"
MEASURED: Final[tuple[Metric, ...]] = ("hr", "ndcg")
DAY: Final = 86_400_000_000  # microseconds


def slice_keys(held_out: HeldOut, popularity: np.ndarray, items: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the slices of every row: a column for each dimension that divides the rows.

    Values are String, or List(String) where a row may be in several slices; null for rows outside the dimension.

    - `history_length`: events of the history, in powers of two;
    - `target_popularity`: tenth of the trained items by training interactions, 1 the most popular;
    - `cold`: of the target, "trained", "cold" (in the catalogue, no training interaction) or "unknown";
    - `repeated`: whether the history holds the target already;
    - `same_day`: whether the target has the time, or the UTC day, of the history's last event;
    - `user:NAME`, `item:NAME`: attributes of the user and of the target; numeric ones by quarters.

    Parameters
    ----------
    held_out
        Histories and targets.
    popularity
        float32 [V + 1] training interactions.
    items
        V rows: the declared attributes of items.
    """
    users = len(held_out)
    keys = {
        "history_length": _lengths(held_out.histories.lengths),
        "target_popularity": _tenths(held_out.targets, popularity),
        "cold": pl.Series(
            np.where(
                held_out.targets == PADDING,
                "unknown",
                np.where(popularity[held_out.targets] > 0, "trained", "cold"),
            ),
            dtype=pl.String,
        ),
        "repeated": pl.Series(np.where(repeated(held_out), "repeated", "first time"), dtype=pl.String),
    }
    if held_out.times is not None and held_out.histories.times is not None:
        keys["same_day"] = _same_day(held_out)
    if held_out.histories.attributes is not None:
        keys |= _attributes("user", held_out.histories.attributes)
    if items is not None and items.width:
        row = pl.Series(held_out.targets.astype(np.int64) - 1)
        known = row.to_frame("row").select(pl.when(pl.col("row") >= 0).then(pl.col("row"))).to_series()
        keys |= _attributes("item", items.select(pl.all().gather(known)))
    divide = {name: values.alias(name) for name, values in keys.items() if users and _distinct(values) > 1}
    return pl.DataFrame(list(divide.values()))


def measure_slices(
    keys: pl.DataFrame, ranks: np.ndarray, k: int, rng: np.random.Generator, owner: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Return a row for each slice: its name and size, and HR and NDCG at k with their 95% intervals.

    Parameters
    ----------
    keys
        U rows, as `slice_keys` gives them.
    ranks
        int64 [U] ranks of the targets.
    owner
        int64 [U]: the user of each row, any numbers; None: each row is a user.

    Returns
    -------
    list of dict
        `dimension` and `value` name the slice, `n` counts its targets. `small` is true below 100 users. `hr_at_K` and
        `ndcg_at_K` are means; `hr_at_K_low`, `hr_at_K_high` and the same of NDCG the intervals. Values that begin with
        a number ascend, the others by n, largest first.
    """
    values = np.stack([per_user(ranks, metric, k) for metric in MEASURED], axis=1)  # [U, 2]
    rows = []
    for name in keys.columns:
        found = []
        for value, inside in _groups(keys[name]):
            own = None if owner is None else owner[inside]
            users = len(inside) if own is None else len(np.unique(own))
            row: dict[str, Any] = {"dimension": name, "value": value, "n": len(inside), "small": users < SMALL}
            for metric, interval in zip(MEASURED, intervals(values[inside], rng, own), strict=True):
                key = metric_name(metric, k)
                low, high = _ends(interval, users)
                row |= {key: interval.mean, f"{key}_low": low, f"{key}_high": high}
            found.append(row)
        rows += sorted(found, key=_order)
    return rows


def repeated(held_out: HeldOut) -> np.ndarray:
    """Return bool [U]: whether the history holds the target already."""
    owner = np.repeat(np.arange(len(held_out)), held_out.histories.lengths)
    hits = held_out.histories.items == held_out.targets[owner]
    return np.bincount(owner[hits], minlength=len(held_out)) > 0


def _groups(values: pl.Series) -> list[tuple[str, np.ndarray]]:
    """Return each value and the rows that have it, int64 [n] ascending."""
    frame = values.alias("value").to_frame().with_row_index("row")
    if values.dtype == pl.List:
        frame = frame.explode("value")
    found = frame.drop_nulls("value").group_by("value", maintain_order=True).agg("row")
    pairs = zip(found["value"].to_list(), found["row"], strict=True)
    return [(value, rows.to_numpy().astype(np.int64)) for value, rows in pairs]


def _ends(interval: Interval, n: int) -> tuple[float, float]:
    """Return the ends of an interval; without any hit, or with nothing but hits, by the exact bound of a proportion.

    The bootstrap sees no chance of a hit in a slice without one. NDCG is at most HR, so the bound holds for it, too.
    Source: Clopper and Pearson, Biometrika 1934.
    """
    rare = 1.0 - ((1.0 - CONFIDENCE) / 2.0) ** (1.0 / n)
    if interval.low == interval.high == 0.0:
        return 0.0, rare
    if interval.low == interval.high == 1.0:
        return 1.0 - rare, 1.0
    return interval.low, interval.high


def _order(row: dict[str, Any]) -> tuple[float, int, str]:
    number = re.match(r"\d+", row["value"])
    return (float(number[0]) if number else np.inf, -row["n"], row["value"])


def _distinct(values: pl.Series) -> int:
    return len((values.explode() if values.dtype == pl.List else values).drop_nulls().unique())


def _lengths(lengths: np.ndarray) -> pl.Series:
    """Return "0", "1", "2-3", "4-7", ... of history lengths."""
    powers = np.where(lengths > 0, np.floor(np.log2(np.maximum(lengths, 1))), -1).astype(np.int64)
    names = {-1: "0", 0: "1"} | {power: f"{2**power}-{2 ** (power + 1) - 1}" for power in range(1, 63)}
    return pl.Series(powers).replace_strict(names, return_dtype=pl.String)


def _tenths(targets: np.ndarray, popularity: np.ndarray) -> pl.Series:
    """Return the tenth of the trained items in which each target is, "1" for the most popular; null if untrained."""
    trained = int((popularity[1:] > 0).sum())
    places = np.append(0, popularity_places(popularity))  # by code
    tenth = places[targets] * 10 // max(trained, 1) + 1
    known = (targets != PADDING) & (popularity[targets] > 0)
    names = {number: f"{number} (most popular)" if number == 1 else str(number) for number in range(1, 11)}
    return pl.Series(np.where(known, tenth, 0)).replace_strict(names, default=None, return_dtype=pl.String)


def _same_day(held_out: HeldOut) -> pl.Series:
    """Return "same time", "same day" or "later day" of each target; null for an empty history."""
    assert held_out.times is not None and held_out.histories.times is not None
    some = held_out.histories.lengths > 0
    last = held_out.histories.times[held_out.histories.offsets[1:][some] - 1]
    own = held_out.times[some]
    found = np.zeros(len(held_out), dtype=np.int64)
    found[some] = np.where(own == last, 1, np.where(own // DAY == last // DAY, 2, 3))
    names = {1: "same time", 2: "same day", 3: "later day"}
    return pl.Series(found).replace_strict(names, default=None, return_dtype=pl.String)


def _attributes(whose: str, table: pl.DataFrame) -> dict[str, pl.Series]:
    """Return the slices by each declared attribute of a table of U rows."""
    found = {}
    for name, kind in table.schema.items():
        if kind.is_numeric():
            found[f"{whose}:{name}"] = _quarters(table[name])
        elif kind in (pl.String, pl.List(pl.String)):
            found[f"{whose}:{name}"] = _frequent(table[name])
    return found


def _quarters(values: pl.Series) -> pl.Series:
    """Return "1 (up to 18)", ..., "4 (up to 56)": the quarter of each number, by its upper end; "(none)" for others."""
    number = pl.col("number").cast(pl.Float64)
    given = values.alias("number").to_frame().select(pl.when(number.is_finite()).then(number)).to_series()
    ends = np.quantile(given.drop_nulls().to_numpy(), [0.25, 0.5, 0.75, 1.0]) if given.count() else np.zeros(0)
    ends = np.unique(ends)
    place = np.searchsorted(ends, given.fill_null(0.0).to_numpy())
    names = [f"{number} (up to {end:g})" for number, end in enumerate(ends, 1)]
    text = pl.Series(place).replace_strict(dict(enumerate(names)), default=MISSING, return_dtype=pl.String)
    return text.zip_with(given.is_not_null(), pl.repeat(MISSING, len(text), eager=True))


def _frequent(values: pl.Series) -> pl.Series:
    """Return the most frequent values as they are, the others as "(others)", and "(none)" for null or no value."""
    counted = (values.explode() if values.dtype == pl.List else values).drop_nulls().alias("value").value_counts()
    kept = counted.sort("count", "value", descending=[True, False])["value"].head(MOST_VALUES)
    named = pl.when(pl.element().is_in(kept.implode())).then(pl.element()).otherwise(pl.lit(OTHERS))
    as_lists = values if values.dtype == pl.List else values.to_frame().select(pl.concat_list(pl.all())).to_series()
    known = as_lists.fill_null([]).list.drop_nulls().list.eval(named).list.unique(maintain_order=True)
    frame = known.alias("known").to_frame()
    lists = frame.select(
        pl.when(pl.col("known").list.len() > 0).then(pl.col("known")).otherwise(pl.lit([MISSING]))
    ).to_series()
    return lists if values.dtype == pl.List else lists.list.first()
