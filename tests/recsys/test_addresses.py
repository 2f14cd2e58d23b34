from __future__ import annotations

from pathlib import Path

import pytest

from recsys.addresses import local_database, masked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqlite:///mlruns/mlflow.db", "sqlite:///mlruns/mlflow.db"),
        ("postgresql://ann:p@ss/w:ord@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("https://token@host/path", "https://***@host/path"),
        ("s3://bucket/a@b/file", "s3://bucket/a@b/file"),
        ("abfss://data@account.dfs.core.windows.net/x", "abfss://***@account.dfs.core.windows.net/x"),
        ("https://host/x?sig=abc123&k=1", "https://host/x?sig=***&k=1"),
        ("two http://a:b@c and http://d:e@f", "two http://***@c and http://***@f"),
    ],
)
def test_masking(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_the_file_of_a_database() -> None:
    assert local_database("sqlite:////tmp/a%20b.db?timeout=5") == Path("/tmp/a b.db")
    assert local_database("sqlite:///mlruns/mlflow.db") == Path.cwd() / "mlruns" / "mlflow.db"
    assert local_database("postgresql://db/mlflow") is None
