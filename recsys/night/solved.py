"""Regressions of an earlier bundle that serve on, as too little of the log is new to be worth solving them again.

Solving them takes most of what the blend takes to fit (7.9 CPU seconds at a million events of 20,000 items, where all
counts take 1.4), and some new events change their weights little. They are solved again once `blend.resolve_share` of
the training events came since they were solved, however many nights that takes. New items have no weights until then;
the blend knows which items those are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.bundles.store import latest_bundle
from recsys.candidates.linear import Linear
from recsys.data.prepare import Dataset
from recsys.errors import InputError
from recsys.serving.recommender import open_bundle
from recsys.settings import Settings
from recsys.settings.train import PREVIOUS

SOLVED: Final = "regressions"  # in a bundle's lineage: `events` of the training part, and the `bundle`, solved with


@dataclass(frozen=True, kw_only=True, eq=False)
class Solved:
    """Regressions that were solved before.

    Attributes
    ----------
    source
        In today's codes.
    record
        For the lineage: `events` that they were solved with, and the label of the `bundle` that was.
    reason
        A sentence that says so.
    """

    source: Linear
    record: dict[str, Any]
    reason: str


def record_of(solved: Solved | None, dataset: Dataset) -> dict[str, Any]:
    """Return what a bundle's lineage says of its regressions."""
    return {"events": len(dataset.split.train.items), "bundle": None} if solved is None else solved.record


def solved_before(settings: Settings, dataset: Dataset, previous: Bundle | None) -> Solved | None:
    """Regressions of an earlier bundle for a data set; None where they are to be solved.

    Only a night that begins with yesterday's weights (`train.warm_start = "previous"`) keeps yesterday's regressions,
    so that any other one depends on its data and settings alone.
    """
    most = settings.blend.resolve_share
    if previous is None or not most or not settings.blend.counts or not _is_alike(settings, previous):
        return None
    lineage = previous.manifest["lineage"]
    record: Mapping[str, Any] | None = lineage.get(SOLVED)
    blended = open_bundle(previous.path).blended
    source = None if blended is None else blended.source(Linear)
    events = len(dataset.split.train.items)
    if record is None or source is None or not events:
        return None
    share = abs(events - int(record["events"])) / events
    if share > most:
        return None
    label = record["bundle"] or previous.label
    return Solved(
        source=source.recoded(dataset.vocabulary.encode(previous.vocabulary.items), dataset.vocabulary.size),
        record={"events": int(record["events"]), "bundle": label},
        reason=(
            f"The regressions are those of {label}, as {share:.2%} of the training events came since "
            f"(blend.resolve_share = {most:g})."
        ),
    )


def served_before(settings: Settings) -> Bundle | None:
    """The bundle that was published last, for the regressions of the one that is to be served; None: there is none."""
    if settings.train.warm_start != PREVIOUS:
        return None
    try:
        return read_bundle(latest_bundle(settings.warehouse, settings.name))
    except InputError:
        return None


def _is_alike(settings: Settings, previous: Bundle) -> bool:
    """Return whether the bundle's regressions are of the events that these settings would take."""
    then = previous.settings
    return (
        settings.train.warm_start == PREVIOUS
        and (then.filter, then.split, then.blend) == (settings.filter, settings.split, settings.blend)
        and (then.train.users, then.seed) == (settings.train.users, settings.seed)
    )
