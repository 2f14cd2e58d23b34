from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.columns import EVENT, ITEM_ID, LINE, RAW, REASON, TIMESTAMP, USER_ID, WEIGHT
from recsys.errors import InputError
from recsys.ingestion import contracts
from recsys.reading import reasons
from recsys.reading.reasons import DEFECT, FILE_LINE, FILE_RAW

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def divided(judged: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    return contracts.accepted(judged), contracts.broken(judged)


def check_interactions(*given: Any, **named: Any) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    return divided(contracts.judge_interactions(*given, **named))


def check_attributes(*given: Any, **named: Any) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    return divided(contracts.judge_attributes(*given, **named))


INTEGERS = {USER_ID: pl.Int64, ITEM_ID: pl.Int64}


def rows(**columns: Any) -> pl.LazyFrame:
    frame = pl.LazyFrame(columns)
    return frame.with_row_index(FILE_LINE, offset=1).with_columns(
        pl.col(FILE_LINE).cast(pl.Int64), pl.lit("raw").alias(FILE_RAW), reasons.no_reason().alias(DEFECT)
    )


def test_every_rule_has_its_reason() -> None:
    frame = rows(
        u=["1", "", "1", "1x", "1", "1", "1", "1", "1", "1", "01"],
        i=["2", "2", None, "2", "2", "2", "2", "2", "2", "2", "2"],
        t=["1", "1", "1", "1", "", "?", "2024-01-01", "2099-01-01Z", "1", "1", "1"],
        w=["1.5", "1", "1", "1", "1", "1", "1", "1", "many", "", "1"],
        e=["view", None, "", "", "", "", "", "", "", None, ""],
    )
    columns = {USER_ID: "u", ITEM_ID: "i", TIMESTAMP: "t", WEIGHT: "w", EVENT: "e"}
    good, bad = check_interactions(frame, columns, id_types=INTEGERS, now=NOW)
    first = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert good.collect().rows() == [(1, 2, first, "view", 1.5, 1), (1, 2, first, "", None, 10)]
    assert bad.select(LINE, REASON).collect().rows() == [
        (2, "missing user_id"),
        (3, "missing item_id"),
        (4, "user_id is not an integer, as the table's are"),
        (5, "missing timestamp"),
        (6, "unparsable time"),
        (7, "time without a zone"),
        (8, "time in the future"),
        (9, "weight is not a number"),
        (11, "user_id is not an integer, as the table's are"),
    ]
    assert set(bad.collect()[RAW]) == {"raw"}


def test_now_itself_is_not_the_future() -> None:
    frame = rows(u=["a", "a"], i=["b", "b"], t=[NOW, NOW + timedelta(microseconds=1)])
    strings = {USER_ID: pl.String, ITEM_ID: pl.String}
    columns = {USER_ID: "u", ITEM_ID: "i", TIMESTAMP: "t"}
    good, bad = check_interactions(frame, columns, id_types=strings, now=NOW)
    assert good.collect()[FILE_LINE].to_list() == [1]
    assert bad.collect()[LINE].to_list() == [2]


@pytest.mark.parametrize(
    ("values", "whole", "kept"),
    [
        (["7", "-3", "0", "9223372036854775807"], True, [7, -3, 0, 2**63 - 1]),
        (["7", "007"], False, ["7", "007"]),
        (["7", "1.0"], False, ["7", "1.0"]),
        (["7", " 8"], False, ["7", " 8"]),
        (["-0"], False, ["-0"]),
        (["9223372036854775808"], False, ["9223372036854775808"]),
        ([7.0, 8.0], True, [7, 8]),  # how a frame with gaps writes integers
        ([7.5], False, ["7.5"]),
        (pl.Series([1, 2], dtype=pl.UInt16), True, [1, 2]),
        (pl.Series(["a", "b"], dtype=pl.Categorical), False, ["a", "b"]),
    ],
)
def test_ids_are_kept_as_given(values: Any, whole: bool, kept: list[Any]) -> None:
    frame = rows(u=values, i=values)
    assert contracts.all_integers(frame, "u") is whole
    dtype = pl.Int64() if whole else pl.String()
    good, bad = check_interactions(
        frame, {USER_ID: "u", ITEM_ID: "i"}, id_types={USER_ID: dtype, ITEM_ID: dtype}, now=NOW
    )
    assert good.collect()[USER_ID].to_list() == kept
    assert bad.collect().is_empty()


@given(st.lists(st.integers(min_value=-(2**63), max_value=2**63 - 1), min_size=1))
def test_integers_stay_integers(ids: list[int]) -> None:
    text = pl.Series([str(value) for value in ids])
    assert pl.select(contracts.integer_ids(pl.lit(text))).to_series().to_list() == ids


def test_broken_lines_do_not_decide_the_type_of_ids() -> None:
    frame = rows(u=["1", "x"]).with_columns(
        reasons.first_reason((pl.col("u") == "x", reasons.WRONG_FIELDS)).alias(DEFECT)
    )
    assert contracts.all_integers(frame, "u")


def test_attributes_stay_as_given() -> None:
    frame = rows(
        id=["1", "2", ""],
        item_id=["own", "own", "own"],
        title=["T", "", "U"],
        tags=[["a"], [], None],
        year=pl.Series([1999, None, 3], dtype=pl.Int16),
        price=[1.5, 2.0, 3.0],
        new=[True, False, None],
        seen=[date(2024, 1, 2), None, None],
        size=[{"w": 1}, {"w": 2}, {"w": 3}],
        parts=[[{"w": 1}], [], []],
        empty=pl.Series([None, None, None], dtype=pl.Null),
    )
    columns = [name for name in frame.collect_schema() if not name.startswith("__")]
    good, bad = check_attributes(frame, ITEM_ID, "id", id_type=pl.Int64, columns=columns)
    assert good.drop(FILE_LINE).collect().to_dicts() == [
        {
            "item_id": 1,
            "item_id_given": "own",
            "title": "T",
            "tags": ["a"],
            "year": 1999,
            "price": 1.5,
            "new": True,
            "seen": "2024-01-02",
            "size": '{"w":1}',
            "parts": ['{"w":1}'],
            "empty": None,
        },
        {
            "item_id": 2,
            "item_id_given": "own",
            "title": None,
            "tags": [],
            "year": None,
            "price": 2.0,
            "new": False,
            "seen": None,
            "size": '{"w":2}',
            "parts": [],
            "empty": None,
        },
    ]
    assert bad.collect().rows() == [(3, "missing item_id", "raw", None)]


def test_a_nested_id_and_an_unknown_zone_are_refused() -> None:
    with pytest.raises(InputError, match=r"'u' holds List.* an id must be a number or a string"):
        contracts.all_integers(rows(u=[[1]]), "u")
    with pytest.raises(InputError, match="'Europe/Berln' is not a time zone; the nearest are 'Europe/Berlin'"):
        contracts.check_timezone("Europe/Berln")
    contracts.check_timezone("Europe/Berlin")
    contracts.check_timezone(None)


def test_a_year_before_the_first_is_unparsable() -> None:
    frame = rows(user_id=[1, 2], item_id=[1, 2], timestamp=["0000-05-01T00:00:00Z", "0001-01-01T00:00:00Z"])
    columns = {name: name for name in (USER_ID, ITEM_ID, TIMESTAMP)}
    good, bad = pl.collect_all(check_interactions(frame, columns, id_types=INTEGERS, now=NOW))
    assert good[USER_ID].to_list() == [2]
    assert bad[REASON].to_list() == [reasons.BAD_TIME]


def test_a_blank_id_is_missing_and_a_huge_one_is_text() -> None:
    strings = {USER_ID: pl.String, ITEM_ID: pl.String}
    frame = rows(user_id=["  ", " 7"], item_id=["a", "a"])
    good, bad = pl.collect_all(
        check_interactions(frame, {USER_ID: USER_ID, ITEM_ID: ITEM_ID}, id_types=strings, now=NOW)
    )
    assert good[USER_ID].to_list() == [" 7"]
    assert bad[REASON].to_list() == [reasons.MISSING[USER_ID]]
    assert not contracts.all_integers(rows(id=pl.Series([2**63 + 1, 1], dtype=pl.UInt64)), "id")
    assert contracts.all_integers(rows(id=pl.Series([2**63 - 1, 1], dtype=pl.UInt64)), "id")


def test_bytes_are_no_id() -> None:
    with pytest.raises(InputError, match="'id' holds Binary; an id must be"):
        contracts.id_text("id", pl.Binary())


def test_lists_of_lists_become_one_list() -> None:
    frame = rows(
        item_id=["a", "b", "c"],
        category=[[["Makeup", "Nails"], ["Gifts"]], [], None],
        maker=pl.Series([{"name": "OPI"}, None, None]),
        line=["pro", "home", None],
        reason=["x", "y", "z"],
    )
    columns = ["item_id", "category", "maker", "line", "reason"]
    good, bad = pl.collect_all(check_attributes(frame, ITEM_ID, ITEM_ID, id_type=pl.String, columns=columns))
    assert bad.is_empty()
    assert good["category"].to_list() == [["Makeup", "Nails", "Gifts"], [], None]
    assert good["maker"].to_list() == ['{"name":"OPI"}', None, None]
    assert good["line"].to_list() == ["pro", "home", None]  # an attribute may have a name of the quarantine's
    assert good["reason"].to_list() == ["x", "y", "z"]


@pytest.mark.parametrize(("dtype", "first"), [(pl.Float32, 2.0**24), (pl.Float64, 2.0**53)], ids=["single", "double"])
def test_a_float_that_stands_for_several_integers_is_no_id(dtype: Any, first: float) -> None:
    ids = pl.Series([first - 1, first, -first, 1e30, 7.0, -0.0, float("nan"), None], dtype=dtype)
    frame = rows(user_id=["u"] * 8, item_id=ids)
    assert contracts.all_integers(frame, ITEM_ID)
    types = {USER_ID: pl.String, ITEM_ID: pl.Int64}
    good, bad = pl.collect_all(check_interactions(frame, {USER_ID: USER_ID, ITEM_ID: ITEM_ID}, id_types=types, now=NOW))
    assert good[ITEM_ID].to_list() == [int(first) - 1, 7, 0]
    assert bad.select(LINE, REASON).rows() == [
        *((line, reasons.INEXACT_ID) for line in (2, 3, 4)),
        *((line, reasons.MISSING[ITEM_ID]) for line in (7, 8)),
    ]


def test_decimals_categories_and_blanks_as_ids() -> None:
    prices = pl.Series([Decimal("7.00"), Decimal("7.50"), Decimal("100.00"), None], dtype=pl.Decimal(10, 2))
    text = rows(id=prices).select(contracts.id_text("id", pl.Decimal(10, 2))).collect().to_series()
    assert text.to_list() == ["7", "7.5", "100", None]
    words = pl.Series(["a", "", " ", None], dtype=pl.Categorical)
    text = rows(id=words).select(contracts.id_text("id", words.dtype)).collect().to_series()
    assert text.to_list() == ["a", None, None, None]


@pytest.mark.parametrize(
    ("decimal", "kept", "rejected"),
    [
        (".", {"3.5": 3.5, "4": 4.0, "1e2": 100.0}, ["3,5", "1.234,5", "1,234.5", "x"]),
        (",", {"3,5": 3.5, "4": 4.0, "1e2": 100.0}, ["3.5", "1.234,5", "1,234.5", "x"]),
    ],
)
def test_weights_have_the_declared_decimal_sign(decimal: str, kept: dict[str, float], rejected: list[str]) -> None:
    written = [*kept, *rejected]
    frame = rows(user_id=["u"] * len(written), item_id=["i"] * len(written), weight=written)
    strings = {USER_ID: pl.String, ITEM_ID: pl.String}
    columns = {name: name for name in (USER_ID, ITEM_ID, WEIGHT)}
    good, bad = pl.collect_all(check_interactions(frame, columns, id_types=strings, now=NOW, decimal=decimal))
    assert good[WEIGHT].to_list() == list(kept.values())
    assert bad[REASON].to_list() == [reasons.WEIGHT_TYPE] * len(rejected)


def test_seconds_with_a_decimal_comma_are_times() -> None:
    frame = rows(user_id=["u"], item_id=["i"], timestamp=["1711852200,25"])
    strings = {USER_ID: pl.String, ITEM_ID: pl.String}
    columns = {name: name for name in (USER_ID, ITEM_ID, TIMESTAMP)}
    good = check_interactions(frame, columns, id_types=strings, now=NOW, decimal=",")[0].collect()
    assert good[TIMESTAMP].to_list() == [datetime(2024, 3, 31, 2, 30, 0, 250_000, tzinfo=UTC)]
