"""Helpers for the tests of `recsys init`: small logs as files, and a guess that is read back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from recsys.init.guess import Findings, guess
from recsys.settings import Settings
from recsys.settings.read import load_settings

START = datetime(2023, 3, 1, 8, 30, 5, tzinfo=UTC)


def write(path: Path, header: Sequence[str] | None, rows: Sequence[Sequence[object]], separator: str = ",") -> Path:
    lines = [separator.join(map(str, row)) for row in ([header, *rows] if header else rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def guessed(
    tmp_path: Path, log: Path, items: Path | None = None, users: Path | None = None
) -> tuple[Settings, Findings]:
    text, findings = guess(log, items, users, tmp_path / "guessed.toml")
    target = tmp_path / "guessed.toml"
    target.write_text(text, encoding="utf-8")
    return load_settings(target, [f"warehouse={tmp_path / 'warehouse'}"]), findings


def events(
    n: int = 300, users: int = 30, items: int = 40, step: timedelta = timedelta(hours=7)
) -> list[tuple[int, int, datetime]]:
    """(user, item, moment), oldest first; every day of the month occurs."""
    rng = np.random.default_rng(3)
    return [
        (int(rng.integers(1, users)), int(rng.integers(101, 101 + items)), START + i * step + timedelta(seconds=i % 60))
        for i in range(n)
    ]


def said(findings: Findings, *words: str) -> bool:
    """Whether one line under "to check" has all these words."""
    return any(all(word in sentence for word in words) for sentence in findings.unsure)
