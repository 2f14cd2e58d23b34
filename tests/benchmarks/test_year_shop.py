"""The generated year: equal bytes from equal seeds, and every fault where it was planted."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("year_shop")


def lived(module: Any, folder: Path, faults: dict[int, Any]) -> Path:
    """Ten days of a small shop."""
    shop = module.Shop(folder=folder, users=100, items=80, events_a_day=40, past_days=5, faults=faults)
    shop.write_past()
    for day in range(1, 11):
        shop.write_day(day)
    return folder / "log"


def test_every_kind_of_fault_is_planted_once_in_a_short_and_in_a_long_run(module: Any) -> None:
    for nights in (10, 60, 365):
        faults = module.planted(nights)
        assert [fault.kind for fault in faults.values()] == list(module.KINDS)
        assert all(1 < day <= nights for day in faults)


def test_the_same_seed_gives_the_same_bytes_and_faults_change_the_days_they_are_of(module: Any, tmp_path: Path) -> None:
    faults = module.planted(10)
    first, again = (lived(module, tmp_path / name, faults) for name in ("a", "b"))
    sound = lived(module, tmp_path / "c", {})
    names = sorted(path.name for path in first.iterdir())
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names)
    day = {fault.kind: number for number, fault in faults.items()}

    def rows(folder: Path, number: int, name: str = "day") -> pl.DataFrame:
        return pl.read_csv(folder / f"{number:04}-{name}.csv", schema_overrides={"timestamp": pl.String})

    assert not (first / f"{day['missing day']:04}-day.csv").exists()
    copied = day["doubled day"]
    assert rows(first, copied, "copy").equals(rows(sound, copied - 1))
    late = day["late file"]
    parts = [rows(first, late, "late"), *(rows(first, number) for number in range(late - module.BACK, late) if number)]
    whole = pl.concat([rows(sound, number) for number in range(late - module.BACK, late) if number])
    assert pl.concat(parts).sort(pl.all()).equals(whole.sort(pl.all()))
    scaled = rows(first, day["clock in milliseconds"])["timestamp"].cast(pl.Int64)
    assert scaled.equals(rows(sound, day["clock in milliseconds"])["timestamp"].cast(pl.Int64) * 1_000)
    halved = day["half a day"]
    assert rows(first, halved).equals(rows(sound, halved).head(len(rows(sound, halved)) // 2))
    assert rows(first, day["broken day"]).equals(rows(sound, day["broken day"]))  # sent again, a day later
