"""Queries as the model reads them: codes, times, context and attributes, beside what the log tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.context import context_of
from recsys.data.left_out import histories_of
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.serving.queries import CodeLookup, Event, Query, check, microseconds, read
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import SCHEMAS, TableVersions, overwrite

CODES = CodeLookup(Vocabulary(pl.Series("item_id", ["a", "b", "c"])))
MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE


def settings(**more: Any) -> Settings:
    return parse_settings({"name": "shop", "interactions": {"source": "log.csv"}, **more})


def log(items: list[int], times: list[int], **more: Any) -> Sequences:
    return Sequences(
        users=pl.Series("user_id", ["ann"]),
        items=np.array(items, dtype=np.int32),
        offsets=np.array([0, len(items)]),
        times=np.array(times),
        **more,
    )


@given(st.lists(st.text(alphabet="0123456789-+_ abc", max_size=4)), st.booleans())
def test_codes_are_those_of_the_vocabulary(ids: list[str], whole_numbers: bool) -> None:
    items = pl.Series("item_id", [0, 7, -3, 12, 100] if whole_numbers else ["0", "7", "-3", "a", " a"])
    vocabulary = Vocabulary(items)
    assert CodeLookup(vocabulary).of(ids) == vocabulary.encode(pl.Series("item_id", ids, dtype=pl.String)).tolist()


def test_what_is_given_comes_after_the_log_and_unknown_items_are_named() -> None:
    queries = [
        Query(history=[Event(item="x"), Event(item="c"), Event(item="x")], of_log=log([1, 2], [5, 6])),
        Query(),
        Query(history=[Event(item="b", time=9)], exclude=["a", "y"]),
    ]
    asked = read(settings(), CODES, queries)
    assert [asked.histories.history(row).tolist() for row in range(3)] == [[1, 2, 3], [], [2]]
    assert asked.unknown == [["x", "x"], [], []] and asked.exclude == [[], [], [1]]
    times = asked.histories.times
    assert times is not None and times[[0, 1, 3]].tolist() == [5, 6, 9]
    assert times[2] > microseconds("2026-01-01T00:00:00Z")  # now
    assert asked.select([2, 0]).histories.items.tolist() == [2, 1, 2, 3]


def test_events_that_do_not_count_are_left_out() -> None:
    strict = settings(filter={"events": ["buy"], "min_weight": 3.0})
    history = [
        Event(item="a", event="view"),
        Event(item="b", event="buy", weight=2.0),
        Event(item="c", event="buy", weight=3.0),
        Event(item="a"),
    ]
    assert read(strict, CODES, [Query(history=history)]).histories.items.tolist() == [3, 1]


@pytest.mark.parametrize("repeats", ["keep", "first", "last"])
@pytest.mark.parametrize("logged", [0, 1, 4, 7])
def test_repeats_count_as_they_do_where_the_log_has_all_events(tmp_path: Path, repeats: str, logged: int) -> None:
    """Items, times and context, whatever the log has of them; the bundle does not know x."""
    of = settings(filter={"repeats": repeats}, model={"context": ["event", "hour", "weekday", "gap", "weight"]})
    events = [
        Event(item=item, time=DAY + (1 << place) * MINUTE, event=kind, weight=float(place))
        for place, (item, kind) in enumerate(zip("abaxcbxa", ["view", "buy"] * 4, strict=True))
    ]

    def of_log(count: int) -> Sequences | None:
        if not count:
            return None
        frame = pl.DataFrame(
            {
                "user_id": "ann",
                "item_id": [event.item for event in events[:count]],
                "timestamp": pl.Series([event.time for event in events[:count]]).cast(pl.Datetime("us", "UTC")),
                "event": [event.event for event in events[:count]],
                "weight": [event.weight for event in events[:count]],
                "position": range(count),
            },
            schema={**SCHEMAS["interactions"], "user_id": pl.String(), "item_id": pl.String()},
        )
        root = tmp_path / str(count)
        versions = TableVersions(interactions=overwrite(root, "interactions", frame, expected=None))
        here = of.model_copy(update={"warehouse": str(root)})
        return histories_of(here, versions, CODES.vocabulary, pl.Series("user_id", ["ann"])).histories

    again = Query(history=[Event(item="b"), Event(item="b")])
    found = read(of, CODES, [Query(history=events[logged:], of_log=of_log(logged)), again]).histories
    expected = of_log(len(events))
    assert expected is not None and expected.times is not None and found.times is not None
    own = found.select(np.array([0]))
    assert own.items.tolist() == expected.items.tolist() == {
        "keep": [1, 2, 1, 3, 2, 1], "first": [1, 2, 3], "last": [3, 2, 1],
    }[repeats]  # fmt: skip
    assert own.times is not None and own.times.tolist() == expected.times.tolist()
    assert own.context is not None and expected.context is not None and own.context.equals(expected.context)
    assert found.history(1).tolist() == ([2, 2] if repeats == "keep" else [2])


def test_context_is_that_of_the_same_events_in_a_log() -> None:
    """The gap of the first event that is given is counted from the log's newest one."""
    names = ["event", "hour", "weekday", "gap", "weight"]
    of = settings(model={"context": names})
    times = [10 * DAY, 10 * DAY + 3 * MINUTE, 11 * DAY, 11 * DAY + 40_000_000]
    frame = pl.DataFrame(
        {
            "user_id": ["ann"] * 4,
            "timestamp": pl.Series(times).cast(pl.Datetime("us", "UTC")),
            "event": ["view", "buy", "view", "buy"],
            "weight": [1.0, 2.0, None, 4.0],
        }
    )
    whole = context_of(frame, names)
    events = [
        Event(item=item, time=time, event=event, weight=weight)
        for item, time, event, weight in zip("abcc", times, frame["event"], frame["weight"], strict=True)
    ]
    known = log([1, 2], times[:2], context=whole.head(2))
    asked = read(of, CODES, [Query(history=events[2:], of_log=known), Query(history=events), Query()]).histories
    assert asked.context is not None
    assert asked.context.head(4).equals(whole) and asked.context.slice(4).equals(whole)
    bare = read(of, CODES, [Query(history=[Event(item="a"), Event(item="b")])]).histories.context
    assert bare is not None and bare.null_count().row(0) == (2,) * len(names)


