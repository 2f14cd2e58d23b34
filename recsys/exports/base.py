"""Contract of an export target: a `Sink` copies versions of the candidate table to where services read them.

What every sink keeps to:

- Readers see a whole copy, the old one or the new one, whenever a process is killed.
- Writing the same version again changes nothing that a reader sees; `run` and `version` name a copy.
- A target that several processes write at once lets no older run take a newer one's place; only `rollback` does.
- Nothing secret stands in a report or a message.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import polars as pl

from recsys.exports.copies import Copy, is_held
from recsys.forgetting.sought import Sought
from recsys.settings import ExportSettings
from recsys.settings.export import UNNAMED


class CandidateTable(Protocol):
    """Anything that says where a candidate table is: a `CandidatesReport`, or `Candidates`."""

    @property
    def path(self) -> str:
        """Folder of the Delta table."""

    @property
    def version(self) -> int:
        """Version of the Delta table: a later one is higher."""

    @property
    def run(self) -> str | None:
        """The run that its rows name; None: not known."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """A version of a candidate table."""

    path: str
    version: int
    run: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """Report of an export; JSON-friendly."""

    path: str  # what readers open
    rows: int  # of the copy: candidates, or users in the wide layout
    format: str
    layout: str
    columns: list[str]  # their names in the copy
    version: int  # of the candidate table
    seconds: float
    kind: str = "files"
    updated: int | None = None  # users whose rows alone were written, which `rows` counts then; None: the whole copy


@dataclass(frozen=True, kw_only=True)
class RollbackReport:
    """Report of the copy that came back; JSON-friendly."""

    path: str
    version: int  # of the candidate table, that readers see now
    instead: int  # of the one that they saw before
    kind: str = "files"


class Sink(ABC):
    """An export target.

    Attributes
    ----------
    kind
        What `export.kind` calls it.
    keys
        Its settings.
    name
        Of the configuration: the copy is its own, and no other one's is replaced.
    target
        Which of the configuration's targets it is: `NAME` of `[export.NAME]`.
    """

    kind: ClassVar[str]
    keys: ClassVar[type[ExportSettings]]

    def __init__(self, settings: ExportSettings, name: str, target: str = UNNAMED) -> None:
        self.settings, self.name, self.target = settings, name, target

    @property
    def section(self) -> str:
        """The section of its settings as the configuration has it, for messages."""
        return UNNAMED if self.target == UNNAMED else f"{UNNAMED}.{self.target}"

    @abstractmethod
    def check(self) -> None:
        """Find all that can be wrong before there is a table, such as settings and permissions.

        Raises
        ------
        InputError
            A setting is wrong, or the place is somebody else's.
        RecsysError
            The place cannot be reached or written.
        """

    @abstractmethod
    def write(self, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
        """Make a version of the candidate table what readers see, in one step.

        Parameters
        ----------
        keep
            Let the copy before this one stay, for readers that have it open and for `rollback`.

        Raises
        ------
        InputError
            As `check`; or there is no such table.
        RecsysError
            The table is damaged, another export is running, or the target does not take the copy.
        """

    @abstractmethod
    def rollback(self) -> RollbackReport:
        """Bring the former copy back; doing it again does not undo it.

        Raises
        ------
        InputError
            There is no former copy.
        """

    @abstractmethod
    def present(self) -> bool:
        """Return whether readers find a copy there now."""

    def held(self) -> Copy | None:
        """The copy that readers see; None where there is none, or it does not say which one it is."""
        return None

    def holds(self, candidates: CandidateTable) -> bool:
        """Return whether readers see this version, as these settings shape it: a night that is resumed leaves it."""
        return is_held(self.held(), candidates, self.settings)

    def count(self, sought: Sought) -> int | None:
        """Rows of what is there, the copy that readers see and any other, that name a user or an item that is sought.

        Returns
        -------
        int or None
            None: this kind of target cannot be searched.

        Raises
        ------
        RecsysError
            The place cannot be reached.
        """
        return None

    def update(self, candidates: CandidateTable, users: pl.Series, since: CandidateTable) -> ExportReport:
        """Make a version what readers see that differs from another one in the rows of some users alone, in one step.

        The former copy stays the one that `rollback` brings back. A target that cannot change rows, or that holds
        another version than `since`, is written whole.

        Parameters
        ----------
        users
            Whose rows differ, ascending; also users who have none any more.
        since
            The version before, of the same table.

        Raises
        ------
        InputError
            As `check`; or there is no such table.
        RecsysError
            As `write`.
        """
        return self.write(candidates)
