"""Signs of a shop's till log: lines that are no sales, cancellations, baskets, purchases made again.

A till writes more than sales: corrections of the stock without a customer, postage and bank charges under codes of
their own, cancelled invoices with quantities below 0. Each becomes a condition of the configuration, so that a reader
sees what is left out and why.

Shapes: N rows of the sample.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import polars as pl

from recsys.columns import ITEM_ID, TIMESTAMP, USER_ID, WEIGHT
from recsys.ingestion.conditions import any_met, numbers
from recsys.ingestion.contracts import is_missing
from recsys.ingestion.most_frequent import most_frequent
from recsys.reading.sniff import Sample, comma_decimals, looks_numeric, share
from recsys.settings import Condition

_QUANTITY: Final = re.compile(r"(?i)quantit|qty|units|menge|anzahl|pieces")
_PRICE: Final = re.compile(r"(?i)price|preis|amount|revenue|cost")
_COUNTRY: Final = re.compile(r"(?i)country|land$|nation")
_ZONES: Final = {  # countries of one zone, as shops write them
    "united kingdom": "Europe/London",
    "uk": "Europe/London",
    "gb": "Europe/London",
    "ireland": "Europe/Dublin",
    "eire": "Europe/Dublin",
    "germany": "Europe/Berlin",
    "deutschland": "Europe/Berlin",
    "de": "Europe/Berlin",
    "france": "Europe/Paris",
    "fr": "Europe/Paris",
    "italy": "Europe/Rome",
    "netherlands": "Europe/Amsterdam",
    "belgium": "Europe/Brussels",
    "austria": "Europe/Vienna",
    "switzerland": "Europe/Zurich",
    "poland": "Europe/Warsaw",
    "sweden": "Europe/Stockholm",
    "norway": "Europe/Oslo",
    "denmark": "Europe/Copenhagen",
    "japan": "Asia/Tokyo",
    "india": "Asia/Kolkata",
}
_TOLERATED: Final = 0.01  # rejected rows that `max_rejected_share` lets pass
_RARE: Final = 0.05  # lines that are no sales are the exception
_BASKETS: Final = 0.5  # share of events in company from which on they are baskets
_AGAIN: Final = 0.1  # share of purchases made again from which on they are wanted
_OF_ITEM: Final = 0.6  # share of rows that say what most rows of their item say, for what belongs to the item
_ALIKE: Final = 0.95  # share of one value from which on a column says nothing


@dataclass(kw_only=True)
class ShopGuess:
    """Additional settings for a shop's log, and the sentences about them."""

    drop: list[dict[str, Any]] = field(default_factory=list)
    withdraw: list[dict[str, Any]] = field(default_factory=list)
    no_sale: list[dict[str, Any]] = field(default_factory=list)  # of a catalogue made of the log: dropped there, too
    timezone: str | None = None
    decimal: str = "."
    baskets: bool = False
    again: bool = False
    found: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)

    @property
    def looked_at(self) -> set[str]:
        """The columns of its conditions."""
        return {condition["column"] for condition in (*self.drop, *self.withdraw)}

    @property
    def recommends_again(self) -> bool:
        """Return whether the configuration ranks and recommends what was had."""
        return self.baskets and self.again

    def kept(self, sample: Sample) -> Sample:
        """The sample without the rows that are dropped or withdraw."""
        return _without(sample, [*self.drop, *self.withdraw], self.decimal)

    def added_to(self, tree: Mapping[str, Any], *, own_catalogue: bool) -> dict[str, Any]:
        """The settings' tree with what was seen."""
        tree = dict(tree)
        conditions = {"drop": self.drop, "withdraw": self.withdraw}
        tree["interactions"] = dict(tree["interactions"]) | {key: value for key, value in conditions.items() if value}
        if self.timezone is not None and "timezone" in tree["interactions"]:
            tree["interactions"]["timezone"] = self.timezone
        if own_catalogue:
            tree["items"] = {**tree["items"], "several": "most-frequent"}
            if self.drop or self.no_sale:
                tree["items"]["drop"] = [*self.drop, *self.no_sale]
        if self.baskets:
            tree["split"] = {**tree["split"], "same_time": "basket"}
            tree["model"] = {**tree["model"], "objective": "next-item"}
        if self.recommends_again:
            tree["model"] = {**tree["model"], "repeat_bias": True}
            place = list(tree).index("retrieve")
            parts = list(tree.items())
            tree = dict([*parts[:place], ("evaluate", {"exclude_seen": False}), *parts[place:]])
            tree["retrieve"] = {**tree["retrieve"], "exclude_seen": False}
        return tree


