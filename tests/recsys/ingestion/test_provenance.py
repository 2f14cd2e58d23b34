"""Whose rows are in a table, and by which rules they were read."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.columns import INTERACTIONS, ITEM_ID, TIMESTAMP, USER_ID
from recsys.errors import InputError
from recsys.ingestion.ingest import IngestReport, ingest
from recsys.ingestion.provenance import FILLED, check_filled, reading_rules
from recsys.settings import InteractionSettings, Settings
from recsys.storage import warehouse

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def configured(root: Path, name: str = "a", log: dict[str, Any] | None = None, **sections: Any) -> Settings:
    tree = {"name": name, "data_root": str(root), "warehouse": str(root / "warehouse")}
    return Settings.model_validate({**tree, "interactions": {"source": "a.csv", **(log or {})}, **sections})


def read(root: Path, name: str = "a", log: dict[str, Any] | None = None, **sections: Any) -> IngestReport:
    rebuild = sections.pop("rebuild", False)
    return ingest(configured(root, name, log, **sections), now=NOW, rebuild=rebuild)


def rows(root: Path) -> pl.DataFrame:
    return warehouse.scan(root / "warehouse", INTERACTIONS).collect().sort(USER_ID, ITEM_ID, TIMESTAMP)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,10,2024-01-01 10:00:00Z\n2,11,2024-01-02 10:00:00Z\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,timestamp\n1,20,2024-01-01 10:00:00Z\n3,21,2024-01-02 10:00:00Z\n")
    return tmp_path


# --- whose ---------------------------------------------------------------------------------------------------


def test_another_configuration_never_reads_into_or_from_the_table(folder: Path) -> None:
    read(folder)
    other = configured(folder, "b", {"source": "b.csv"})
    for use in (lambda: ingest(other, now=NOW), lambda: check_filled(other)):
        with pytest.raises(InputError, match=r"filled by the configuration 'a' from .*a\.csv.*warehouse = .*-b'"):
            use()
    with pytest.raises(InputError, match="filled by"):  # a rebuild replaces one's own table only
        ingest(other, now=NOW, rebuild=True)
    assert rows(folder)[ITEM_ID].to_list() == [10, 11]


def test_configurations_of_the_same_log_share_it(folder: Path) -> None:
    read(folder)
    report = read(folder, "a-ids")
    assert report.rows_added == {INTERACTIONS: 0}
    check_filled(configured(folder, "a-ids"))


def test_a_shared_log_stays_shared_while_all_read_the_same(folder: Path) -> None:
    read(folder, log={"source": ("a.csv", "b.csv")})
    check_filled(configured(folder, "both", {"source": ("b.csv", "a.csv")}))
    with pytest.raises(InputError, match="filled by"):  # it would train on the rows of a.csv
        check_filled(configured(folder, "b", {"source": "b.csv"}))


def test_the_same_configuration_reads_a_file_a_day(folder: Path) -> None:
    read(folder)
    assert read(folder, log={"source": "b.csv"}).rows_added == {INTERACTIONS: 2}
    with pytest.raises(InputError, match=r"from .*b\.csv and 1 more"):
        check_filled(configured(folder, "b", {"source": "b.csv"}))


def test_catalogues_are_nobody_elses_either(folder: Path) -> None:
    (folder / "items.csv").write_text("item_id,title\n10,Ten\n11,Eleven\n")
    (folder / "others.csv").write_text("item_id,title\n10,Other\n")
    read(folder, items={"source": "items.csv"})
    with pytest.raises(InputError, match=r"warehouse/items was filled by the configuration 'a'"):
        read(folder, "b", items={"source": "others.csv"})


def test_a_table_from_before_is_adopted_by_the_first_reading(folder: Path) -> None:
    root = str(folder / "warehouse")
    read(folder)
    held = rows(folder)
    warehouse.overwrite(root, INTERACTIONS, held, expected=0, metadata={"open_ends": []})
    check_filled(configured(folder, "b", {"source": "b.csv"}))
    assert read(folder).rows_added == {INTERACTIONS: 0}
    assert warehouse.commit_metadata(root, INTERACTIONS)[FILLED]["name"] == "a"
    assert rows(folder).equals(held)
    version = warehouse.latest_version(root, INTERACTIONS)
    read(folder)
    assert warehouse.latest_version(root, INTERACTIONS) == version  # once


@pytest.mark.parametrize("left", ["bundle", "candidates"])
def test_a_table_from_before_is_its_owners(folder: Path, left: str) -> None:
    root = folder / "warehouse"
    read(folder)
    held = rows(folder)
    warehouse.overwrite(root, INTERACTIONS, held, expected=0, metadata={"open_ends": []})
    if left == "bundle":
        (root / "bundles").mkdir()
        (root / "bundles" / "a.latest.json").write_text("{}")
    else:
        pl.DataFrame({"user_id": [1], "bundle": ["a-0123456789ab"]}).write_delta(root / "candidates")
    with pytest.raises(InputError, match=r"beside it is of 'a', not of 'b': give it a warehouse .*-b', or, if both"):
        read(folder, "b", {"source": "b.csv"})
    assert rows(folder).equals(held)
    assert read(folder).rows_added == {INTERACTIONS: 0}
    read(folder, "a-ids")  # of the same sources, after the owner has said them


# --- rules ---------------------------------------------------------------------------------------------------

LOCAL = "user_id,item_id,timestamp,stars\n1,10,2024-01-01 10:00:00,3\n2,11,2024-01-02 10:00:00,4\n"


def test_another_zone_does_not_double_the_log(folder: Path) -> None:
    (folder / "a.csv").write_text(LOCAL)
    read(folder, log={"timezone": "UTC"})
    before = rows(folder)
    with pytest.raises(
        InputError,
        match=r"interactions\.timezone \('UTC' -> 'Europe/Berlin'\) has changed.*--rebuild.*new warehouse",
    ):
        read(folder, log={"timezone": "Europe/Berlin"})
    assert rows(folder).equals(before)
    report = read(folder, log={"timezone": "Europe/Berlin"}, rebuild=True)
    assert report.rows_added == {INTERACTIONS: 2}
    assert rows(folder)[TIMESTAMP].dt.hour().to_list() == [9, 9]
    assert read(folder, log={"timezone": "Europe/Berlin"}).rows_added == {INTERACTIONS: 0}
    assert len(warehouse.scan(folder / "warehouse", INTERACTIONS, 0).collect()) == 2  # the way back


@pytest.mark.parametrize(
    ("told", "more"),
    [
        ("time_unit (its default -> 'ms') has", {"time_unit": "ms"}),
        ("columns.weight (not set -> 'stars') has", {"columns": {"weight": "stars"}}),
        ("columns.event (not set -> 'stars') has", {"columns": {"event": "stars"}}),
        ("encoding (its default -> 'iso8859-1') has", {"encoding": "latin-1"}),
        (
            "fields (its default -> 'user_id', 'item_id', 'timestamp', 'stars') has",
            {"fields": ("user_id", "item_id", "timestamp", "stars")},
        ),
        (
            "drop (its default -> {'column': 'stars', 'below': 3.0}) has",
            {"drop": ({"column": "stars", "below": 3},)},
        ),
        (
            "columns.weight (not set -> 'stars') and interactions.time_unit (its default -> 's') have",
            {"columns": {"weight": "stars"}, "time_unit": "s"},
        ),
    ],
)
def test_rules_that_make_other_rows_are_refused(folder: Path, told: str, more: dict[str, Any]) -> None:
    (folder / "a.csv").write_text(LOCAL)
    read(folder, log={"timezone": "UTC"})
    with pytest.raises(InputError, match=rf"interactions\.{re.escape(told)} changed since"):
        read(folder, log={"timezone": "UTC", **more})


def test_only_the_conditions_that_differ_are_said(folder: Path) -> None:
    (folder / "a.csv").write_text(LOCAL)
    same, old, new = ({"column": "stars", "below": n} for n in (1, 2, 3))
    read(folder, log={"timezone": "UTC", "drop": (same, old)})
    with pytest.raises(InputError) as caught:
        read(folder, log={"timezone": "UTC", "drop": (same, new)})
    assert "interactions.drop ({'column': 'stars', 'below': 2.0} -> {'column': 'stars', 'below': 3.0})" in str(
        caught.value
    )
    assert "1.0" not in str(caught.value)


def test_a_misspelt_column_is_no_changed_rule(folder: Path) -> None:
    read(folder)
    with pytest.raises(InputError, match=r"no column 'itme' .*did you mean 'item_id'\? It has 'user_id', 'item_id'"):
        read(folder, log={"columns": {"item_id": "itme"}})


def test_a_zone_where_there_was_none_reads_what_was_rejected(folder: Path) -> None:
    (folder / "a.csv").write_text(LOCAL + "3,12,2024-01-03 10:00:00Z,5\n")
    read(folder, log={"max_rejected_share": 1.0})
    assert read(folder, log={"timezone": "UTC"}).rows_added == {INTERACTIONS: 2}


def test_spellings_of_one_rule_are_one_rule() -> None:
    def rules(**more: Any) -> dict[str, Any]:
        return reading_rules(InteractionSettings(source="a.csv", **more))

    assert rules(encoding="LATIN1") == rules(encoding="iso-8859-1")
    assert rules(columns={"user_id": "user_id", "item_id": "sku"}) == rules(columns={"item_id": "sku"})
    assert rules(format="csv", separator=",", encoding="utf8", max_rejected_share=0.5, time_unit="auto") == {}


def test_a_rebuild_decides_anew_what_ids_are(folder: Path) -> None:
    (folder / "a.csv").write_text("user_id,item_id,timestamp\nx,10,2024-01-01 10:00:00Z\n")
    (folder / "items.csv").write_text("item_id,title\n10,Ten\nB,Bee\n")
    read(folder, items={"source": "items.csv"})
    assert rows(folder).row(0)[:2] == ("x", "10")
    (folder / "a.csv").write_text("user_id,item_id,timestamp\n1,10,2024-01-01 10:00:00Z\n")
    (folder / "items.csv").write_text("item_id,title\n10,Ten\n")
    read(folder, items={"source": "items.csv"}, rebuild=True)
    assert rows(folder).row(0)[:2] == (1, 10)
    assert warehouse.scan(folder / "warehouse", "items").select(ITEM_ID).collect()[ITEM_ID].to_list() == [10]
