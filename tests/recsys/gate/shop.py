"""A small generated log in which the next item often follows the one before, and its nights without MLflow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.users import UserValues
from recsys.gate.judge import Night
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.night.refit import refit
from recsys.pipelines.steps import plain
from recsys.releases.record import Release, add
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from recsys.table.build import BuiltCandidates, build, publish

USERS, ITEMS, EVENTS = 120, 200, 13
HALF_A_DAY = 43_200


def tree(folder: Path) -> dict[str, Any]:
    """A configuration whose training takes a second."""
    return {
        "name": "shop",
        "data_root": str(folder),
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "log.csv"},
        "model": {"dimensions": 16, "max_length": 12},
        "train": {"epochs": 1},
        "blend": {"candidates": 20, "text": False},
        "evaluate": {"cutoffs": [10], "baselines": ["popularity", "transitions"]},
        "retrieve": {"k": 10},
    }


def histories() -> list[list[int]]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(USERS):
        history = [int(rng.integers(ITEMS))]
        while len(history) < EVENTS:
            history.append(int(rng.integers(ITEMS)) if rng.random() < 0.7 else (history[-1] + 1) % ITEMS)
        found.append(history)
    return found


def write_log(folder: Path, events: int) -> None:
    """Write the first events of every user, two a day."""
    lines = ["user_id,item_id,timestamp"]
    for user, history in enumerate(histories()):
        times = [1_700_000_000 + HALF_A_DAY * n + 300 * user for n in range(events)]
        lines += [f"{user},{item},{time}" for item, time in zip(history, times, strict=False)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")


def night(settings: Settings, run: str, before: dict[str, Any] | None) -> tuple[TableVersions, Night]:
    """Everything that a night does before its verdict."""
    ingested = ingest(settings)
    trained = plain(fit(settings, ingested.versions))
    frames: list[pl.DataFrame] = []
    evaluated = plain(evaluate(settings, ingested.versions, trained["bundle"], users_to=frames.append))
    refitted = plain(refit(settings, ingested.versions, trained["bundle"]))
    now = datetime.now(UTC)
    built = build(settings, ingested.versions, refitted["bundle"], run, now)
    return ingested.versions, Night(
        ingested=plain(ingested),
        trained=trained,
        evaluated=evaluated,
        retrieved=plain(built),
        before=before,
        values=UserValues(frame=frames[0], about={}),
        served=refitted["bundle"],
        measured=refitted["measured"],
        as_of=now,
    )


def publish_night(settings: Settings, night: Night) -> Release:
    """Publish what a night has built, whatever the verdict."""
    published = publish(settings, BuiltCandidates.of(night.retrieved))
    release = Release(
        run=published.run,
        at=night.as_of.isoformat(),
        table=published.path,
        version=published.version,
        bundle=night.served,
        measured=night.measured,
        metrics=dict(night.evaluated["metrics"]),
    )
    add(settings, release)
    return release


def settings_of(folder: Path, **gate: Any) -> Settings:
    return parse_settings(tree(folder) | {"gate": gate})
