"""Databases of three kinds behind one interface, for tests: statements in, sources out."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest

from tests.servers import Postgresql

KINDS: Final = ("postgresql", "sqlite", "duckdb")
MOMENT: Final = {"postgresql": "timestamptz", "sqlite": "text", "duckdb": "timestamptz"}  # type of times with a zone


class Shop:
    """A database; `source` is what a configuration says of it."""

    def __init__(self, kind: str, folder: Path, server: Postgresql | None) -> None:
        self.kind, self.server = kind, server
        self.path = folder / f"shop.{kind}"
        self.source = "shop.sqlite" if kind == "sqlite" else "shop.duckdb"
        if server is not None:
            user, _, place = server.address().partition("@")
            self.source = f"{user.rpartition(':')[0]}:${{SHOP_PASSWORD}}@{place}"
        self.moment = MOMENT[kind]

    def do(self, *statements: str) -> list[Any]:
        """Run statements; the rows of the last one."""
        if self.server is not None:
            return self.server.query(*statements)
        rows: list[Any] = []
        library: Any = sqlite3 if self.kind == "sqlite" else duckdb
        with contextlib.closing(library.connect(str(self.path))) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
            if self.kind == "sqlite":
                connection.commit()
        return rows


def open_shop(kind: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """An empty database of a kind; the folder is where its file lies, if it is one."""
    server = None
    if kind == "postgresql":
        server = request.getfixturevalue("postgresql")
        monkeypatch.setenv("SHOP_PASSWORD", server.address().split(":")[2].partition("@")[0])
    return Shop(kind, folder, server)
