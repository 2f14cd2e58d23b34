"""Times that hardly a log has: said with the reading that makes them plausible."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.ingestion.ingest import ingest
from recsys.reading.plausible import doubt
from recsys.settings import Settings

NOW = datetime(2024, 6, 1, tzinfo=UTC)
START = 1_700_000_000  # 2023-11-14 22:13:20, in seconds


def moments(*seconds: float) -> pl.Series:
    return pl.Series("t", [int(s * 1_000_000) for s in seconds]).cast(pl.Datetime("us", "UTC"))


@pytest.mark.parametrize(
    ("seconds", "unit", "told"),
    [
        ((START / 1e3, START / 1e3 + 86.4), "ms", 'of 2023-11-14 to 2023-11-15: set interactions.time_unit = "s"'),
        ((START / 1e3,), "us", 'as ms since 1970 they would be of 2023-11-14: set interactions.time_unit = "ms"'),
        ((START / 1e6,), "us", 'set interactions.time_unit = "s"'),
        (
            (START // 60, START // 60 + 1),
            "s",
            "as minutes since 1970 they would be of 2023-11-14: multiply them by 60 ",
        ),
        ((START // 3600,), "auto", "as hours since 1970 they would be of 2023-11-14: multiply them by 3,600 "),
        ((19_675, 19_676), "auto", "as days since 1970 they would be of 2023-11-14 to 2023-11-15: multiply by"),
        ((500_000_000,), "auto", "from 2001, they are of 2016-11-05: add 978,307,200"),
        ((721_692_800,), "s", "all 1 times are of 1992-11-13, years .* from 2001, they are of 2023-11-14: add"),
        ((5, 43_000, 80_000), "auto", "may count seconds of a day"),
        ((5, 43_000, 900_000), "auto", "3 of 3 times are before 1990 .1970-01-01 to 1970-01-11.: if they count from"),
        ((0, 0, START), "s", "2 of 3 times are before 1990 .1970-01-01., which is what programs write .* empty$"),
    ],
)
def test_a_reading_that_makes_times_plausible_is_named(seconds: tuple[float, ...], unit: Any, told: str) -> None:
    said = doubt(moments(*seconds), NOW, counts=True, unit=unit)
    assert said is not None
    assert pl.Series([said]).str.contains(told.replace("multiply by", "multiply them by")).item(), said


@pytest.mark.parametrize("seconds", [(START,), (876_000_000, 893_000_000), (1e9, 1_717_000_000), ()])
def test_times_of_a_log_are_not_doubted(seconds: tuple[float, ...]) -> None:
    """Also those of 1997: counted from 2001 they would be in the future."""
    assert doubt(moments(*seconds), NOW, counts=True) is None


def test_written_times_have_no_unit() -> None:
    said = doubt(moments(START / 1e3), NOW, counts=False)
    assert said is not None and "time_unit" not in said
    assert doubt(moments(721_692_800), NOW, counts=False) is None


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_ingest_says_what_it_took(tmp_path: Path, kind: str) -> None:
    frame = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [4, 5, 4], "timestamp": [START, START + 5, START + 9]})
    path = tmp_path / f"log.{kind}"
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
    tree = {"name": "n", "data_root": str(tmp_path), "interactions": {"source": path.name, "time_unit": "ms"}}
    report = ingest(Settings.model_validate({**tree, "warehouse": str(tmp_path / "w")}), now=NOW)
    assert report.rows_added == {"interactions": 3}
    (warning,) = report.warnings
    assert "3 of 3 times are before 1990 (1970-01-20)" in warning and 'interactions.time_unit = "s"' in warning
    right = {**tree["interactions"], "time_unit": "s"}  # type: ignore[dict-item]
    again = Settings.model_validate({**tree, "interactions": right, "warehouse": str(tmp_path / "v")})
    assert ingest(again, now=NOW).warnings == []
