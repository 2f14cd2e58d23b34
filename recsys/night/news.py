"""Events that an earlier bundle has not learnt from: they decide whether a training may begin with its weights."""

from __future__ import annotations

from recsys.bundles.bundle import Bundle
from recsys.data.prepare import Dataset
from recsys.models.base import Origin
from recsys.settings import Settings
from recsys.settings.train import PREVIOUS


def new_share(previous: Bundle, dataset: Dataset) -> float | None:
    """Share of the training events that came since an earlier bundle was trained; None: it does not say.

    A log grows, so the numbers of events say it; events that were taken back since make the share a little smaller.
    """
    trained = (previous.manifest["lineage"].get("consumed") or {}).get("trained")
    events = len(dataset.split.train.items)
    if trained is None or not events:
        return None
    return max(0, events - int(trained["events"])) / events


def begun(settings: Settings, dataset: Dataset, origin: Origin) -> Origin:
    """The origin of a training; nothing, with the reason, where too much of the log is new to yesterday's bundle.

    A bundle that the configuration names begins whatever its share: it may come from another log.
    """
    if origin.bundle is None or settings.train.warm_start != PREVIOUS:
        return origin
    share, most = new_share(origin.bundle, dataset), settings.train.warm_share
    if share is None or share <= most:
        return origin
    return Origin(
        reason=(
            f"{share:.0%} of the {len(dataset.split.train.items):,} training events are new since "
            f"{origin.bundle.label}, more than train.warm_share = {most:g}."
        )
    )
