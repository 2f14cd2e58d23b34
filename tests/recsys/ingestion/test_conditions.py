"""Rows that a configuration leaves out or reads as withdrawals, and what is left of the log afterwards."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, ITEMS, POSITION, TIMESTAMP, USER_ID, WEIGHT, WITHDRAWAL
from recsys.data.prepare import prepare
from recsys.data.withdrawals import Withdrawals, without_withdrawn
from recsys.errors import InputError
from recsys.ingestion.ingest import IngestReport, ingest
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage import warehouse

NOW = datetime(2024, 6, 1, tzinfo=UTC)
SHOP = pl.DataFrame(
    {
        "invoice": ["1", "1", "2", "C3", "4", "5", "6"],
        "code": ["10A", "11", "POST", "10A", "11", "12", "13"],
        "quantity": [2, 1, 1, -2, 5, -7, 1],
        "price": [1.5, 2.0, 3.0, 1.5, 2.0, 0.0, 0.0],
        "customer": [7, 7, 7, 7, None, None, 8],
        "at": [100, 100, 200, 300, 400, 500, 600],
    }
)
COLUMNS = {"user_id": "customer", "item_id": "code", "timestamp": "at"}
DROP = [
    {"column": "code", "matches": "^[^0-9]+$"},
    {"column": "customer", "missing": True},
    {"column": "price", "at_most": 0},
]


def configured(root: Path, log: dict[str, Any], **sections: Any) -> Settings:
    tree = {"name": "shop", "data_root": str(root), "warehouse": str(root / "warehouse"), **sections}
    return parse_settings({**tree, "interactions": {"max_rejected_share": 0.0, "columns": COLUMNS, **log}})


def write(frame: pl.DataFrame, root: Path, form: str) -> str:
    name = f"log.{form}"
    if form == "csv":
        frame.write_csv(root / name)
    elif form == "jsonl":
        frame.write_ndjson(root / name)
    else:
        frame.write_parquet(root / name)
    return name


def read(root: Path, log: dict[str, Any], **sections: Any) -> IngestReport:
    return ingest(configured(root, log, **sections), now=NOW)


def held(root: Path, *columns: str) -> list[tuple[Any, ...]]:
    return warehouse.scan(root / "warehouse", INTERACTIONS).sort(POSITION).select(columns).collect().rows()


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_rows_that_meet_a_condition_are_left_out_and_counted(tmp_path: Path, form: str) -> None:
    report = read(tmp_path, {"source": write(SHOP, tmp_path, form), "drop": DROP})
    assert report.rows_dropped == {
        INTERACTIONS: {'code matches "^[^0-9]+$"': 1, "customer missing true": 2, "price at_most 0": 1}
    }
    assert report.rows_read[INTERACTIONS] == 7
    assert report.rows_rejected[INTERACTIONS] == 0
    assert held(tmp_path, USER_ID, ITEM_ID) == [(7, "10A"), (7, "11"), (7, "10A")]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ({"column": "invoice", "starts_with": "C"}, "112456"),
        ({"column": "invoice", "one_of": ["C3", 1]}, "2456"),
        ({"column": "quantity", "below": 1}, "11246"),
        ({"column": "quantity", "at_least": 2}, "12C56"),
        ({"column": "quantity", "above": 2}, "112C56"),
        ({"column": "price", "at_most": 1.5}, "124"),
        ({"column": "customer", "missing": False}, "45"),
        ({"column": "code", "matches": r"^\d+$"}, "12C"),
    ],
)
def test_each_test_by_hand(tmp_path: Path, form: str, condition: dict[str, Any], left: str) -> None:
    frame = SHOP.with_columns(pl.col("customer").alias("given"), customer=pl.int_range(pl.len()))
    condition = {**condition, "column": condition["column"].replace("customer", "given")}
    read(tmp_path, {"source": write(frame, tmp_path, form), "drop": [condition]})
    kept = frame["invoice"].gather([user for (user,) in held(tmp_path, USER_ID)])
    assert "".join(invoice[0] for invoice in kept) == left


def test_ids_are_of_the_rows_that_stay(tmp_path: Path) -> None:
    report = read(
        tmp_path,
        {
            "source": write(SHOP, tmp_path, "csv"),
            "drop": [*DROP, {"column": "code", "one_of": ["10A"]}],
        },
    )
    assert report.rows_dropped[INTERACTIONS]['code one_of ["10A"]'] == 2
    assert held(tmp_path, USER_ID, ITEM_ID) == [(7, 11)]


def test_a_broken_row_is_quarantined_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("customer,code,at\n1,2,100\n3\n4,5,200\n")
    settings = {"source": "log.csv", "drop": [{"column": "code", "missing": True}], "max_rejected_share": 0.5}
    report = read(tmp_path, settings)
    assert (report.rows_rejected[INTERACTIONS], report.rows_dropped[INTERACTIONS]) == (1, {"code missing true": 0})


def test_what_is_left_out_does_not_thin_the_share_of_rejected_rows(tmp_path: Path) -> None:
    lines = "".join(f"1,{item},100\n" for item in range(98)) + "1,,100\n1,96,later\n"
    (tmp_path / "log.csv").write_text("customer,code,at\n" + lines)
    drop = [{"column": "code", "below": 95}]
    with pytest.raises(InputError, match=r"2 of 5 rows of interactions are rejected"):
        read(tmp_path, {"source": "log.csv", "drop": drop, "max_rejected_share": 0.05})


def test_all_rows_left_out_is_said(tmp_path: Path) -> None:
    source = write(SHOP, tmp_path, "csv")
    with pytest.raises(InputError, match=r"All 7 rows of interactions meet .*quantity below 100 \(7\)"):
        read(tmp_path, {"source": source, "drop": [{"column": "quantity", "below": 100}]})


def test_a_condition_on_a_column_that_is_not_there(tmp_path: Path) -> None:
    source = write(SHOP, tmp_path, "parquet")
    with pytest.raises(InputError, match=r"no column 'Invoice', at which interactions\.drop looks .*'invoice'"):
        read(tmp_path, {"source": source, "drop": [{"column": "Invoice", "starts_with": "C"}]})
    with pytest.raises(InputError, match=r"no column 'invoices', at which interactions\.withdraw looks"):
        read(tmp_path, {"source": source, "withdraw": [{"column": "invoices", "starts_with": "C"}]})


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({"column": "x"}, "a condition on 'x' needs one test, not none"),
        ({"column": "x", "below": 1, "missing": True}, "needs one test, not below and missing"),
        ({"column": "x", "matches": "(?=a)b"}, "look-around"),
        ({"column": "x", "matches": r"(a)\1"}, "backreferences are not supported"),
        ({"column": "x", "matches": "("}, "unclosed group"),
        ({"column": "x", "matches": "a{1000000}"}, "exceeds size limit"),
        ({"column": "x", "begins": "a"}, "no setting interactions.drop.0.begins"),
    ],
)
def test_a_condition_that_cannot_be_run_is_refused_at_the_start(
    tmp_path: Path, condition: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        configured(tmp_path, {"source": "log.csv", "drop": [condition]})
    assert said in str(refused.value)
    assert "interactions.drop.0" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_settings_with_conditions_are_written_and_read_again(tmp_path: Path) -> None:
    settings = configured(tmp_path, {"source": "log.csv", "drop": DROP, "withdraw": [DROP[0]]})
    written = settings.model_dump(mode="json")
    assert written["interactions"]["drop"] == DROP
    assert parse_settings(written) == settings
    assert tomllib.loads(tomlkit.dumps({"drop": written["interactions"]["drop"]})) == {"drop": DROP}


def test_a_log_is_its_own_catalogue(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "customer": [1, 2, 3, 4, None, 5],
            "code": ["a", "a", "a", "b", "a", "b"],
            "at": [1, 2, 3, 4, 5, 6],
            "name": ["Red mug", "RED MUG", "Red mug", "Jug", "damaged", None],
            "price": [1.0, 2.0, 2.0, 3.0, 0.0, 4.0],
        }
    )
    source = write(frame, tmp_path, "parquet")
    drop = [{"column": "customer", "missing": True}]
    items = {"source": source, "columns": {"item_id": "code"}, "text": ["name"], "drop": drop}
    report = read(tmp_path, {"source": source, "drop": drop}, items={**items, "several": "most-frequent"})
    assert report.duplicates[ITEMS] == 3
    assert report.rows_dropped[ITEMS] == {"customer missing true": 1}
    table = warehouse.scan(tmp_path / "warehouse", ITEMS).select(ITEM_ID, "name", "price").collect()
    assert table.rows() == [("a", "Red mug", 2.0), ("b", "Jug", 4.0)]  # of equals the last, nulls count for nothing


# --- withdrawals ------------------------------------------------------------------------------------------------

Row = tuple[int, str, int | None, str, float | None]  # user, item, time, event, weight


def log_of(rows: Sequence[Row]) -> pl.LazyFrame:
    schema = {USER_ID: pl.Int64, ITEM_ID: pl.String, TIMESTAMP: pl.Int64, EVENT: pl.String, WEIGHT: pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(
        pl.col(TIMESTAMP).cast(pl.Datetime("us", "UTC")), pl.int_range(pl.len()).alias(POSITION)
    ).lazy()


def standing(rows: Sequence[Row]) -> tuple[list[int], Withdrawals]:
    left, told = without_withdrawn(log_of(rows))
    return sorted(left.collect()[POSITION].to_list()), told


@pytest.mark.parametrize(
    ("rows", "left", "told"),
    [
        # the newest earlier one goes, another user's and another item's stay
        (
            [
                (1, "a", 1, "", None),
                (1, "a", 3, "", None),
                (2, "a", 3, "", None),
                (1, "b", 3, "", None),
                (1, "a", 4, WITHDRAWAL, None),
                (1, "a", 5, "", None),
            ],
            [0, 2, 3, 5],
            Withdrawals(rows=1, events=1),
        ),
        # two withdrawals take two
        (
            [
                (1, "a", 1, "", None),
                (1, "a", 2, "", None),
                (1, "a", 3, WITHDRAWAL, None),
                (1, "a", 4, WITHDRAWAL, None),
            ],
            [],
            Withdrawals(rows=2, events=2),
        ),
        # nothing before it
        ([(1, "a", 2, "", None), (1, "a", 1, WITHDRAWAL, None)], [0], Withdrawals(rows=1, unmatched=1)),
        # at the same moment the withdrawal comes after, wherever it stands in the log
        ([(1, "a", 2, WITHDRAWAL, None), (1, "a", 2, "", None)], [], Withdrawals(rows=1, events=1)),
        # a part of the quantity leaves the event, the rest of it takes it away
        ([(1, "a", 1, "", 12.0), (1, "a", 2, WITHDRAWAL, -2.0)], [0], Withdrawals(rows=1, lessened=1)),
        (
            [(1, "a", 1, "", 12.0), (1, "a", 2, WITHDRAWAL, -2.0), (1, "a", 3, WITHDRAWAL, -10.0)],
            [],
            Withdrawals(rows=2, events=1),
        ),
        # more than the newest weighs takes no other one
        (
            [(1, "a", 1, "", 12.0), (1, "a", 2, "", 6.0), (1, "a", 3, WITHDRAWAL, -8.0)],
            [0],
            Withdrawals(rows=1, events=1),
        ),
        # without times the place decides
        (
            [(1, "a", None, WITHDRAWAL, None), (1, "a", None, "", None), (1, "a", None, WITHDRAWAL, None)],
            [],
            Withdrawals(rows=2, events=1, unmatched=1),
        ),
    ],
)
def test_withdrawals_by_hand(rows: list[Row], left: list[int], told: Withdrawals) -> None:
    assert standing(rows) == (left, told)


event = st.tuples(
    st.integers(1, 2),
    st.sampled_from("ab"),
    st.integers(0, 4),
    st.sampled_from(["", WITHDRAWAL]),
    st.none() | st.integers(1, 3).map(float),
)


@given(st.lists(event, max_size=25), st.randoms())
def test_withdrawals_add_up_in_any_order_of_reading(rows: list[Row], random: Any) -> None:
    left, told = standing(rows)
    sales = [place for place, row in enumerate(rows) if row[3] != WITHDRAWAL]
    assert set(left) <= set(sales)
    assert told.events == len(sales) - len(left)
    assert told.rows == len(rows) - len(sales)
    for user in (1, 2):  # what is left depends on nobody else
        own = [place for place, row in enumerate(rows) if row[0] == user]
        alone, _ = standing([rows[place] for place in own])
        assert [own[place] for place in alone] == [place for place in left if rows[place][0] == user]
    distinct = {row[:4]: row for row in rows}  # what the table holds, in whatever order it was read
    shuffled = list(distinct.values())
    random.shuffle(shuffled)
    by_key = [sorted(rs[p][:4] for p in standing(rs)[0]) for rs in (list(distinct.values()), shuffled)]
    assert by_key[0] == by_key[1]


def test_a_cancellation_of_the_next_day_and_a_second_reading_change_nothing_else(tmp_path: Path) -> None:
    sold = [f"{invoice},{code},{q},{user},{at}" for invoice, code, q, user, at in [
        ("1", 10, 2, 1, 100), ("1", 11, 1, 1, 100), ("2", 12, 1, 1, 200), ("3", 13, 1, 1, 300),
        ("4", 10, 1, 2, 100), ("5", 11, 1, 2, 200), ("6", 12, 1, 2, 300),
    ]]  # fmt: skip
    header = "invoice,code,quantity,customer,at\n"
    (tmp_path / "day1.csv").write_text(header + "\n".join(sold) + "\n")
    log = {
        "source": ["day1.csv"],
        "columns": {**COLUMNS, "weight": "quantity"},
        "withdraw": [{"column": "invoice", "starts_with": "C"}],
    }

    def histories() -> dict[int, list[Any]]:
        ingest(configured(tmp_path, log), now=NOW)
        left, _ = without_withdrawn(warehouse.scan(tmp_path / "warehouse", INTERACTIONS))
        frame = left.sort(TIMESTAMP, POSITION).collect()
        return {user: frame.filter(pl.col(USER_ID) == user)[ITEM_ID].to_list() for user in (1, 2)}

    assert histories() == {1: [10, 11, 12, 13], 2: [10, 11, 12]}
    (tmp_path / "day2.csv").write_text(header + "C7,11,-1,1,86500\nC7,10,-1,1,86500\nC8,99,-1,2,86500\n")
    log["source"] = ["day1.csv", "day2.csv"]
    assert histories() == {1: [10, 12, 13], 2: [10, 11, 12]}
    before = held(tmp_path, USER_ID, ITEM_ID, EVENT)
    assert histories() == {1: [10, 12, 13], 2: [10, 11, 12]}
    assert held(tmp_path, USER_ID, ITEM_ID, EVENT) == before
    settings = configured(tmp_path, log)
    told = prepare(settings, warehouse.current_versions(tmp_path / "warehouse")).report["withdrawals"]
    assert json.loads(json.dumps(told)) == {"rows": 3, "events": 1, "lessened": 1, "unmatched": 1}


def test_only_events_that_count_are_taken_back(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "customer,code,at,what\n1,a,1,bought\n1,b,2,bought\n1,c,3,bought\n1,d,4,bought\n1,a,5,viewed\n1,a,6,returned\n"
    )
    log = {
        "source": "log.csv",
        "columns": {**COLUMNS, "event": "what"},
        "withdraw": [{"column": "what", "one_of": ["returned"]}],
    }
    settings = configured(tmp_path, log, filter={"events": ["bought"]})
    assert ingest(settings, now=NOW).withdrawals == 1
    dataset = prepare(settings, warehouse.current_versions(tmp_path / "warehouse"))
    assert dataset.report["interactions"] == 3  # the view is not what was returned
    assert dataset.vocabulary.items.to_list() == ["b"]  # and c and d are held out


def test_overlapping_sheets_and_two_lines_of_one_item_are_one_event(tmp_path: Path) -> None:
    header = "invoice,code,quantity,customer,at\n"
    (tmp_path / "2010.csv").write_text(
        header + "1,10,2,1,100\n1,10,3,1,100\n1,11,1,1,100\n2,12,1,1,200\nC3,11,-1,1,300\n"
    )
    (tmp_path / "2011.csv").write_text(header + "2,12,1,1,200\nC3,11,-1,1,300\n4,11,1,1,400\n")
    log = {
        "source": ["2010.csv", "2011.csv"],
        "columns": {**COLUMNS, "weight": "quantity"},
        "withdraw": [{"column": "invoice", "starts_with": "C"}],
    }
    report = read(tmp_path, log)
    assert (report.rows_read[INTERACTIONS], report.rows_added[INTERACTIONS], report.duplicates[INTERACTIONS]) == (
        8,
        5,
        3,
    )
    left, told = without_withdrawn(warehouse.scan(tmp_path / "warehouse", INTERACTIONS))
    assert left.sort(POSITION).collect()[ITEM_ID].to_list() == [10, 12, 11]  # the withdrawal counts once
    assert told == Withdrawals(rows=1, events=1)


def test_conditions_read_numbers_with_the_declared_decimal_sign(tmp_path: Path) -> None:
    lines = ["customer;code;at;qty;price", "1;a;100;3,0;2,5", "1;a;200;-1,0;2,5", "1;b;300;1,5;0,0", "1;c;400;1;0,5"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    log = {"source": "log.csv", "separator": ";", "decimal": ",", "columns": {**COLUMNS, "weight": "qty"}}
    conditions = {"withdraw": [{"column": "qty", "below": 0}], "drop": [{"column": "price", "below": 0.4}]}
    report = read(tmp_path, {**log, **conditions})
    assert report.rows_dropped == {INTERACTIONS: {"price below 0.4": 1}}
    assert report.withdrawals == 1
    assert held(tmp_path, ITEM_ID, EVENT, WEIGHT) == [("a", "", 3.0), ("a", WITHDRAWAL, -1.0), ("c", "", 1.0)]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_values_are_met_however_a_source_writes_them(tmp_path: Path, form: str) -> None:
    written = ["true", "True", "TRUE", "no"] if form == "csv" else [True, True, True, False]
    columns = {"customer": [1] * 4, "code": list("abcd"), "at": [1, 2, 3, 4], "flag": written}
    frame = pl.DataFrame(columns).with_columns(kind=pl.Series([1, 2, 3, 4]))
    drop = [{"column": "kind", "one_of": [1.0]}, {"column": "flag", "one_of": [True]}]
    report = read(tmp_path, {"source": write(frame, tmp_path, form), "drop": drop})
    assert list(report.rows_dropped[INTERACTIONS].values()) == [1, 2]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_lines_of_one_order_weigh_their_sum_and_a_second_reading_adds_nothing(tmp_path: Path, form: str) -> None:
    """12 and 2 of a thing on one invoice, of which 12 are cancelled, 2 and 1 of another, all cancelled in two lines."""
    columns = {"code": ["a", "a", "b", "b", "a", "b", "b"], "qty": [12.0, 2, 0.1, 0.2, -12, -0.2, -0.1]}
    frame = pl.DataFrame({"customer": [1] * 7, "at": [100] * 4 + [200] * 3, **columns}, strict=False)
    log = {"source": write(frame, tmp_path, form), "columns": {**COLUMNS, "weight": "qty"}}
    withdraw = [{"column": "qty", "below": 0}]
    report = read(tmp_path, {**log, "withdraw": withdraw})
    assert (report.rows_added[INTERACTIONS], report.duplicates[INTERACTIONS]) == (4, 3)
    table = warehouse.scan(tmp_path / "warehouse", INTERACTIONS)
    left, told = without_withdrawn(table)
    assert left.collect()[ITEM_ID].to_list() == ["a"]
    assert (told.events, told.lessened, told.unmatched) == (1, 1, 0)
    weights = held(tmp_path, WEIGHT)
    again = read(tmp_path, {**log, "source": [log["source"], log["source"]], "withdraw": withdraw})
    assert (again.rows_added[INTERACTIONS], again.corrected[INTERACTIONS]) == (0, 0)
    write(pl.concat([frame, frame.tail(1).with_columns(at=pl.lit(300, pl.Int64))]), tmp_path, form)
    assert read(tmp_path, {**log, "withdraw": withdraw}).corrected[INTERACTIONS] == 0
    assert held(tmp_path, WEIGHT)[:4] == weights
    # the same invoices again in one file, as where two exports overlap
    write(pl.concat([frame, frame]), tmp_path, form)
    again = read(tmp_path, {**log, "withdraw": withdraw})
    assert (again.rows_added[INTERACTIONS], again.corrected[INTERACTIONS]) == (0, 0)
