"""`recsys init`: look at a log, a catalogue and a user table, guess what their columns mean, write a configuration.

What was decided on weak grounds is said, in the findings and at the configuration's head. The configuration is
tried on the first rows with ingest's own rules before it is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS, TIMESTAMP, USER_ID, USERS, WEIGHT
from recsys.errors import InputError
from recsys.init.alike import unlike
from recsys.init.attributes import AttributeGuess, attribute_tree, guess_attributes
from recsys.init.free_name import free_name
from recsys.init.histories import describe_histories
from recsys.init.log import LogGuess, guess_log
from recsys.init.shop import guess_shop, own_catalogue
from recsys.init.toml import configuration
from recsys.init.trial import try_table
from recsys.reading.sniff import Sample, take_sample
from recsys.settings import ModelSettings, RetrieveSettings, SourceSettings, TrackingSettings, TrainSettings
from recsys.settings.database import is_database
from recsys.settings.read import parse_settings
from recsys.storage.addresses import masked
from recsys.storage.remote import is_url

FEW_USERS: Final = 1_000  # below this a log is small
_KEYS: Final = {ITEMS: ITEM_ID, USERS: USER_ID}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Findings of `guess`, one sentence each."""

    found: tuple[str, ...]
    unsure: tuple[str, ...]  # worth a look before the first run


@dataclass(frozen=True, kw_only=True, eq=False)
class _Table:
    """A catalogue or a user table, looked at."""

    sample: Sample
    guess: AttributeGuess


def guess(
    log: str | Path,
    items: str | Path | None = None,
    users: str | Path | None = None,
    output: str | Path = "recsys.toml",
) -> tuple[str, Findings]:
    """A configuration for these files, as commented TOML that `load_settings` accepts.

    Parameters
    ----------
    log
        The interaction log: a file, a pattern in quotes, a Delta table; only its beginning is read.
    items, users
        The item catalogue and the user table.
    output
        Where the configuration will be written; its name and those of the configurations beside it decide on the
        configuration's name, its warehouse and its export.

    Raises
    ------
    InputError
        A file is missing, empty or unreadable, no column can be the user's or the item's id, or ingest would refuse
        the configuration.
    """
    for given in (log, items, users):
        if given is not None and is_database(str(given), None):
            raise InputError(
                f"{masked(str(given))} is a database, and `recsys init` looks at files; write the section by hand: "
                '[interactions] source = "...", table = "..."'
            )
    sample = take_sample(str(log))
    samples = {table: take_sample(str(path)) for table, path in ((ITEMS, items), (USERS, users)) if path is not None}
    log_is_catalogue = items is not None and str(items) == str(log)
    known = samples[ITEMS].frame if ITEMS in samples and not log_is_catalogue else None
    guessed = guess_log(sample, known)
    shop = guess_shop(sample, guessed.columns, guessed.decimal)
    if log_is_catalogue:
        samples[ITEMS] = own_catalogue(sample, shop, guessed.columns[ITEM_ID])
    whole, sample = sample, shop.kept(sample)
    amount = guessed.columns.get(WEIGHT)
    guessed = guess_log(sample, known)  # of what is left
    if shop.withdraw and amount is not None and amount not in guessed.columns.values():
        guessed.columns[WEIGHT] = amount  # all sales may say the same: what takes them back does not
    guessed.found += shop.found
    guessed.decimal = shop.decimal  # one for the file: weights, and what the conditions look at
    if shop.timezone is not None:  # a better guess than that one
        guessed.unsure = [sentence for sentence in guessed.unsure if "timezone =" not in sentence]
    guessed.unsure += shop.unsure
    events = describe_histories(sample, guessed, shop.looked_at, again=shop.recommends_again)
    tables = {}
    for table, looked_at in samples.items():
        found = guess_attributes(table, looked_at, sample.frame[guessed.columns[_KEYS[table]]])
        if table == ITEMS and log_is_catalogue:
            found.decimal = shop.decimal
        tables[table] = _Table(sample=looked_at, guess=found)
        guessed.found += found.found
        guessed.unsure = found.unsure + guessed.unsure  # whose items these are matters most
    for looked_at in (whole, *samples.values()):
        guessed.unsure += (*looked_at.doubts, *unlike(looked_at))
    tree = _tree(sample, guessed, tables, Path(output))
    tree = shop.added_to(tree, own_catalogue=log_is_catalogue)
    settings = parse_settings(tree)  # of which no file is opened: the samples are what is tried
    tried: dict[str, tuple[SourceSettings, Sample]] = {INTERACTIONS: (settings.interactions, whole)}
    for table, section in ((ITEMS, settings.items), (USERS, settings.users)):
        if section is not None:
            of_log = table == ITEMS and log_is_catalogue
            tried[table] = (section, whole if of_log else samples[table])
    for table, (source, looked_at) in tried.items():
        trial = try_table(table, source, looked_at)
        guessed.unsure += trial.unsure
        if trial.max_rejected_share is not None:
            tree[table]["max_rejected_share"] = trial.max_rejected_share
    offers = {}
    if events:
        told = ", ".join(f"{event} ({count:,})" for event, count in events.items())
        offers["filter"] = {"events": (list(events), told)}
    guessed.found.insert(1, "columns: " + ", ".join(f"{ours} = {theirs!r}" for ours, theirs in guessed.columns.items()))
    if few := _more_than_items(sample, guessed, tables):
        guessed.unsure.append(few)
    findings = Findings(found=tuple(guessed.found), unsure=tuple(guessed.unsure))
    return configuration(tree, findings.unsure, offers), findings


