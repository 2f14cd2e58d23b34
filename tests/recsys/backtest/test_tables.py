"""Tables of past nights hold what was known then and nothing later, in whatever order and number nights come."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import runs
from recsys.backtest.tables import Source, begin_tables, drop_replays, only_newest, tables_at
from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, ITEMS, POSITION, TIMESTAMP, USER_ID, WEIGHT
from recsys.errors import InputError, RecsysError
from recsys.storage.warehouse import TableVersions, append, latest_version, scan

START = datetime(2026, 1, 1, tzinfo=UTC)


def moment(hour: int) -> int:
    return round((START + timedelta(hours=hour)).timestamp() * 1_000_000)


def write_log(root: Path, events: list[tuple[int, int, int]], times: bool = True) -> Source:
    """Events are (user, item, hour)."""
    frame = pl.DataFrame(
        {
            USER_ID: pl.Series([user for user, _, _ in events], dtype=pl.Int64),
            ITEM_ID: pl.Series([item for _, item, _ in events], dtype=pl.Int64),
            TIMESTAMP: pl.Series(
                [START + timedelta(hours=hour) if times else None for *_, hour in events],
                dtype=pl.Datetime("us", "UTC"),
            ),
            EVENT: pl.repeat("", len(events), dtype=pl.String, eager=True),
            WEIGHT: pl.repeat(None, len(events), dtype=pl.Float64, eager=True),
            POSITION: pl.int_range(len(events), dtype=pl.Int64, eager=True),
        }
    )
    version = append(root, INTERACTIONS, frame, expected=None)
    return Source(root=str(root), versions=TableVersions(interactions=version), ingested=False)


EVENTS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 47)), min_size=1, max_size=20)


@settings(max_examples=10)
@given(
    events=EVENTS, later=EVENTS, nights=st.lists(st.integers(1, 48), min_size=1, max_size=3, unique=True).map(sorted)
)
def test_a_night_s_table_is_what_came_before_it_whatever_comes_after(
    events: list[tuple[int, int, int]], later: list[tuple[int, int, int]], nights: list[int]
) -> None:
    held: list[list[pl.DataFrame]] = []
    last = nights[-1]
    # the same past, and another future
    for log in (events, [*(event for event in events if event[2] < last), *((u, i, last + h) for u, i, h in later)]):
        with tempfile.TemporaryDirectory() as folder:
            root, source = Path(folder) / "nights", write_log(Path(folder) / "log", log)
            tables = []
            for hour in nights:
                versions = tables_at(root, source, moment(hour))
                assert tables_at(root, source, moment(hour)) == versions  # asked again after a kill
                rows = scan(root, INTERACTIONS, versions.interactions).collect()
                assert sorted(rows.select(USER_ID, ITEM_ID).rows()) == sorted((u, i) for u, i, h in log if h < hour)
                tables.append(rows.select(USER_ID, ITEM_ID, TIMESTAMP).sort(pl.all()))
            held.append(tables)
    for one, other in zip(*held, strict=True):
        assert one.equals(other)


def test_a_table_that_has_gone_past_a_night_is_not_taken_for_it(tmp_path: Path) -> None:
    source = write_log(tmp_path / "log", [(1, 1, 0), (1, 2, 30)])
    tables_at(tmp_path / "nights", source, moment(40))
    with pytest.raises(ValueError, match="later than"):
        tables_at(tmp_path / "nights", source, moment(20))


def test_a_log_without_times_is_refused_with_the_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no times \(2 of 2 events\).*interactions.columns.timestamp"):
        write_log(tmp_path, [(1, 1, 0), (1, 2, 30)], times=False).span()


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    events = [(1, 1, 0), (1, 2, 30)]
    digests = {name: write_log(tmp_path / name, log).digest() for name, log in (("a", events), ("b", events))}
    assert digests["a"] == digests["b"] != write_log(tmp_path / "c", [(1, 1, 0), (1, 3, 30)]).digest()


def test_catalogue_and_older_files(tmp_path: Path) -> None:
    source = write_log(tmp_path / "log", [(1, 1, 0), (1, 2, 30)])
    append(tmp_path / "log", ITEMS, pl.DataFrame({ITEM_ID: [1, 2], "title": ["a", "b"]}), expected=None)
    source = Source(root=source.root, versions=TableVersions(interactions=0, items=0), ingested=False)
    root = tmp_path / "nights"
    for _ in range(2):  # again after a kill
        begin_tables(root, source)
    assert latest_version(root, ITEMS) == 0
    assert scan(root, ITEMS).collect()["title"].to_list() == ["a", "b"]
    tables_at(root, source, moment(10))
    versions = tables_at(root, source, moment(40))
    only_newest(root, INTERACTIONS)
    assert scan(root, INTERACTIONS, versions.interactions).collect().height == 2


def test_what_backtests_have_left_of_the_log_can_be_dropped_and_results_stay(tmp_path: Path) -> None:
    for name in ("shop-1/nights/interactions", "shop-1/results", "log-2/interactions"):
        (tmp_path / "backtests" / name).mkdir(parents=True)
    running = runs.locked(str(tmp_path / "backtests" / "log-2"))
    with running, pytest.raises(RecsysError, match="A backtest is running"):  # it would write the users again
        drop_replays(str(tmp_path))
    assert drop_replays(str(tmp_path)) == 2
    assert sorted(path.name for path in (tmp_path / "backtests").rglob("*")) == ["results", "shop-1"]
    assert drop_replays(str(tmp_path / "nothing")) == 0
