"""All places of a configuration that may hold users, items or old events, in the order in which they are emptied.

What was made of the log comes before the log: it says who has no event left. The list of what is forgotten is written
first (see `recsys.forgetting.forgotten`), so that a source that still has it brings nothing back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl
from pyarrow import fs

from recsys.audit import around
from recsys.audit.places import Place
from recsys.backtest.tables import drop_replays, replays
from recsys.bundles import mirror
from recsys.bundles.mirror import bundles_folder
from recsys.columns import CANDIDATES, ITEM_ID, ITEMS, QUARANTINE, USER_ID
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError, RecsysError, first_line
from recsys.evaluation import users as evaluations
from recsys.exports.base import CandidateTable, Sink
from recsys.exports.registry import sinks_of
from recsys.forgetting import forget as tables
from recsys.forgetting.forgotten import without_lines_of
from recsys.forgetting.sought import Sought
from recsys.report import files as pages
from recsys.report.files import stand_ins
from recsys.retention.kept import named_anywhere
from recsys.runs import local_folder, state_folder
from recsys.settings import Settings
from recsys.storage.addresses import masked
from recsys.storage.purge import data_files_of_all
from recsys.storage.remote import filesystem
from recsys.storage.warehouse import latest_version, table_path
from recsys.tracking import quotes
from recsys.tracking.owner import WAREHOUSE_TAG
from recsys.tracking.spool import drop_quotes, quoting_records
from recsys.tracking.store import Store

_USERS_FILE: Final = evaluations.FILE


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A request to forget, and the tools to look for it.

    Attributes
    ----------
    sought
        Users, items, and events before a moment.
    called
        Gives each user the pseudonym that pages and samples show.
    store
        MLflow's, or the error of one that does not answer.
    candidates
        Finds the candidate table's newest version, for the exports.
    """

    settings: Settings
    sought: Sought
    called: Callable[[Any], str]
    store: Store | RecsysError
    candidates: Callable[[], CandidateTable]

    @property
    def root(self) -> str:
        """The warehouse."""
        return self.settings.warehouse

    @property
    def states(self) -> Path:
        """The folder of run states."""
        return state_folder(self.settings.warehouse)


def places(asked: Asked) -> list[Place]:
    """Every place, in the order in which they are to be emptied.

    Raises
    ------
    InputError
        Events before a moment are sought, and the log has no times.
    """
    sought = asked.sought
    gone = frozenset[str]() if sought.before is None else tables.users_gone(asked.root, sought.before)
    derived = replace(sought, users=sought.users | gone)  # by whom copies and samples of the log are known
    shown = replace(derived, users=derived.users | set(map(stand_ins(asked.states), derived.users)))
    found = [_table(asked, name, derived) for name in tables.candidate_folders(asked.root)]
    found += [_target(asked, sink, derived) for sink in sinks_of(asked.settings)]
    found += list(_files(asked, derived, shown))
    found.append(_tracked(asked, derived, shown))
    found += [_table(asked, name, sought) for name in tables.own_tables(asked.root)]
    found.append(_rest(asked))
    return found


def _table(asked: Asked, name: str, sought: Sought) -> Place:
    root = asked.root
    path = table_path(root, name)

    def count() -> int:
        return 0 if latest_version(root, name) is None else tables.count(root, name, sought)

    def remove() -> int:
        if latest_version(root, name) is None:
            return tables.drop_unpublished(root, name)
        return tables.remove_from_table(root, name, sought)

    return Place(name=path, what="rows", count=count, remove=remove, search=lambda: search_table(path, name, sought))


def search_table(path: str, name: str, sought: Sought) -> int:
    """Rows of all files of a table, of whatever version, and lines of its log, that hold what is sought."""
    found = 0
    for file in data_files_of_all(path):
        try:
            rows = pl.scan_parquet(file, glob=False)
            if name == QUARANTINE:
                frame = rows.collect()
                found += len(frame) - len(without_lines_of(sought, frame))
            else:
                goes = sought.rows(CANDIDATES if name.startswith(CANDIDATES) else name)
                found += int(rows.filter(goes).select(pl.len()).collect(engine="streaming").item())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise RecsysError(f"The file {file} cannot be searched ({first_line(error)}); remove it.") from None
    store, folder = filesystem(f"{path}/_delta_log")
    for info in store.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        if info.base_name.endswith(".json"):
            with store.open_input_stream(info.path) as stream:
                found += sum(_line_names(line, name, sought) for line in stream.read().splitlines())
    return found


