"""`recsys init`: look at a log and a catalogue, guess what their columns mean, write a configuration.

What was decided on weak grounds is said, in the findings and at the configuration's head.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from recsys.columns import ITEM_ID, TIMESTAMP, USER_ID
from recsys.config import ModelSettings, RetrieveSettings, TrackingSettings, TrainSettings
from recsys.data.guess_items import CatalogueGuess, guess_catalogue
from recsys.data.guess_log import LogGuess, guess_log
from recsys.data.guess_shop import guess_shop, own_catalogue
from recsys.data.guess_toml import configuration
from recsys.data.sniff import Sample, take_sample
from recsys.errors import InputError

FEW_USERS: Final = 1_000  # below this a log is small


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What `guess` saw, one sentence each."""

    found: tuple[str, ...]
    unsure: tuple[str, ...]  # worth a look before the first run


def guess(log: str | Path, items: str | Path | None = None) -> tuple[str, Findings]:
    """A configuration for these files, as commented TOML that `load_settings` accepts.

    Parameters
    ----------
    log
        The interaction log: a file, a pattern in quotes, a Delta table; only its beginning is read.
    items
        The item catalogue.

    Raises
    ------
    InputError
        A file is missing, empty or unreadable, or no column can be the user's or the item's id.
    """
    sample = take_sample(str(log))
    catalogue_sample = take_sample(str(items)) if items is not None else None
    log_is_catalogue = items is not None and str(items) == str(log)
    known = catalogue_sample.frame if catalogue_sample is not None and not log_is_catalogue else None
    guessed = guess_log(sample, known)
    shop = guess_shop(sample, guessed.columns)
    if log_is_catalogue:
        catalogue_sample = own_catalogue(sample, shop, guessed.columns[ITEM_ID])
    sample = shop.kept(sample)
    guessed = guess_log(sample, known)  # of what is left
    guessed.found += shop.found
    if shop.timezone is not None:  # a better guess than that one
        guessed.unsure = [sentence for sentence in guessed.unsure if "timezone =" not in sentence]
    guessed.unsure += shop.unsure
    catalogue = None
    if catalogue_sample is not None:
        catalogue = guess_catalogue(catalogue_sample, sample.frame[guessed.columns[ITEM_ID]])
        guessed.found += catalogue.found
        guessed.unsure = catalogue.unsure + guessed.unsure  # whose items these are matters most
    for looked_at in (sample, catalogue_sample):
        guessed.unsure += [] if looked_at is None else looked_at.doubts
    tree = shop.added_to(_tree(sample, guessed, catalogue_sample, catalogue), own_catalogue=log_is_catalogue)
    findings = Findings(found=tuple(guessed.found), unsure=tuple(guessed.unsure))
    return configuration(tree, findings.unsure), findings


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
        raise InputError(f"{path} exists and is not overwritten; move it away or name another file.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def _tree(
    sample: Sample, guessed: LogGuess, catalogue_sample: Sample | None, catalogue: CatalogueGuess | None
) -> dict[str, Any]:
    """The settings' values, in the order in which they are written."""
    roots = [_folder(s.path) for s in (sample, catalogue_sample) if s is not None]
    root = os.path.commonpath([Path(r) for r in roots]) if all("://" not in r for r in roots) and _alike(roots) else ""
    log = _source(sample, guessed.columns, root)
    if sample.format == "sequences":
        log.pop("columns")
    if TIMESTAMP in guessed.columns:
        log["time_unit"] = guessed.time_unit
    if guessed.timezone is not None:
        log["timezone"] = guessed.timezone
    tree: dict[str, Any] = {
        "name": _name(sample.path),
        "seed": 0,
        "data_root": Path(root).as_posix() if root else ".",
        "warehouse": "warehouse",
        "interactions": log,
    }
    if catalogue_sample is not None and catalogue is not None:
        # a file without names gets one for what readers of reports see
        nameless = catalogue_sample.format == "csv" and not catalogue_sample.header
        title = (
            {catalogue.text[0]: "title"} if nameless and set(catalogue.text[:1]) - set(catalogue.categorical) else {}
        )
        tree["items"] = _source(catalogue_sample, {ITEM_ID: catalogue.item_id}, root, title) | {
            "text": [title.get(name, name) for name in catalogue.text],
            "categorical": {
                title.get(name, name): {} if separator is None else {"separator": separator}
                for name, separator in catalogue.categorical.items()
            },
        }
    model, train, retrieve = ModelSettings(), TrainSettings(), RetrieveSettings()
    lengths = sample.frame[guessed.columns[USER_ID]].value_counts()["count"].to_numpy()
    typical, long = (float(np.quantile(lengths, q)) for q in (0.5, 0.9))
    tree["filter"] = {
        "min_user_interactions": 5 if typical >= 5 else 3,
        "min_item_interactions": 1,
        "repeats": "keep",
    }
    tree["split"] = {"strategy": "leave-one-out"}
    # a small log learns from many small steps, and not more with a wide model
    few = sample.complete and len(lengths) < FEW_USERS
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
    tree["export"] = {"path": "exports/candidates", "format": "parquet"}
    tree["tracking"] = {"uri": TrackingSettings().uri}
    return tree


def _source(
    sample: Sample, columns: dict[str, str], root: str, title: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """The keys that say where a table comes from and how to read it."""
    path = sample.path
    if "://" not in path:
        path = Path(os.path.relpath(path, root)).as_posix() if root else Path(path).as_posix()
    source: dict[str, Any] = {"source": path, "format": sample.format}
    if sample.format == "csv":
        source["separator"] = sample.separator
    if sample.format not in ("parquet", "delta"):
        source["encoding"] = sample.encoding
    if sample.format == "csv" and not sample.header:
        ours = {theirs: name for name, theirs in columns.items()}
        ours |= title
        source["fields"] = [ours.get(name, name) for name in sample.frame.columns]
    else:
        source["columns"] = dict(columns)
    return source


def _folder(path: str) -> str:
    """The folder above a file or a pattern; the table's own above a Delta table."""
    parts = Path(path).parts
    fixed = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts) - 1)
    return str(Path(*parts[:fixed])) if parts[:fixed] else "."


def _alike(roots: Sequence[str]) -> bool:
    return len({Path(root).is_absolute() for root in roots}) == 1


def _name(path: str) -> str:
    """A name for the configuration: the file's, or its folder's where the file's says nothing."""
    parts = [re.sub(r"[^A-Za-z0-9_.-]+", "-", part).strip("-.") for part in Path(path).absolute().parts[-2:]]
    stem = parts[-1].split(".")[0]
    dull = not stem or re.fullmatch(r"(?i)(ratings?|interactions?|events?|logs?|data|train|part.*|reviews?)", stem)
    chosen = (parts[0] if dull else stem) or "recommender"
    return chosen if re.match(r"[A-Za-z0-9]", chosen) else f"r{chosen}"