def guess_shop(sample: Sample, columns: Mapping[str, str], decimal: str = ".") -> ShopGuess:
    """Look at a log whose columns (ours = theirs) are known for what a till writes.

    `decimal` is the sign of its weights; where it is a point, quantities and prices with a comma decide.
    """
    frame, result = sample.frame, ShopGuess(decimal=decimal)
    if not len(frame):
        return result
    _missing_ids(frame, columns, result)
    quantity = _named(frame, columns, _QUANTITY, columns.get(WEIGHT))
    price = _named(frame, columns, _PRICE, None)
    amounts = [name for name in (quantity, price) if name is not None]
    may_be = sample.format == "csv" and quantity is not None
    if may_be and any(comma_decimals(frame[name]) for name in amounts):
        result.decimal = ","
    if quantity is not None:
        _cancellations(frame, columns, quantity, result)
        frame = _without(sample, result.drop, result.decimal).frame  # what is left out already needs no other reason
        if price is not None:
            _unpaid(frame, price, result)
        _no_goods(frame, columns[ITEM_ID], result)
        if quantity == columns.get(WEIGHT):
            taken = " A cancellation takes that much of an earlier purchase back." if result.withdraw else ""
            result.found.append(
                f"weight = {quantity!r} is an amount, not a rating.{taken} The ranking does not depend on it unless "
                "filter.min_weight or model.context is set."
            )
    if TIMESTAMP in columns:
        _baskets(result.kept(sample).frame, columns, result)
        _zone(frame, result)
    return result


def own_catalogue(sample: Sample, shop: ShopGuess, item: str) -> Sample:
    """A log as its own catalogue: one row an item, of the columns that say something of items."""
    sold = _without(sample, [*shop.drop, *shop.no_sale], shop.decimal).frame
    flat = [name for name in sold.columns if name != item and not sold.schema[name].is_nested()]
    items = most_frequent(sold.select(item, *flat), item)
    both = sold.select(item, *flat).join(items, on=item, how="left", suffix="__most", maintain_order="left")
    kept = []
    for name in flat:
        there = both.filter(pl.col(name).is_not_null())
        one = items[name].drop_nulls()
        of_item = share(there[name] == there[f"{name}__most"])
        alike = one.value_counts(sort=True)["count"][0] / len(one) if len(one) else 1.0
        if of_item >= _OF_ITEM and alike < _ALIKE:
            kept.append(name)
    return replace(sample, frame=items.select(item, *kept))


def _without(sample: Sample, conditions: list[dict[str, Any]], decimal: str) -> Sample:
    if not conditions:
        return sample
    met = any_met([Condition.model_validate(one) for one in conditions], sample.frame.schema, decimal)
    return replace(sample, frame=sample.frame.filter(~met))


def _missing_ids(frame: pl.DataFrame, columns: Mapping[str, str], result: ShopGuess) -> None:
    for ours in (USER_ID, ITEM_ID):
        name = columns[ours]
        missing = share(frame.select(is_missing(name, frame.schema[name]))[name])
        if missing > _TOLERATED:
            result.drop.append({"column": name, "missing": True})
            result.unsure.append(f"{missing:.0%} of the rows have no {name!r}; they are left out (interactions.drop).")


def _cancellations(frame: pl.DataFrame, columns: Mapping[str, str], quantity: str, result: ShopGuess) -> None:
    user = columns[USER_ID]
    number = _number(frame, quantity, result.decimal)
    somebody = ~frame.select(is_missing(user, frame.schema[user]))[user]
    below = (number < 0).fill_null(False)
    if not below.any() or share(below) > 0.5:
        return
    result.no_sale.append({"column": quantity, "below": 1})
    ours = below & somebody
    if not ours.any():
        return
    mark = _mark(frame, columns, ours)
    if mark is not None:
        result.withdraw.append(mark)
        ours = ours & ~frame[mark["column"]].str.starts_with(mark["starts_with"]).fill_null(False)
    if ours.any():
        result.withdraw.append({"column": quantity, "below": 0})
    said = " and ".join(str(Condition.model_validate(one)) for one in result.withdraw)
    result.unsure.append(
        f"{share(below):.1%} of the rows have a {quantity!r} below 0: they are read as cancellations ({said}), each of "
        "which takes its user's newest earlier event with that item back (interactions.withdraw)."
    )


