"""Left-overs of stopped processes and past nights: records, unfinished files, what [retention] should have taken."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from recsys import processes, runs
from recsys.audit import around
from recsys.audit.findings import Finding
from recsys.retention.collect import collect
from recsys.retention.kept import name_of
from recsys.settings import Settings
from recsys.storage.files import ABANDONED_AFTER
from recsys.storage.locks import is_held

_LATE: Final = timedelta(days=2)  # between two nights, things grow old enough to go
_DAMAGED: Final = ".damaged"


def records(settings: Settings) -> Iterator[Finding]:
    """Records of nights: each readable, and the newest one ended."""
    folder = runs.state_folder(settings.warehouse)
    for path in sorted(folder.glob("*.json")):
        if runs.load(folder, path.stem) is None:
            yield Finding(
                part="record",
                where=str(path),
                what="it cannot be read, so the figures of its night are lost",
                advice="bring it back from a backup, or put it aside with `recsys check --repair`",
                repair=partial(path.rename, path.with_name(path.name + _DAMAGED)),
            )
    own = [state for state in runs.states(folder) if (name_of(state) or settings.name) == settings.name]
    if own and own[0].status != "finished" and not runs.is_busy(settings.warehouse):
        last = list(own[0].steps)[-1:] or ["the start"]
        yield Finding(
            part="record",
            where=str(folder / f"{own[0].key}.json"),
            what=f"the newest night, {own[0].run_id}, was stopped or failed after {last[0]}",
            advice="go on with `recsys run`",
        )
    unsent = [path for path in (folder / "unsent").glob("*.jsonl") if path.stat().st_size]
    if unsent:
        what = "1 file of records waits" if len(unsent) == 1 else f"{len(unsent)} files of records wait"
        advice = "they are sent by the next command that finds MLflow answering"
        yield Finding(part="record", where=str(folder / "unsent"), what=f"{what} for MLflow", advice=advice)


def proofs(settings: Settings) -> Iterator[Finding]:
    """Calls of `forget` that left something, and were not repeated to the end."""
    clean: set[str] = set()
    for path in sorted((runs.state_folder(settings.warehouse) / around.PROOFS).glob("*.json"), reverse=True):
        told = _json(path)
        hashes = set(told.get("hashes", ()))
        if told.get("clean"):
            clean |= hashes
        elif hashes - clean:
            what, advice = "a `recsys forget` left something", "repeat the command with the same ids"
            yield Finding(part="forgotten", where=str(path), what=what, advice=advice)
            clean |= hashes


def unfinished(settings: Settings) -> Iterator[Finding]:
    """Files that killed processes were writing a day ago and longer, and marks of processes that are gone."""
    late = time.time() - ABANDONED_AFTER
    old = [path for path in around.unfinished(settings.warehouse) if path.lstat().st_mtime < late]
    for path in old:
        yield Finding(
            part="scratch",
            where=str(path),
            what="a killed process was writing it",
            advice="remove it with `recsys check --repair`",
            repair=partial(around.remove, path),
        )
    folder = runs.state_folder(settings.warehouse) / "processes"
    for path in sorted(folder.glob("[!.]*")):
        if not is_held(path):
            yield Finding(
                part="lock",
                where=str(path),
                what="its process was killed, and what it left is still there",
                advice="clear it away with `recsys check --repair`, or the next night does",
                repair=lambda: list(processes.gone(settings.warehouse)),
            )


def overdue(settings: Settings) -> Iterator[Finding]:
    """Left-overs that `[retention]` should have taken two days ago; MLflow is not asked."""
    if settings.retention.enabled:
        late = collect(settings, None, dry_run=True, now=datetime.now(UTC) - _LATE)
        for kind, names in late.names.items():
            what = f"{len(names)} of kind {kind!r} should be gone, such as {names[0]}"
            yield Finding(part="retention", where=settings.warehouse, what=what, advice="run `recsys gc`")
        for what in late.failed:
            advice = "see to this first, then check again"
            yield Finding(part="retention", where=settings.warehouse, what=what, advice=advice, passing=True)


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
