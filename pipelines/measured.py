"""Metrics of a night for Prometheus, and its steps over their budgets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys import runs
from recsys.errors import RecsysError, first_line, is_panic
from recsys.observe.budget import over
from recsys.observe.figures import NDCG
from recsys.observe.lines import log
from recsys.observe.metrics import exposition, write_textfile
from recsys.pipelines.status import disk
from recsys.pipelines.watch import watch
from recsys.retention.kept import name_of
from recsys.running import failed, running
from recsys.runs import RunState
from recsys.settings import Settings
from recsys.storage.addresses import masked


@contextlib.contextmanager
def measured(settings: Settings) -> Iterator[None]:
    """Write the metrics of the night that the block is, when it fails or is stopped.

    A night that failed before it had a record gets one here, so that `recsys status` shows it. Metrics that cannot be
    written cost no night: a warning says so. A night that another run keeps out leaves nothing.
    """
    began, folder = _now(), runs.state_folder(settings.warehouse)
    try:
        with running(name=settings.name):
            yield
    except BaseException as error:
        if folder.is_dir():  # else nothing was begun, and nothing is made
            with contextlib.suppress(RecsysError), runs.locked(settings.warehouse):  # held: by the other night
                night = _failed_night(settings, folder, began, error)
                ended = night is not None and night.status == "finished"  # only what follows it was stopped
                _write(settings, folder, night, _verdict(night) if ended else "failed")
        raise


def tell_metrics(settings: Settings, run_id: str) -> None:
    """Write the metrics of a night that has ended, published or kept back."""
    folder = runs.state_folder(settings.warehouse)
    night = runs.state_of(folder, run_id)
    with running(name=settings.name, run=run_id):
        _write(settings, folder, night, _verdict(night))


def _verdict(night: RunState | None) -> str:
    return "published" if night is not None and _published(night) else "kept back"


def _failed_night(settings: Settings, folder: Path, began: str, error: BaseException) -> RunState | None:
    """Return the record of the night that an error ended, made anew where it has none; None: it had no run."""
    run = failed().run
    if run is None:
        return None
    if (known := runs.state_of(folder, run)) is not None:
        return known
    number = runs.next_number(folder)
    night = RunState(key=f"start-{settings.name}", run_id=run, started=began, number=number, name=settings.name)
    night = night.ended("failed", said(error))
    runs.save(folder, night)
    return night


def said(error: BaseException) -> str:
    """Return what a night's record says of the error that ended it."""
    if isinstance(error, Exception) or is_panic(error):
        return f"{type(error).__name__}: {masked(first_line(error))}."
    return "Interrupted." if isinstance(error, KeyboardInterrupt) else "Stopped from outside."


def _write(settings: Settings, folder: Path, night: RunState | None, state: str) -> None:
    path = settings.metrics.textfile
    if path is None:
        return
    good = [one.finished for one in runs.states(folder) if _is_own(settings, one) and one.finished and _published(one)]
    try:
        text = exposition(
            settings.name, night, state, success=next(iter(good), None), ended=_now(), disk=disk(settings)
        )
        write_textfile(path, text)
    except (RecsysError, OSError) as error:
        watch().warn(f"{str(error).rstrip('.')}: Prometheus is not told of this night.")


def _is_own(settings: Settings, state: RunState) -> bool:
    return name_of(state) in (None, settings.name)


def _published(state: RunState) -> bool:
    return state.status == "finished" and "publish" in state.steps


def earlier(settings: Settings, folder: Path) -> list[RunState]:
    """Return the finished nights of a configuration, the newest first."""
    return [state for state in runs.states(folder) if _is_own(settings, state) and state.status == "finished"]


def with_budget(settings: Settings, state: RunState, step: str, before: Sequence[RunState]) -> RunState:
    """Return the state with what a step took over its budget, and warn of it."""
    found = over(settings.budget, step, state.steps[step], [one.steps[step] for one in before if step in one.steps])
    if not found:
        return state
    for one in found:
        watch().warn(str(one))
    return state.noting(step, over=[{**asdict(one), "sentence": str(one)} for one in found])


def tell_end(summary: Mapping[str, Any]) -> None:
    """Write the log line that ends a night; for people the command's answer says all of it."""
    if log.json:
        ended = {
            "event": "night ends",
            "verdict": "published" if summary["published"] else "kept back",
            "seconds": summary["seconds"]["total"],
            "rows": summary["candidates"]["rows"],
            NDCG.rpartition("/")[2]: summary["metrics"].get(NDCG),
        }
        log.line(summary["verdict"]["sentence"], fields=ended)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
