"""Readings from a watermark on: what is read again, what is kept, and what a failure leaves."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS, LISTED, QUARANTINE, USER_ID
from recsys.errors import InputError
from recsys.ingestion.ingest import IngestReport, ingest
from recsys.reading.watermark import Newest, Watermark
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage import warehouse
from tests.recsys.reading.shops import KINDS, Shop, open_shop

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = open_shop(request.param, tmp_path, request, monkeypatch)
    made.do(
        f"create table orders (id integer, user_id text, item_id text, bought {made.moment}, changed {made.moment})",
        f"create table goods (item_id text, title text, changed {made.moment})",
    )
    return made


def buy(shop: Shop, *rows: tuple[int, str, str, str]) -> None:
    """Add orders (number, user, item, day of May), each changed when it was made."""
    values = ", ".join(
        f"({n}, '{user}', '{item}', '2024-05-{day} 10:00:00+00', '2024-05-{day} 10:00:00+00')"
        for n, user, item, day in rows
    )
    shop.do(f"insert into orders values {values}")


def settings_of(root: Path, shop: Shop, *, items: dict[str, Any] | None = None, **log: Any) -> Settings:
    tree = {
        "name": "shop",
        "data_root": str(root),
        "warehouse": str(root / "warehouse"),
        "interactions": {
            "source": shop.source,
            "table": "orders",
            "columns": {"timestamp": "bought"},
            "watermark": "changed",
            "max_rejected_share": 0.6,
            **log,
        },
    }
    if items is not None:
        tree["items"] = {"source": shop.source, "table": "goods", "watermark": "changed", **items}
    return parse_settings(tree)


def read(root: Path, shop: Shop, rebuild: bool = False, now: datetime = NOW, **keys: Any) -> IngestReport:
    return ingest(settings_of(root, shop, **keys), now=now, rebuild=rebuild)


def held(root: Path, table: str = INTERACTIONS) -> pl.DataFrame:
    return warehouse.scan(root / "warehouse", table).collect()


def counts(report: IngestReport) -> tuple[int, int]:
    return report.rows_read[INTERACTIONS], report.rows_added[INTERACTIONS]


@pytest.mark.parametrize("watermark", ["changed", "id"])
def test_each_reading_begins_where_the_last_one_ended(shop: Shop, tmp_path: Path, watermark: str) -> None:
    buy(shop, (1, "ann", "tea", "01"), (2, "bob", "tea", "02"), (3, "bob", "jam", "02"))
    first = read(tmp_path, shop, watermark=watermark)
    assert counts(first) == (3, 3) and not first.begins
    again = read(tmp_path, shop, watermark=watermark)
    last = 2 if watermark == "changed" else 1  # rows that share the newest value
    assert counts(again) == (last, 0) and list(again.begins[INTERACTIONS]) == [f"{shown(shop)}: orders"]
    assert again.versions == first.versions and again.digests == first.digests  # so that a stopped night goes on
    buy(shop, (4, "cat", "tea", "02"), (5, "cat", "jam", "03"))
    third = read(tmp_path, shop, watermark=watermark)
    assert counts(third) == (last + 2, 2) and third.digests != first.digests and not third.skipped
    assert len(held(tmp_path)) == 5 and not third.warnings
    assert counts(read(tmp_path, shop, rebuild=True, watermark=watermark)) == (5, 5)


def shown(shop: Shop) -> str:
    if shop.server is None:
        return shop.source
    return f"postgresql://127.0.0.1:{shop.server.port}/postgres"


def test_no_row_since_the_last_time_is_no_error(shop: Shop, tmp_path: Path) -> None:
    buy(shop, (1, "ann", "tea", "01"))
    shop.do("insert into goods values ('tea', 'Tea', '2024-05-01 10:00:00+00')")
    first = read(tmp_path, shop, items={})
    shop.do("delete from orders", "delete from goods")
    nothing = read(tmp_path, shop, items={})
    assert counts(nothing) == (0, 0) and nothing.digests == first.digests and nothing.versions == first.versions
    assert (nothing.skipped, nothing.listed, nothing.delisted) == ([], 1, 0)
    with pytest.raises(
        InputError, match=r"interactions\.source has no rows: .*: orders is empty; check the table or query"
    ):
        read(tmp_path, shop, rebuild=True, items={})
    with pytest.raises(InputError, match=r"has no column 'user' for interactions\.columns\.user_id"):
        read(tmp_path, shop, items={}, columns={"user_id": "user", "timestamp": "bought"})


def test_late_rows_need_an_overlap(shop: Shop, tmp_path: Path) -> None:
    buy(shop, (1, "ann", "tea", "10"), (2, "bob", "tea", "20"))
    read(tmp_path, shop)
    buy(shop, (3, "cat", "late", "19"))
    assert counts(read(tmp_path, shop)) == (1, 0)
    assert counts(read(tmp_path, shop, watermark_overlap_hours=23)) == (1, 0)
    assert counts(read(tmp_path, shop, watermark_overlap_hours=24)) == (2, 1)
    read(tmp_path, shop, watermark="id")
    with pytest.raises(InputError, match=r"interactions\.watermark_overlap_hours = 1 needs a watermark of times"):
        read(tmp_path, shop, watermark="id", watermark_overlap_hours=1)


def test_a_watermark_is_a_parameter(shop: Shop, tmp_path: Path) -> None:
    odd = "zoe''; drop table orders; --"
    buy(shop, (1, "ann", "tea", "01"), (2, odd, "tea", "02"))
    read(tmp_path, shop, watermark="user_id")
    assert counts(read(tmp_path, shop, watermark="user_id")) == (1, 0)
    buy(shop, (3, "über", "tea", "03"), (4, "bob", "tea", "03"))
    assert counts(read(tmp_path, shop, watermark="user_id")) == (2, 1)
    assert shop.do("select count(*) from orders") == [(4,)]


def test_a_catalogue_keeps_what_it_does_not_read(shop: Shop, tmp_path: Path) -> None:
    buy(shop, (1, "ann", "tea", "01"))
    day = "2024-05-0{} 10:00:00+00".format
    shop.do(*(f"insert into goods values ('{item}', '{item}', '{day(n)}')" for n, item in enumerate(("tea", "jam"), 1)))
    first = read(tmp_path, shop, items={})
    assert (first.listed, first.delisted, first.rows_added[ITEMS]) == (2, 0, 2)
    shop.do(
        f"update goods set title = 'Green tea', changed = '{day(3)}' where item_id = 'tea'",
        f"insert into goods values ('oil', 'Oil', '{day(4)}')",
    )
    second = read(tmp_path, shop, items={})
    assert (second.listed, second.delisted, second.rows_read[ITEMS], second.rows_added[ITEMS]) == (3, 0, 3, 2)
    goods = held(tmp_path, ITEMS).sort(ITEM_ID)
    assert goods.select(ITEM_ID, "title", LISTED).rows() == [
        ("jam", "jam", True), ("oil", "Oil", True), ("tea", "Green tea", True),
    ]  # fmt: skip
    assert not second.warnings
    shop.do("delete from goods where item_id = 'jam'")
    assert read(tmp_path, shop, items={}).listed == 3  # a row that is gone has no watermark
    whole = read(tmp_path, shop, items={"watermark": None})
    assert (whole.listed, whole.delisted) == (2, 1)
    part = read(tmp_path, shop, items={})
    assert (part.listed, part.delisted) == (2, 0) and held(tmp_path, ITEMS).filter(~pl.col(LISTED))[
        ITEM_ID
    ].to_list() == ["jam"]


def test_a_failed_reading_does_not_move_the_watermark(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buy(shop, (1, "ann", "tea", "01"))
    read(tmp_path, shop)
    buy(shop, (2, "ann", "jam", "02"))

    def broken(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as at_the_end, pytest.raises(KeyboardInterrupt):
        at_the_end.setattr(warehouse, "append", broken)
        read(tmp_path, shop)
    assert counts(read(tmp_path, shop)) == (2, 1)
    buy(shop, (3, "", "jam", "03"), (4, "", "oil", "04"))
    with pytest.raises(InputError, match="2 of 3 rows of interactions are rejected"):
        read(tmp_path, shop, max_rejected_share=0.1)
    with pytest.raises(InputError, match="2 of 3 rows of interactions are rejected"):
        read(tmp_path, shop, max_rejected_share=0.1)


def test_a_rejected_row_is_kept_once(shop: Shop, tmp_path: Path) -> None:
    buy(shop, (1, "ann", "tea", "01"), (2, "bob", "tea", "02"), (3, "", "jam", "02"))
    for _ in range(3):
        assert read(tmp_path, shop).rows_rejected[INTERACTIONS] == 1
    buy(shop, (4, "bob", "oil", "03"))
    read(tmp_path, shop)
    rows = held(tmp_path, QUARANTINE)
    assert len(rows) == 1 and rows["line"].to_list() == [None] and '"jam"' in rows["raw"][0]
    assert rows["source"].to_list() == [f"{shown(shop)}: orders"]


def test_a_time_in_the_future_does_not_keep_other_rows_away(shop: Shop, tmp_path: Path) -> None:
    buy(shop, (1, "ann", "tea", "01"))
    shop.do("insert into orders values (2, 'eve', 'tea', '2024-05-02 10:00:00+00', '2099-01-01 00:00:00+00')")
    read(tmp_path, shop)
    shop.do("insert into orders values (3, 'bob', 'tea', '2024-06-02 10:00:00+00', '2024-06-02 10:00:00+00')")
    report = read(tmp_path, shop, now=datetime(2024, 6, 3, tzinfo=UTC))
    assert counts(report) == (2, 1) and set(held(tmp_path)[USER_ID]) == {"ann", "eve", "bob"}


def test_another_choice_of_rows_is_read_whole(shop: Shop, tmp_path: Path) -> None:
    buy(shop, (1, "ann", "tea", "01"), (2, "bob", "tea", "02"))
    some = "select * from orders where item_id = 'tea'"
    assert counts(read(tmp_path, shop, table=None, query=some)) == (2, 2)
    assert counts(read(tmp_path, shop, table=None, query=some)) == (1, 0)
    buy(shop, (3, "ann", "jam", "01"))
    assert counts(read(tmp_path, shop)) == (3, 1)
    shop.do(
        "insert into goods values ('tea', 'Tea', '2024-05-01 10:00:00+00'), ('jam', 'Jam', '2024-05-02 10:00:00+00')"
    )
    assert read(tmp_path, shop, items={"drop": [{"column": "title", "one_of": ["Tea"]}]}).rows_added[ITEMS] == 1
    assert read(tmp_path, shop, items={}).rows_added[ITEMS] == 1


def test_a_watermark_that_cannot_be_one(shop: Shop, tmp_path: Path) -> None:
    buy(shop, (1, "ann", "tea", "01"), (2, "bob", "tea", "02"))
    with pytest.raises(InputError, match=r": orders has no column 'updated' for interactions\.watermark; it has"):
        read(tmp_path, shop, watermark="updated")
    array = {"postgresql": "array[1]", "duckdb": "[1]", "sqlite": "case when id = 1 then 'x' else 1 end"}[shop.kind]
    with pytest.raises(InputError, match=r"the watermark 'odd' holds .*, which has no order to read on by"):
        read(tmp_path, shop, table=None, query=f"select *, {array} as odd from orders", watermark="odd")
    shop.do("update orders set changed = null where id = 1")
    with pytest.raises(InputError, match="the watermark 'changed' has no finite value in 1 rows"):
        read(tmp_path, shop)
    shop.do("update orders set changed = bought")
    read(tmp_path, shop)
    shop.do("update orders set changed = null where id = 1")
    with pytest.raises(InputError, match="the watermark 'changed' has no finite value in 1 rows"):
        read(tmp_path, shop)


def test_a_log_without_times_is_read_whole(shop: Shop, tmp_path: Path) -> None:
    buy(shop, (1, "ann", "tea", "01"))
    with pytest.raises(InputError, match=r"orders has no column of times, .* leave interactions\.watermark out"):
        read(tmp_path, shop, columns={})
    whole = read(tmp_path, shop, columns={}, watermark=None)
    assert counts(whole) == (1, 1) and counts(read(tmp_path, shop, columns={}, watermark=None)) == (1, 0)


def test_an_id_map_by_a_query(shop: Shop, tmp_path: Path) -> None:
    buy(shop, (1, "ann", "tea", "01"))
    shop.do("create table names (ours text, theirs integer)", "insert into names values ('tea', 7), ('jam', null)")
    (tmp_path / "goods.csv").write_text("item_id,title\n7,Tea\n8,Jam\n")
    id_map = {"source": shop.source, "query": "select ours, theirs from names"}
    goods = {"source": "goods.csv", "table": None, "watermark": None, "id_map": id_map}
    report = read(tmp_path, shop, items=goods)
    assert report.unmapped == 1 and held(tmp_path, ITEMS)[ITEM_ID].to_list() == ["tea"]
    with pytest.raises(InputError, match=r"gives 1 columns for items\.id_map, which has two"):
        read(tmp_path, shop, items={**goods, "id_map": {**id_map, "query": "select ours from names"}})


@pytest.mark.parametrize(("section", "said"), [
    ({"source": "log.csv", "query": "select 1"}, "query is for databases, and source = 'log.csv' names files"),
    ({"source": "log.csv", "watermark": "day"}, "watermark is for databases"),
    ({"source": "shop.db"}, r'say which rows with one of query = "select ..." and table = "name"'),
    ({"source": "shop.db", "query": "select 1", "table": "t"}, "both query and table are given"),
    ({"source": ["shop.db", "log.csv"], "table": "t"}, "databases and files"),
    ({"source": "postgresql://host/db", "table": "t", "format": "csv"}, 'format = "csv" is of files'),
    ({"source": "shop.db", "table": "t", "watermark_overlap_hours": 3}, "needs watermark"),
    ({"source": "shop.db", "table": "t", "watermark": "day", "watermark_overlap_hours": 1e12}, "_hours = 1"),
    ({"source": "shop.db", "table": "t", "watermark": "day", "withdraw": [{"column": "n", "below": 0}]}, "'timestamp'"),
])  # fmt: skip
def test_settings_that_do_not_fit(section: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_settings({"name": "x", "interactions": section})


@pytest.mark.parametrize(("section", "said"), [
    ({"several": "most-frequent"}, "has too few rows to count"),
    ({"id_map": {"source": "map.txt"}}, "watermark and id_map do not go together"),
])  # fmt: skip
def test_tables_that_are_not_read_in_parts(section: dict[str, Any], said: str) -> None:
    items = {"source": "shop.db", "table": "t", "watermark": "day", **section}
    with pytest.raises(InputError, match=said):
        parse_settings({"name": "x", "interactions": {"source": "log.csv"}, "items": items})


@given(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.text(),
        st.datetimes(),
        st.datetimes(timezones=st.just(UTC)),
        st.dates(),
    )
)
def test_a_watermark_survives_its_record_and_never_moves_up(value: Any) -> None:
    newest = Newest("w", "place")
    newest.add(pl.Series([value]))
    mark = newest.watermark
    assert mark is not None and mark.bound == value
    assert Watermark.from_json(mark.to_json()) == mark
    capped = mark.not_after(NOW)
    assert capped.bound <= mark.bound
    if mark.kind == "moment":
        assert capped.bound == min(value, NOW)
    if mark.kind in ("moment", "time", "date"):
        assert capped.earlier(1.5, "interactions.watermark").bound <= capped.bound


@pytest.mark.parametrize(("text", "hours", "told"), [
    ("2024-05-02", 24, "2024-05-01"),
    ("2024-05-02 10:00:00", 1.5, "2024-05-02 08:30:00"),
    ("2024-05-02T10:00:00.250", 1, "2024-05-02T09:00:00"),
    ("2024-05-02T10:00:00Z", 1, "2024-05-02T09:00:00Z"),
    ("2024-05-02T10:00:00.25Z", 1, "2024-05-02T09:00:00.00Z"),
    ("2024-05-02T10:00:00.25 UTC", 1, "2024-05-02T09:00:00 UTC"),
    ("2024-05-02 10:00:00+02", 1, "2024-05-02 09:00:00+02"),
    ("2024-05-02 10:00", 1, "2024-05-02 09:00"),
    ("0001-01-02T00:00:00", 100_000, "0001-01-01T00:00:00"),
])  # fmt: skip
def test_times_as_text_keep_their_form(text: str, hours: float, told: str) -> None:
    earlier = Watermark(kind="text", value=text).earlier(hours, "x")
    assert earlier.value == told and told < text


def newest_of(values: list[Any], since: Watermark | None = None) -> Watermark:
    newest = Newest("w", "place", since)
    newest.add(pl.Series(values))
    assert newest.watermark is not None
    return newest.watermark


@pytest.mark.parametrize(("value", "timezone", "told"), [
    (datetime(2099, 1, 1), "America/Los_Angeles", datetime(2024, 6, 1, 5)),
    (datetime(2099, 1, 1), "Asia/Tokyo", datetime(2024, 6, 1, 21)),
    (datetime(2099, 1, 1), None, datetime(2024, 6, 1)),
    (datetime(2024, 6, 1, 4), "America/Los_Angeles", datetime(2024, 6, 1, 4)),
    (date(2099, 1, 1), None, date(2024, 6, 1)),
    (date(2099, 1, 1), "Pacific/Kiritimati", date(2024, 6, 2)),
    ("2099-01-01 00:00:00", "America/Los_Angeles", "2024-06-01 05:00:00"),
    ("2099-01-01T00:00:00.000", None, "2024-06-01T00:00:00"),
    ("2024-06-01T14:00:00+02:00", None, "2024-06-01T14:00:00+02:00"),
    ("2024-06-01T14:00:01+02:00", None, "2024-06-01T14:00:00+02:00"),
    ("2024-06-01T12:00:00.5Z", "America/Los_Angeles", "2024-06-01T12:00:00.0Z"),
    ("2099-01-01", None, "2024-06-01"),
])  # fmt: skip
def test_the_present_is_that_of_the_values_zone(value: Any, timezone: str | None, told: Any) -> None:
    assert newest_of([value]).not_after(NOW, timezone).bound == told


def test_a_local_time_in_the_future_loses_no_row(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute("create table t (user_id text, item_id text, changed text)")
        shop.execute("insert into t values ('a', 'tea', '2024-06-01 04:00:00'), ('eve', 'tea', '2099-01-01 00:00:00')")
        shop.commit()
        section = {
            "source": "shop.db",
            "table": "t",
            "watermark": "changed",
            "columns": {"timestamp": "changed"},
            "timezone": "America/Los_Angeles",
            "max_rejected_share": 0.9,
        }
        tree = {"name": "shop", "data_root": str(tmp_path), "warehouse": str(tmp_path / "w"), "interactions": section}
        ingest(parse_settings(tree), now=NOW)
        shop.execute("insert into t values ('bob', 'tea', '2024-06-01 06:00:00')")  # an hour later, 13:00 UTC
        shop.commit()
        ingest(parse_settings(tree), now=NOW + timedelta(hours=2))
    assert "bob" in warehouse.scan(tmp_path / "w", INTERACTIONS).collect()[USER_ID]


class Orders:
    """An SQLite database of orders whose watermark is their number; each reading is at a moment of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.next = root, 1
        self.do("create table orders (id integer, user_id text, item_id text, bought text)")

    def do(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.root / "shop.db")) as connection:
            connection.execute(statement, values)
            connection.commit()

    def buy(self, user: str, *moments: datetime) -> None:
        for moment in moments:
            self.do("insert into orders values (?, ?, 'tea', ?)", self.next, user, moment.isoformat())
            self.next += 1

    def read(self, now: datetime, **log: Any) -> IngestReport:
        section = {"source": "shop.db", "table": "orders", "watermark": "id", "columns": {"timestamp": "bought"}, **log}
        tree = {"name": "shop", "data_root": str(self.root), "warehouse": str(self.root / "warehouse")}
        return ingest(parse_settings({**tree, "interactions": section}), now=now)


