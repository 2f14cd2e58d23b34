"""Results of nights, each written as one: values of users first, then the figures that say the night is done.

`night-003.json` and `night-003.parquet` lie in one folder; a key says of which settings and data they are. Users stand
there as numbers, not by their ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.storage.files import file_aside, sha256, write_json, writing


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of one backtest's nights.

    Attributes
    ----------
    key
        Hash of settings, data and program.
    """

    folder: Path
    key: str

    def save(self, number: int, figures: Mapping[str, Any], values: pl.DataFrame) -> None:
        """Write a night's result; a kill leaves it whole or not at all."""
        figures_file, values_file = self._files(number)
        with writing(f"The result {figures_file}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with file_aside(values_file) as aside:
                values.write_parquet(aside)
            with file_aside(figures_file) as aside:
                write_json(aside, {"key": self.key, "values": sha256(values_file), **figures})

    def load(self, number: int) -> dict[str, Any] | None:
        """A night's figures; None where it is not done, or its files are of something else or damaged."""
        figures_file, values_file = self._files(number)
        try:
            figures = json.loads(figures_file.read_text(encoding="utf-8"))
            whole = figures.pop("key") == self.key and figures.pop("values") == sha256(values_file)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return dict(figures) if whole else None

    def values(self, number: int) -> pl.DataFrame:
        """A night's values of users."""
        return pl.read_parquet(self._files(number)[1])

    def _files(self, number: int) -> tuple[Path, Path]:
        return self.folder / f"night-{number:03d}.json", self.folder / f"night-{number:03d}.parquet"
