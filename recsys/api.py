"""The public functions of `import recsys`: configure from frames, fit, load, evaluate, run a night.

They call what the command calls, so results are the same. Only `run` needs MLflow and imports Prefect.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
import tomlkit

from recsys import runs
from recsys.bundles.store import find_bundle, latest_bundle, passed_on, publish_bundle
from recsys.errors import InputError
from recsys.evaluation.compare import EvaluationReport
from recsys.ingestion.ingest import ingest
from recsys.init.guess import guess
from recsys.init.log import NoIdError
from recsys.serving.model import Model
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.storage.files import file_aside
from recsys.storage.warehouse import current_versions

_LOGGER: Final = logging.getLogger("recsys")
_ONE_AT_A_TIME: Final = threading.Lock()  # torch's random numbers belong to the process: two trainings would share them


def configure(
    interactions: pl.DataFrame | str | Path,
    items: pl.DataFrame | str | Path | None = None,
    users: pl.DataFrame | str | Path | None = None,
    *,
    folder: str | Path,
    overrides: Sequence[str] = (),
) -> Settings:
    """Guess settings for a log, and optionally a catalogue and a user table, as `recsys init` does.

    Everything that later steps write goes under `folder`: the frames' copies (`data/`), `recsys.toml`, which the
    command accepts, too, the warehouse and MLflow's store. Rows add up in the warehouse: the frames of a second call
    are read beside those of the first, as a new day's files are. For other data take another folder.

    Parameters
    ----------
    interactions
        One row an event: user, item, and time if it is known. Columns are found by names and values.
    items, users
        One row an item or a user, with its id and attributes.
    folder
        Created if missing. If it has a `recsys.toml` already, its settings count, and the frames' copies are replaced.
    overrides
        `key.path=value`, as `--set` of the command takes them, such as "train.epochs=5".

    Raises
    ------
    InputError
        No column can be the user's or the item's id, a table cannot be read, or the folder's `recsys.toml` reads
        other tables than these.
    """
    folder = Path(folder).resolve()
    sources: dict[str, str | None] = {}
    made: list[Path] = []
    for name, table in (("interactions", interactions), ("items", items), ("users", users)):
        if isinstance(table, pl.LazyFrame):
            table = table.collect()
        if not isinstance(table, (pl.DataFrame, str, Path)) and table is not None:
            raise InputError(
                f"{name} is a {type(table).__name__}; give a polars frame (pl.from_pandas makes one) or a path."
            )
        if isinstance(table, pl.DataFrame):
            path = folder / "data" / f"{name}.parquet"
            made += [one for one in (path, *path.parents) if not one.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            with file_aside(path) as aside:
                table.write_parquet(aside)
            sources[name] = str(path)
        else:
            sources[name] = None if table is None else str(table)
    path = folder / "recsys.toml"
    if not path.exists():
        assert sources["interactions"] is not None
        try:
            text, findings = guess(sources["interactions"], sources["items"], sources["users"], path)
        except InputError as error:
            for one in sorted(made, key=lambda one: -len(one.parts)):
                one.rmdir() if one.is_dir() else one.unlink()
            if isinstance(interactions, pl.DataFrame) and isinstance(error, NoIdError):
                raise InputError(
                    f"interactions has no column that looks like the {error.whose} id (its columns: "
                    f"{', '.join(interactions.columns)}); pass the frame with its ids named, such as "
                    'interactions.rename({"...": "user_id", "...": "item_id"}).'
                ) from None
            raise
        document = tomlkit.parse(text)
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", folder.name):
            document["name"] = folder.name
        document["warehouse"] = "warehouse"
        document.pop("export", None)
        for doubt in findings.unsure:
            _LOGGER.warning("To check: %s", doubt)
        folder.mkdir(parents=True, exist_ok=True)
        with file_aside(path) as aside:
            aside.write_text(tomlkit.dumps(document), encoding="utf-8")
    settings = load_settings(path, overrides)
    for name, given in sources.items():
        section = getattr(settings, name)
        read = {str(Path(settings.data_root, source).resolve()) for source in section.sources} if section else set()
        if given is not None and "://" not in given and str(Path(given).resolve()) not in read:
            raise InputError(
                f"{path} does not read {given} as its {name}, because it was written for other tables; remove it to "
                "guess anew, or take another folder."
            )
    return settings


def fit(settings: Settings) -> Model:
    """Read the sources, encode the items' texts, train, refit, and make the bundle the newest of its name.

    What is returned is the bundle to serve: `train.refit` says whether it knows the held-out events, too.

    What the warehouse has already is not done again: rows, text vectors, a training that was interrupted.

    Raises
    ------
    InputError
        The sources, the data or the settings do not allow it.
    """
    from recsys.night.fit import fit as train
    from recsys.night.refit import refit
    from recsys.text.represent import represent

    with _ONE_AT_A_TIME, runs.locked(settings.warehouse):
        versions = ingest(settings).versions
        represent(settings, versions)
        measured = train(settings, versions, say=_LOGGER.info).bundle
        bundle = refit(settings, versions, measured, say=_LOGGER.info).bundle
        publish_bundle(settings.warehouse, bundle)
    return load(bundle)


def load(bundle: str | Path | Settings) -> Model:
    """Open a bundle: a folder or URL, with or without its hash, or the newest of a configuration's name.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    path = latest_bundle(bundle.warehouse, bundle.name) if isinstance(bundle, Settings) else find_bundle(bundle)
    return Model.open(path)


def evaluate(settings: Settings, model: Model | None = None) -> EvaluationReport:
    """Measure a model on the held-out part of the configuration's newest tables, beside its baselines.

    Of a model that was refitted on all events the measured one, which it was made of, is measured; a sentence in the
    log and in the report's protocol says so.

    Parameters
    ----------
    model
        None: the newest of the configuration's name.

    Raises
    ------
    InputError
        The model was trained on other data, or what a refitted one was made of is gone.
    """
    from recsys.evaluation.evaluate import evaluate as measure

    model = model or load(settings)
    if passed := passed_on(model.path):
        _LOGGER.info(passed)
    return measure(settings, current_versions(settings.warehouse), model.path)


def run(settings: Settings) -> dict[str, Any]:
    """Run the whole night without Prefect: ingest, represent, train, evaluate, refit, retrieve, export, tell MLflow.

    Returns
    -------
    dict
        The summary that `recsys run --json` prints; `published` is False if the gate keeps the night back.

    Raises
    ------
    InputError
        The input or the configuration is wrong; nothing is published.
    RecsysError
        Another run holds the warehouse, or MLflow does not answer.
    """
    from recsys.pipelines.nightly import night

    return night(settings)
