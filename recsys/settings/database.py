"""Keys of what may be read from a database: which rows, by a query or as a table."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Any, Final, Self

from pydantic import Field, model_validator

from recsys.settings.section import Section

SCHEMES: Final = ("postgresql", "postgres", "snowflake", "bigquery")  # of servers
_ENDINGS: Final = (".sqlite", ".sqlite3", ".duckdb", ".db")  # of files
_FORMATS: Final = ("sqlite", "duckdb")
_WHOLE: Final = re.compile(r"\s*\$\{[^{}]*\}\s*")  # an address that is one variable, as DATABASE_URL is


def is_server(source: str) -> bool:
    """Return whether a source is the address of a database server, `${NAME}` alone included."""
    return source.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES)) or bool(_WHOLE.fullmatch(source))


def is_database(source: str, form: str | None) -> bool:
    """Return whether a source is a database: a server's address, or a file by its format or its ending."""
    return is_server(source) or form in _FORMATS or (form is None and PurePath(source).suffix.lower() in _ENDINGS)


class Queried(Section):
    """A section whose `source` may be a database. A query and a table belong to databases alone."""

    # databases only: one statement that gives rows, such as "select ... from ... join ..."
    query: Annotated[str, Field(min_length=1)] | None = None
    # databases only: a table or view, as the database writes its name; "schema.name" outside of the usual schema
    table: Annotated[str, Field(min_length=1)] | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The declared sources, always as a tuple."""
        given: Any = getattr(self, "source")  # noqa: B009 - each section declares its own
        return (given,) if isinstance(given, str) else tuple(given)

    @property
    def from_database(self) -> bool:
        """Return whether the rows come from a database."""
        return any(is_database(source, getattr(self, "format", None)) for source in self.sources)

    @model_validator(mode="after")
    def _rows_of_a_database_are_named(self) -> Self:
        form = getattr(self, "format", None)
        of = [source for source in self.sources if is_database(source, form)]
        given = [name for name in ("query", "table") if getattr(self, name) is not None]
        if not of and given:
            raise ValueError(
                f"{given[0]} is for databases, and source = {self.sources[0]!r} names files; leave it out, or set "
                'format = "sqlite" or "duckdb" if it is one'
            )
        if of and len(of) < len(self.sources):
            raise ValueError("source lists databases and files; a section reads the ones or the others")
        if of and len(given) != 1:
            raise ValueError(
                f"source is a database{', and both query and table are given' if given else ''}; say which rows with "
                'one of query = "select ..." and table = "name"'
            )
        if form not in (None, *_FORMATS) and any(map(is_server, of)):
            raise ValueError(f'format = "{form}" is of files, and source is the address of a server; leave it out')
        return self
