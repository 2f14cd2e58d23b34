"""Messages to MLflow of releases: which run is served, and on both runs of a switch by hand, who chose so and why."""

from __future__ import annotations

from dataclasses import replace

from recsys.releases.record import Release, read, write
from recsys.settings import Settings
from recsys.tracking.decisions import set_champion, tag_why
from recsys.tracking.store import Store

BY_HAND = {"promote": "promoted", "rollback": "brought back"}  # what happened to the run, in words


def tell(settings: Settings, store: Store | None) -> None:
    """Tell MLflow of the releases that it does not know; None: it does not answer, and is told by the next command.

    Telling it twice ends as telling it once.
    """
    record = read(settings)
    if not record.untold:
        return
    if store is None:
        write(settings, replace(record, deferred=True))
        return
    listed = record.releases
    for place in range(max(0, len(listed) - record.untold), len(listed)):
        _tell(store, listed[place], listed[place - 1] if place else None)
    set_champion(store, settings.name, run_id=listed[-1].run)
    write(settings, replace(record, untold=0, deferred=False))


def _tell(store: Store, release: Release, before: Release | None) -> None:
    if release.by not in BY_HAND or release.why is None:
        return
    done, when = BY_HAND[release.by], f"{release.at[:16].replace('T', ' ')} UTC by {release.who}: {release.why}"
    notes = {release.run: f"**{done.capitalize()}** {when}"}
    if before is not None and before.run != release.run:
        notes[before.run] = f"**Replaced** by the run {release.run}, which was {done} {when}"
    for run, note in notes.items():
        tag_why(store, run, release.why, by=release.by)
        store.send("tag", run=run, key="recsys.who", value=str(release.who))
        store.send("note", run=run, text=note)