def test_an_event_of_a_clock_that_runs_fast_is_read_again_when_it_has_come(tmp_path: Path) -> None:
    orders, later = Orders(tmp_path), NOW + timedelta(hours=1)
    orders.buy("ann", NOW - timedelta(hours=1))
    orders.buy("bob", NOW + timedelta(seconds=5))
    orders.buy("cat", NOW - timedelta(seconds=5))
    first = orders.read(NOW, max_rejected_share=0.5)
    assert (counts(first), first.rows_rejected) == ((3, 2), {INTERACTIONS: 1})
    assert counts(orders.read(NOW, max_rejected_share=0.5)) == (2, 0)
    second = orders.read(later, max_rejected_share=0.5)
    assert set(held(tmp_path)[USER_ID]) == {"ann", "bob", "cat"} and counts(second) == (2, 1)
    assert list(second.begins[INTERACTIONS].values()) == ["id = 2"]
    assert len(held(tmp_path, QUARANTINE)) == 1  # read twice, kept once
    assert list(orders.read(later).begins[INTERACTIONS].values()) == ["id = 3"]


def test_an_event_of_another_century_holds_no_watermark(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    orders.buy("eve", NOW + timedelta(days=3), datetime(2099, 1, 1, tzinfo=UTC))
    orders.buy("ann", NOW - timedelta(hours=1))
    orders.read(NOW, max_rejected_share=0.9)
    assert list(orders.read(NOW).begins[INTERACTIONS].values()) == ["id = 3"]


def test_an_event_that_is_waited_for_is_no_new_fault(tmp_path: Path) -> None:
    """A tenth of the rows may be rejected, and of those after the pre-order it is a third; the next one counts."""
    orders, tomorrow = Orders(tmp_path), NOW + timedelta(days=1)
    orders.buy("ann", *(NOW - timedelta(minutes=n) for n in range(20, 2, -1)))
    orders.buy("bob", tomorrow)
    orders.buy("ann", NOW - timedelta(minutes=2), NOW - timedelta(minutes=1))
    orders.read(NOW, max_rejected_share=0.1)
    again = orders.read(NOW, max_rejected_share=0.1)
    assert (counts(again), again.rows_rejected) == ((3, 0), {INTERACTIONS: 1})
    orders.buy("cat", tomorrow)
    with pytest.raises(InputError, match="2 of 4 rows of interactions are rejected"):
        orders.read(NOW, max_rejected_share=0.1)
    orders.read(tomorrow, max_rejected_share=0.1)
    assert {"ann", "bob", "cat"} == set(held(tmp_path)[USER_ID])


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("of", [int, float])
def test_a_number_of_the_future_is_the_present(unit: int, of: type) -> None:
    now = int(NOW.timestamp()) * unit
    for future in (now * 2, 253_402_300_799 * unit if unit < 10**9 else now * 3):
        first = newest_of([of(now - 10 * unit), of(future)]).not_after(NOW)
        assert first.value == now and type(first.value) is of
        assert newest_of([of(future)] * 3, first).not_after(NOW + timedelta(seconds=5)).value == now + 5 * unit


@pytest.mark.parametrize(("values", "since"), [
    ([1, 2, 3_000_000_000], None),
    ([3_000_000_000, 3_000_000_001], None),  # all of them later than now: they are no times
    ([3_000_000_001], 3_000_000_000),
    ([90_000_000_000_000], None),
    ([1_700_000_000, 1_700_000_001], None),
])  # fmt: skip
def test_ids_that_grow_stay_as_they_are(values: list[int], since: int | None) -> None:
    begin = None if since is None else Watermark(kind="integer", value=since)
    assert newest_of(values, begin).not_after(NOW).value == max(values)


@pytest.mark.parametrize("values", [
    ["2024-05-01T10:00:00", "2024-05-01 11:00:00"],
    ["2024-03-31T02:30:00+01:00", "2024-03-31T03:10:00+02:00"],
    ["2024-05-01T10:00:00Z", "2024-05-01T10:00:00+00:00"],
    ["2024-05-01T10:00:00Z", "2024-05-01T10:00:00.5Z"],
    ["2024-05-01T10:00:00", "2024-05-01T10:00:00Z"],
    ["2024-05-01", "2024-05-01T10:00:00Z"],
    ["2024-05-01", "n/a"],
])  # fmt: skip
def test_times_as_text_in_several_forms_are_refused(values: list[str]) -> None:
    said = re.escape(f"place: the watermark 'w' is text that is not written in one form, such as {values[0]!r}")
    with pytest.raises(InputError, match=said):
        newest_of(values)
    with pytest.raises(InputError, match=said):
        newest_of(values[1:], Watermark(kind="text", value=values[0]))


@given(
    st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)), min_size=2),
    st.sampled_from(["", "Z", "+02", "-05:00", " UTC"]),
    st.sampled_from(["auto", "seconds", "milliseconds"]),
)
def test_text_of_one_form_has_the_order_of_its_times(times: list[datetime], zone: str, detail: str) -> None:
    texts = [time.isoformat(timespec=detail) + zone for time in times]
    try:
        newest = newest_of(texts)
    except InputError:
        assert len({len(text) for text in texts}) > 1
        return
    assert newest.value == max(zip(times, texts, strict=True))[1] or detail != "auto"
    assert newest_of(texts, newest).value == newest.value