def _mark(frame: pl.DataFrame, columns: Mapping[str, str], below: pl.Series) -> dict[str, Any] | None:
    """A letter with which a column begins in (nearly) all rows of cancellations and in (nearly) no other."""
    for name in frame.columns:
        if name in columns.values() or frame.schema[name] != pl.String or _PRICE.search(name):
            continue
        first = frame[name].str.slice(0, 1)
        letters = first.filter(below).drop_nulls().value_counts(sort=True)
        if not len(letters) or not re.fullmatch(r"[A-Za-z]", letters[name][0]):
            continue
        begins = (first == letters[name][0]).fill_null(False)
        if share(begins.filter(below)) >= 0.9 and share(below.filter(begins)) >= 0.9:
            return {"column": name, "starts_with": letters[name][0]}
    return None


def _unpaid(frame: pl.DataFrame, price: str, result: ShopGuess) -> None:
    unpaid = int((_number(frame, price, result.decimal) <= 0).sum())
    if 0 < unpaid < _RARE * len(frame):
        result.drop.append({"column": price, "at_most": 0})
        result.unsure.append(f"{unpaid:,} rows have a {price!r} of 0 or less; they are left out as no sales.")


def _no_goods(frame: pl.DataFrame, item: str, result: ShopGuess) -> None:
    """Codes without a digit at their beginning where nearly all have one."""
    if frame.schema[item] != pl.String:
        return
    other = frame[item].filter(~frame[item].str.contains(r"^\s*[0-9]").fill_null(True))
    if not len(other) or len(other) >= _RARE * len(frame):
        return
    result.drop.append({"column": item, "matches": "^[^0-9]"})
    counts = other.value_counts(sort=True)
    examples = ", ".join(counts[item].head(8).to_list())
    result.unsure.append(
        f"{len(other):,} rows have codes that begin with no digit, unlike all others ({examples}): they are left out "
        "as no goods; if they are goods, delete that condition (interactions.drop)."
    )


def _baskets(frame: pl.DataFrame, columns: Mapping[str, str], result: ShopGuess) -> None:
    user, item, time = (columns[ours] for ours in (USER_ID, ITEM_ID, TIMESTAMP))
    events = frame.select(user, item, time).drop_nulls().unique()
    if not len(events):
        return
    company = events.select((pl.len().over(user, time) > 1).alias("company"))["company"]
    moments = events.group_by(user).agg(pl.col(time).n_unique().alias("n"))["n"]
    together = share(company)
    if together < _BASKETS or share(moments >= 3) < 0.1:
        return
    result.baskets = True
    size = len(events) / events.select(user, time).n_unique()
    result.found.append(
        f"{together:.0%} of the events share user and time with others, {size:.1f} events a basket: a basket is one "
        'step (split.same_time = "basket").'
    )
    again = share(events.select((pl.col(time) > pl.col(time).min().over(user, item)).alias("again"))["again"])
    if again > _AGAIN:
        result.again = True
        result.found.append(
            f"{again:.0%} of the events are of items that their user had before: they count, and what was had may be "
            "recommended again (exclude_seen = false). With true, no list could hold them, and no measure be higher "
            "than the share of the others."
        )


def _zone(frame: pl.DataFrame, result: ShopGuess) -> None:
    name = next((name for name in frame.columns if _COUNTRY.search(name) and frame.schema[name] == pl.String), None)
    if name is None:
        return
    counts = frame[name].drop_nulls().value_counts(sort=True)
    if not len(counts) or counts["count"][0] < 0.6 * len(frame):
        return
    country = counts[name][0]
    result.timezone = _ZONES.get(country.strip().lower())
    if result.timezone is not None:
        result.unsure.append(f"timezone = {result.timezone!r} is a guess: most rows have {name} = {country!r}.")


def _named(frame: pl.DataFrame, columns: Mapping[str, str], pattern: re.Pattern[str], likely: str | None) -> str | None:
    """A column of numbers with such a name, of those that mean something else none."""
    taken = {theirs for ours, theirs in columns.items() if ours != WEIGHT}
    names = [*([likely] if likely is not None else []), *frame.columns]
    return next((n for n in names if n not in taken and pattern.search(n) and looks_numeric(frame[n])), None)


def _number(frame: pl.DataFrame, name: str, decimal: str) -> pl.Series:
    return frame.select(numbers(name, frame.schema[name], decimal))[name]
