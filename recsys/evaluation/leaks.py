"""Check whether a bundle learned from what it is measured on: by its counts, and by its record of what it read."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from recsys.bundles.bundle import Bundle
from recsys.bundles.manifest import BLEND
from recsys.candidates.popularity import Popularity, popularity
from recsys.data.consumed import Consumed
from recsys.data.prepare import Dataset, few_users
from recsys.data.splits import drawn_users, some_users
from recsys.errors import RecsysError
from recsys.models.registry import estimator_of
from recsys.serving.recommender import BundleRecommender

NOT_RECORDED: Final = "not recorded: the bundle is of an earlier version"
_DID: Final = {  # as `lineage.consumed` of a bundle names the consumers
    "trained": "the model was trained on",
    "validated": "the best epoch was chosen by",
    "counted": "the blend's tables were counted on",
    "weighed": "the blend's weights were fitted on",
}


def learns(bundle: Bundle) -> bool:
    """Return whether anything in the bundle depends on events; where no record tells, as its kind does."""
    if bundle.has(BLEND):
        return True
    record = bundle.manifest["lineage"].get("consumed")
    return estimator_of(bundle.kind).learns if record is None else record.get("trained") is not None


def check_consumed(served: BundleRecommender, dataset: Dataset) -> dict[str, str]:
    """Compare what a bundle consumed with what the split of this data set allows.

    Models and tables may learn from the training part, or from the share of its users that the bundle's settings ask
    for; early stopping and the blend's weights may ask the validation part, or users drawn from it by the seed.

    Returns
    -------
    dict
        For the protocol: how many events each consumer had, or that an old bundle does not say.

    Raises
    ------
    RecsysError
        Something else was consumed, so the figures would mean nothing.
    """
    bundle, blended = served.bundle, served.blended
    settings = bundle.settings
    train = few_users(dataset, settings.train.users, settings.seed).split.train
    counted = None if blended is None else blended.source(Popularity)
    if counted is not None and settings.blend.counts:  # the tables tell it themselves, in old bundles, too
        own, expected = counted.popular, popularity(train.items, dataset.vocabulary.size)
        if not np.array_equal(own, expected):
            raise RecsysError(
                f"Leak: the blend of the bundle {bundle.place} counted {own.sum():,.0f} events and the split allows "
                f"{expected.sum():,.0f}, or others; train again."
            )
    record: dict[str, Any] | None = bundle.manifest["lineage"].get("consumed")
    if record is None:
        return {"consumed": NOT_RECORDED}
    stated = {}
    for name, did in _DID.items():
        if record.get(name) is None:  # nothing was trained, or nothing is blended
            if blended is not None and name in ("counted", "weighed"):
                raise RecsysError(
                    f"Leak guard: the bundle {bundle.place} blends and does not say what {did}, so a leak would not be "
                    "seen; train again."
                )
            continue
        found = Consumed.from_dict(record[name])
        allowed = _allowed(name, found, bundle, dataset, Consumed.of(train.items, train.offsets))
        if found != allowed:
            raise RecsysError(
                f"Leak: {did} {found} (digest {found.digest}), and the split allows {allowed} (digest "
                f"{allowed.digest}); the figures of the bundle {bundle.place} would mean nothing, train again."
            )
        stated[f"{name}_on"] = f"{found}, as the split allows"
    return stated


def _allowed(name: str, found: Consumed, bundle: Bundle, dataset: Dataset, train: Consumed) -> Consumed:
    validation, settings = dataset.split.validation, bundle.settings
    if name == "trained":
        return train
    if name == "counted":
        return train if settings.blend.counts else Consumed.of(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64))
    if name == "weighed":
        return Consumed.asked(drawn_users(validation, found.histories, np.random.default_rng(settings.seed)))
    return Consumed.asked(some_users(validation, found.histories, settings.seed))