def _line_names(line: bytes, name: str, sought: Sought) -> bool:
    """Return whether a line of a commit has a sought id as the first or last value of a column."""
    try:
        stats = json.loads(json.loads(line)["add"]["stats"])
    except (ValueError, KeyError, TypeError):
        return False
    ends = [stats.get(side) or {} for side in ("minValues", "maxValues")]
    users = set() if name == ITEMS else {str(end[USER_ID]) for end in ends if USER_ID in end}
    items = {str(end[ITEM_ID]) for end in ends if ITEM_ID in end}
    return not (users.isdisjoint(sought.users) and items.isdisjoint(sought.items))


def _target(asked: Asked, sink: Sink, sought: Sought) -> Place:
    def remove() -> int:
        found = sink.count(sought)
        if not sink.present() and not found:  # one that readers lost may have former copies
            return 0
        sink.write(asked.candidates(), keep=False)
        return found or 0

    def search() -> int | None:
        found = sink.count(sought)
        if found is None and sink.present():
            raise RecsysError(f'A target of kind = "{sink.kind}" cannot be searched; look into it yourself.')
        return found

    return Place(
        name=f"{sink.section} ({sink.kind})",
        what="rows",
        count=lambda: sink.count(sought) or 0,
        remove=remove,
        search=search,
    )


def _files(asked: Asked, derived: Sought, shown: Sought) -> Iterator[Place]:
    """Files of this machine: records, pages, values per user, copies of the log, caches and bundles."""
    root, states, called = asked.root, asked.states, asked.called
    reports = local_folder(root) / pages.FOLDER

    def same(name: str, what: str, act: Callable[[bool], int]) -> Place:
        count = partial(act, True)
        return Place(name=name, what=what, count=count, remove=partial(act, False), search=count)

    yield same(str(states), "records", lambda dry: tables.clean_states(states, shown, dry_run=dry))
    yield Place(
        name=str(states / "unsent"),
        what="records not sent to MLflow",
        count=lambda: quoting_records(states / "unsent"),
        remove=lambda: drop_quotes(states / "unsent"),
        search=lambda: quoting_records(states / "unsent"),
    )
    folder = local_folder(root) / evaluations.FOLDER
    yield same(str(folder), "files", lambda dry: evaluations.forget(root, shown, dry_run=dry))
    yield same(str(reports), "pages", lambda dry: pages.forget(reports, derived, called, dry_run=dry))
    yield Place(
        name=str(local_folder(root) / "backtests"),
        what="copies of the log",
        count=lambda: len(replays(root)),
        remove=lambda: drop_replays(root),
        search=lambda: len(replays(root)),
    )
    of_items = bool(asked.sought.items)
    yield Place(
        name=f"{states} (caches)",
        what="folders",
        count=lambda: len(around.caches(root, of_items=of_items)),
        remove=lambda: around.remove_caches(root, of_items=of_items),
        search=lambda: len(around.caches(root, of_items=of_items)),
    )
    yield Place(
        name=f"{local_folder(root)} (unfinished files)",
        what="files",
        count=lambda: len(around.unfinished(root)),
        remove=lambda: around.remove_unfinished(root),
        search=lambda: len(around.unfinished(root)),
    )
    if asked.sought.items:
        parent = bundles_folder(root)
        yield Place(
            name=str(parent),
            what="bundles",
            count=lambda: len(idle_bundles(asked.settings, asked.sought)),
            remove=lambda: _remove_bundles(asked.settings, asked.sought),
            search=lambda: len(idle_bundles(asked.settings, asked.sought)),
        )


