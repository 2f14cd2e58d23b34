"""One past night: the same training and the same table as a real one's, in the backtest's own warehouse."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys.backtest.plan import Night
from recsys.bundles.store import BUNDLES, publish_bundle
from recsys.columns import ITEM_ID, RANK, USER_ID
from recsys.errors import InputError
from recsys.models.base import OnEpoch
from recsys.night.fit import fit
from recsys.night.refit import refit
from recsys.runs import step_key
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, scan
from recsys.table.build import retrieve


@dataclass(frozen=True, kw_only=True)
class Built:
    """Products of a night, by names inside of the backtest's warehouse; JSON-friendly.

    Attributes
    ----------
    bundle
        The measured bundle's folder, with which the next night's warm start begins.
    served
        The bundle that made the table; of what was measured and of all events, as `train.refit` says.
    refit
        "all", "counts", or "none" where both bundles are the same.
    table, version
        Name and version of the candidate table.
    rows, users
        Of the table, and users with a row or without.
    epochs
        Of the training.
    warm_start
        Whether training began with the bundle of the night before.
    seconds
        By step.
    """

    bundle: str
    served: str
    refit: str
    table: str
    version: int
    rows: int
    users: int
    epochs: int
    warm_start: bool
    seconds: dict[str, float]


def settings_at(settings: Settings, root: Path, number: int) -> Settings:
    """The settings of a variant for all nights: the backtest's warehouse, a name of its own, no fixed cut-offs.

    A moment of `split.test_from` lies after most nights; the fractions of [split] decide in each of them.
    """
    return settings.model_copy(
        update={
            "warehouse": str(root),
            "name": f"{settings.name[:190]}.{number}",
            "split": settings.split.model_copy(update={"test_from": None, "validation_from": None}),
        }
    )


def build(
    settings: Settings,
    versions: TableVersions,
    night: Night,
    earlier: Built | None,
    alike: Built | None = None,
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Built:
    """Train, refit, and make the candidate table, on tables as they were at a night.

    Parameters
    ----------
    settings
        From `settings_at`.
    earlier
        What the night before made; `train.warm_start = "previous"` begins with its bundle.
    alike
        What a variant of the same training (`same_training`) has made of this night: its measured bundle is taken.

    Raises
    ------
    InputError
        What was known then does not suffice.
    """
    root, seconds = Path(settings.warehouse), dict[str, float]()

    @contextlib.contextmanager
    def timed(step: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[step] = round(time.perf_counter() - began, 3)

    try:
        if alike is None:
            _previous(root, settings.name, earlier)
            with timed("train"):
                trained = fit(settings, versions, on_epoch, say)
            measured, epochs = trained.bundle, trained.epochs
            warm = bool((trained.warm_start or {}).get("bundle"))
        else:
            measured, epochs, warm = str(root / BUNDLES / alike.bundle), alike.epochs, alike.warm_start
        with timed("refit"):
            again = refit(settings, versions, measured, on_epoch, say)
        with timed("retrieve"):
            at = datetime.fromtimestamp(night.at / 1_000_000, tz=UTC)
            table = retrieve(settings, versions, again.bundle, f"backtest {night.label}", at)
    except InputError as error:
        raise InputError(
            f"The night of {night.label} cannot be replayed: {error} Fewer nights, or a shorter --every, leave "
            "more events before the first one."
        ) from error
    return Built(
        bundle=Path(measured).name,
        served=Path(again.bundle).name,
        refit=again.kind,
        table=Path(table.path).name,
        version=table.version,
        rows=table.rows,
        users=table.users,
        epochs=epochs,
        warm_start=warm,
        seconds=seconds,
    )


def same_training(settings: Settings) -> str:
    """Digest of what a training depends on, whatever the variant is called: equal ones share the measured bundle."""
    return step_key(settings.model_copy(update={"name": "any"}), "train")


def table_lists(root: Path, built: Built, users: pl.Series, k: int) -> pl.DataFrame:
    """The first k rows of some users in a night's table: `user_id`, `rank`, `item_id`."""
    return (
        scan(root, built.table, built.version)
        .filter(pl.col(RANK) <= k)
        .join(users.alias(USER_ID).to_frame().lazy(), on=USER_ID, how="semi")
        .select(USER_ID, RANK, ITEM_ID)
        .collect(engine="streaming")
    )


def remove_bundles(root: Path, kept: Iterable[str]) -> None:
    """Delete all bundles but those of these names."""
    names = set(kept)
    for folder in (root / BUNDLES).iterdir():
        if folder.is_dir() and folder.name not in names:
            shutil.rmtree(folder, ignore_errors=True)


def built_of(record: Mapping[str, Any]) -> Built:
    """The inverse of `asdict`."""
    return Built(**record)


def _previous(root: Path, name: str, earlier: Built | None) -> None:
    """Point to the bundle of the night before: one that was killed after its training must not begin with itself."""
    if earlier is not None:
        publish_bundle(root, root / BUNDLES / earlier.bundle)
        return
    with contextlib.suppress(FileNotFoundError):
        (root / BUNDLES / f"{name}.latest.json").unlink()