def test_attributes_that_are_given_take_the_place_of_the_tables() -> None:
    of = settings(
        users={
            "source": "users.csv",
            "categorical": {"country": {}, "tags": {"separator": "|"}},
            "numeric": {"age": {}},
        }
    )
    table = pl.DataFrame({"country": [["DE"]], "tags": [["x", "y"]], "age": [40.0]})
    queries = [
        Query(of_log=log([1], [1], attributes=table)),
        Query(of_log=log([1], [1], attributes=table), attributes={"age": 41, "tags": "z"}),
        Query(attributes={"country": "AT"}),
        Query(attributes={"tags": ["z", None]}),
    ]
    found = read(of, CODES, queries).histories.attributes
    assert found is not None
    assert found["age"].to_list() == [40.0, 41.0, None, None]
    assert found["tags"].to_list() == [["x", "y"], ["z"], [], ["z"]]
    assert found["country"].to_list() == [["DE"], ["DE"], ["AT"], []]
    assert read(of, CODES, [Query()]).histories.attributes is None


def test_numbers_are_written_as_those_of_a_table() -> None:
    one = {"column": "region", "kind": "single"}
    cut = {"column": "region", "kind": "single", "pattern": r"(.*)\.0"}
    of = settings(
        users={
            "source": "users.csv",
            "separator": ";",
            "decimal": ",",
            "categorical": {"one": one, "cut": cut, "several": {}},
            "numeric": {"age": {}},
        }
    )
    given: list[dict[str, Any]] = [
        {"region": 49, "several": [1, 2], "age": 40},
        {"region": 49.0, "several": [1.0, 2.5, "x"], "age": 40.5},
        {"region": "49.0", "several": 3.0, "age": "40,5"},
    ]
    found = read(of, CODES, [Query(attributes=attributes) for attributes in given]).histories.attributes
    assert found is not None and found.to_dict(as_series=False) == {
        "one": ["49", "49", "49.0"],
        "cut": [None, "49", "49"],
        "several": [["1", "2"], ["1", "2.5", "x"], ["3"]],
        "age": [40.0, 40.5, 40.5],
    }


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(k=0), "k = 0 must be at least 1"),
        (Query(attributes={"agee": 1}), "no attribute 'agee' of users; they are country, age"),
        (Query(attributes={"age": "old"}), "none of its values is a number"),
        (Query(attributes={"country": ["DE", "FR"]}), r"attributes\.country is a list"),
        (Query(attributes={"land": ["DE"]}), r"attributes\.country is a list"),
        (Query(attributes={"country": []}), r"attributes\.country is a list"),
        (Query(attributes={"country": [None]}), r"attributes\.country is a list"),
        (Query(attributes={"age": [3]}), r"attributes\.age is a list and \[users\] declares it as one value"),
    ],
)
def test_a_query_that_cannot_be_read(query: Query, message: str) -> None:
    country = {"kind": "single", "column": "land"}
    of = settings(users={"source": "users.csv", "numeric": {"age": {}}, "categorical": {"country": country}})
    with pytest.raises(InputError, match=message):
        check(of, query)


@pytest.mark.parametrize("written", ["yesterday", "2026-05-01T10:00:00", "", "2026-13-01T00:00:00Z"])
def test_a_moment_needs_a_zone(written: str) -> None:
    with pytest.raises(InputError, match="time = "):
        microseconds(written)