def bundles_naming(settings: Settings, sought: Sought) -> list[Path]:
    """Bundles whose vocabulary has one of the items."""
    parent, found = bundles_folder(settings.warehouse), []
    for label in mirror.labels(parent):
        try:
            if mirror.is_there(parent / label):
                items = Vocabulary.read(parent / label / "vocabulary.parquet").items
                if not sought.items.isdisjoint(items.cast(pl.String)):
                    found.append(parent / label)
        except (InputError, OSError, pl.exceptions.PolarsError):
            continue
    return found


def idle_bundles(settings: Settings, sought: Sought) -> list[Path]:
    """Bundles among them that nothing serves, and that nothing which is served was measured with."""
    needed = named_anywhere(settings)
    return [path for path in bundles_naming(settings, sought) if path.name not in needed]


def _remove_bundles(settings: Settings, sought: Sought) -> int:
    found = idle_bundles(settings, sought)
    for path in found:
        mirror.remove(path)
    return len(found)


def _tracked(asked: Asked, derived: Sought, shown: Sought) -> Place:
    def found(*, nobodys: bool = False) -> Iterator[quotes.Quoting]:
        if isinstance(asked.store, RecsysError):
            raise asked.store
        tests = partial(_quotes, asked, derived, shown)
        return quotes.quoting(asked.store, asked.settings.name, tests, nobodys=nobodys)

    def count() -> int:
        if strange := sorted({file.run for file in found(nobodys=True)}):
            others = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            raise RecsysError(
                f"The run {strange[0]}{others} of an earlier version may be this warehouse's or another's that writes "
                f"to the same experiment; delete it in MLflow, or give it the tag {WAREHOUSE_TAG} of its warehouse"
            )
        return sum(1 for _ in found())

    def remove() -> int:
        number = 0
        for file in found():
            assert not isinstance(asked.store, RecsysError)  # or nothing is found
            content = None
            if file.path == _USERS_FILE:
                content = quotes.rows_without(file.content, lambda schema: _values_of(schema, shown))
                if content is not None and _quotes(asked, derived, shown, file.path, content, None):
                    content = None
            quotes.without(asked.store, file, content)
            number += 1
        return number

    return Place(
        name=f"MLflow {masked(asked.settings.tracking.uri)}",
        what="files of runs",
        count=count,
        remove=remove,
        search=count,
    )


def _values_of(schema: Any, sought: Sought) -> pl.Expr:
    return sought.columns(schema, USER_ID, evaluations.TARGET)


def _quotes(asked: Asked, derived: Sought, shown: Sought, path: str, content: bytes, begun: datetime | None) -> bool:
    """Return whether a file of a run quotes what is sought; of a night before the moment every one does."""
    if begun is not None and derived.before is not None and begun < derived.before:
        return True
    if path == _USERS_FILE:
        try:
            values = evaluations.from_parquet(content, path).frame
        except InputError:
            return True  # nobody can say whom it quotes
        return not values.filter(_values_of(values.schema, shown)).is_empty()
    text = content.decode("utf-8", "replace")
    if path.endswith(".html"):
        return pages.shows(text, derived, asked.called)
    cells = {cell.strip() for line in text.splitlines() for cell in line.split("|")} if path.endswith(".md") else set()
    if path.endswith(".json"):
        try:
            table = json.loads(text)
            places = [place for place, name in enumerate(table["columns"]) if name in (USER_ID, ITEM_ID)]
            cells = {str(row[place]) for row in table["data"] for place in places}
        except (ValueError, KeyError, TypeError, IndexError):
            return True
    return not cells.isdisjoint(shown.users | shown.items)


def _rest(asked: Asked) -> Place:
    """All other files of the warehouse and of the run states on this machine; what names an id is only told."""

    def left() -> int:
        found = around.naming(asked.root, asked.sought)
        if found:
            raise RecsysError(f"{len(found)} files still name it, the first is {found[0]}; remove them by hand.")
        return 0

    return Place(
        name=f"{local_folder(asked.root)} (all other files)",
        what="files",
        count=lambda: 0,
        remove=lambda: 0,
        search=left,
    )
