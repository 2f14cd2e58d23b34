"""Judge: whether a night's work is published. Nothing that readers see has changed before the verdict.

A night that is kept back leaves its bundle and its rows beside those that are served, until the next night replaces
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from recsys import runs
from recsys.evaluation import plots, users
from recsys.gate.judge import Night
from recsys.gate.judge import judge as decide
from recsys.pipelines.steps import compute_task, plain, tracked
from recsys.pipelines.watch import watch
from recsys.releases.record import champion
from recsys.settings import Settings
from recsys.storage.stream import discard
from recsys.storage.warehouse import TableVersions
from recsys.table.build import BuiltCandidates
from recsys.table.naming import NAME
from recsys.tracking import log as tracking
from recsys.tracking.decisions import set_verdict
from recsys.training.validation import PRIMARY


def judge(
    settings: Settings,
    versions: TableVersions,
    parent: str,
    steps: dict[str, dict[str, Any]],
    before: dict[str, Any] | None,
    as_of: datetime,
    nights: Sequence[int] = (),
) -> dict[str, Any]:
    """Return the verdict on a night, and tell MLflow.

    Parameters
    ----------
    steps
        Reports of the night's steps by name.
    before
        The ingest report of the finished night before; None on the first one.
    nights
        See `versions_before`.
    """
    trained, retrieved = steps["train"], steps["retrieve"]
    release = champion(settings)
    path = users.local_path(settings.warehouse, trained["bundle"])
    night = Night(
        ingested=steps["ingest"],
        trained=trained,
        evaluated=steps["evaluate"],
        retrieved=retrieved,
        before=before,
        values=users.from_parquet(path.read_bytes(), str(path)),
        served=steps["refit"]["bundle"],
        measured=steps["refit"]["measured"],
        as_of=as_of,
        nights=nights,
    )
    verdict = decide(settings, versions, night, release)
    report: dict[str, Any] = plain(verdict)
    display = watch()
    (display.say if verdict.passed else display.warn)(verdict.sentence)
    with tracked(settings) as store:
        set_verdict(store, parent, report)
        log_plots(store, parent, trained, steps["evaluate"])
    return report


judge_task = compute_task(judge)


def log_plots(store: tracking.Store, run_id: str, trained: Mapping[str, Any], evaluated: Mapping[str, Any]) -> None:
    """Log the plots of a night, which people look at whether it is published or not."""
    figures = {
        "metrics": plots.plot_curves(evaluated["curves"]),
        "popularity": plots.plot_popularity(evaluated["popularity"]),
    }
    if trained["history"]:
        figures["training"] = plots.plot_training(
            trained["history"], loss="loss", metric=PRIMARY, best_epoch=trained["best_epoch"]
        )
    for name, figure in figures.items():
        tracking.log_figure(store, run_id, f"plots/{name}.png", figure)


def has_values(settings: Settings, trained: Mapping[str, Any]) -> bool:
    """Return whether the values per user of the evaluation are there, which the verdict needs."""
    return users.local_path(settings.warehouse, trained["bundle"]).is_file()


def ingested_before(states: Iterable[runs.RunState], name: str) -> dict[str, Any] | None:
    """Return the ingest report of the newest finished night of a configuration; None: there is none."""
    newest = max(finished(states, name), key=lambda state: state.order, default=None)
    return None if newest is None else dict(newest.steps["ingest"]["report"])


def versions_before(states: Iterable[runs.RunState], name: str) -> list[int]:
    """Return the versions of the log that the finished nights of a configuration worked on."""
    reports = [state.steps["ingest"]["report"] for state in finished(states, name)]
    return sorted({int(report["versions"]["interactions"]) for report in reports})


def finished(states: Iterable[runs.RunState], name: str) -> list[runs.RunState]:
    """Return the finished nights of a configuration."""
    ended = (state for state in states if state.status == "finished" and {"ingest", "retrieve"} <= set(state.steps))
    return [state for state in ended if state.steps["retrieve"]["report"]["staged"]["metadata"].get(NAME) == name]


def discard_kept_back(states: Iterable[runs.RunState], name: str, current: str | None = None) -> None:
    """Delete the rows of nights that were kept back; rows that were published later stay.

    Parameters
    ----------
    current
        Run whose rows stay.
    """
    for state in finished(states, name):
        if state.run_id != current and not state.steps.get("judge", {}).get("report", {"passed": True})["passed"]:
            discard(BuiltCandidates.of(state.steps["retrieve"]["report"]).staged)