def _more_than_items(sample: Sample, guessed: LogGuess, tables: Mapping[str, _Table]) -> str | None:
    """Say that lists would be longer than all items are many; None where they are not, or where nobody knows."""
    table = tables.get(ITEMS)
    looked_at, column = (table.sample, table.guess.id) if table else (sample, guessed.columns[ITEM_ID])
    items, k = looked_at.frame[column].n_unique(), RetrieveSettings().k
    if not looked_at.complete or items >= k:
        return None
    return (
        f"retrieve.k = {k}, and there are {items} items: every list would hold all of them that its user may get; set "
        f"a smaller one, such as {max(1, items // 5)}."
    )


def write_configuration(text: str, path: str | Path = "recsys.toml") -> Path:
    """Write a new configuration file; one that exists is left alone.

    Raises
    ------
    InputError
        The file exists, or cannot be written.
    """
    path = Path(path)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(
            f"{path} exists and is not overwritten; name another file with -o, or move this one away."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def _tree(sample: Sample, guessed: LogGuess, tables: Mapping[str, _Table], output: Path) -> dict[str, Any]:
    """The settings' values, in the order in which they are written."""
    name = free_name(sample.path, output)
    paths = [sample.path, *(table.sample.path for table in tables.values())]
    roots = [_folder(path) for path in paths]
    local = not any(map(is_url, paths)) and _alike(roots)
    root = (os.path.commonpath([Path(r) for r in roots]) or ".") if local else ""
    base = root or output.parent  # what the sources are relative to
    log = _source(sample, guessed.columns, base, guessed.decimal)
    if sample.format == "sequences":
        log.pop("columns")
    if TIMESTAMP in guessed.columns:
        log["time_unit"] = guessed.time_unit
    if guessed.time_formats:
        formats = guessed.time_formats
        log["time_format"] = formats[0] if len(formats) == 1 else list(formats)
    if guessed.timezone is not None:
        log["timezone"] = guessed.timezone
    tree: dict[str, Any] = {
        "name": name,
        "seed": 0,
        "data_root": _seen_from(output.parent, root) if root else ".",
        "warehouse": f"warehouses/{name}",
        "interactions": log,
    }
    for table, of in tables.items():
        # a file without names gets one for what readers of reports see
        names = {}
        if not of.sample.named and set(of.guess.text[:1]) - set(of.guess.categorical):
            names = {of.guess.text[0]: "title"}
        source = _source(of.sample, {_KEYS[table]: of.guess.id}, base, of.guess.decimal, names)
        tree[table] = source | attribute_tree(of.guess, table, names)
    model, train, retrieve = ModelSettings(), TrainSettings(), RetrieveSettings()
    lengths = sample.frame[guessed.columns[USER_ID]].drop_nulls().value_counts()["count"].to_numpy()
    typical, long = (float(np.quantile(lengths, q)) for q in (0.5, 0.9))
    tree["filter"] = {
        "min_user_interactions": 5 if typical >= 5 else 3,
        "min_item_interactions": 1,
        "repeats": "keep",
    }
    tree["split"] = {"strategy": "leave-one-out"}
    # a small log learns from many small steps, and not more with a wide model
    few = sample.looked_at == sample.total and len(lengths) * sample.files < FEW_USERS
    tree["model"] = {
        "kind": model.kind,
        "dimensions": model.dimensions // 2 if few else model.dimensions,
        "max_length": next((length for length in (20, 50, 100) if length >= long), 200),
    }
    tree["train"] = {
        "epochs": train.epochs,
        "batch_size": train.batch_size // 4 if few else train.batch_size,
        "learning_rate": train.learning_rate,
    }
    tree["retrieve"] = {"k": retrieve.k, "exclude_seen": retrieve.exclude_seen}
    tree["export"] = {"path": f"exports/{name}", "format": "parquet"}
    tree["tracking"] = {"uri": TrackingSettings().uri}
    return tree


def _source(
    sample: Sample,
    columns: Mapping[str, str],
    base: str | Path,
    decimal: str = ".",
    names: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The keys that say where a table comes from and how to read it."""
    path = sample.path
    if not is_url(path):
        path = _seen_from(base, path)
    source: dict[str, Any] = {"source": path, "format": sample.format}
    if sample.format == "csv":
        source["separator"] = sample.separator
    if decimal != ".":
        source["decimal"] = decimal
    if sample.format not in ("parquet", "delta"):
        source["encoding"] = sample.encoding
    if sample.format == "csv" and not sample.header:
        ours = {theirs: name for name, theirs in columns.items()}
        ours |= names
        source["fields"] = [ours.get(name, name) for name in sample.frame.columns]
    else:
        source["columns"] = dict(columns)
    return source


def _seen_from(folder: str | Path, path: str | Path) -> str:
    """A path relative to a folder; one that is given in full stays so, unless it lies below the folder."""
    below = Path(os.path.relpath(path, folder))
    return (Path(path) if Path(path).is_absolute() and ".." in below.parts else below).as_posix()


def _folder(path: str) -> str:
    """The folder above a file or a pattern; the table's own above a Delta table."""
    parts = Path(path).parts
    fixed = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts) - 1)
    return str(Path(*parts[:fixed])) if parts[:fixed] else "."


def _alike(roots: Sequence[str]) -> bool:
    return len({Path(root).is_absolute() for root in roots}) == 1
