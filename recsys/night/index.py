"""The search of a night's bundle, chosen by queries of the night's own users."""

from __future__ import annotations

import numpy as np

from recsys.bundles.bundle import Bundle
from recsys.data.prepare import Dataset
from recsys.data.sequences import Sequences
from recsys.models.base import Recommender
from recsys.models.demand import NightSizes
from recsys.models.registry import estimator_for
from recsys.retrieval.choice import SAMPLE, IndexReport, choose_index
from recsys.retrieval.factory import check_factory
from recsys.retrieval.index import ItemIndex
from recsys.settings import Settings


def check_index(settings: Settings, sizes: NightSizes | None = None) -> None:
    """Refuse a `retrieve.index` that cannot be made, before any work.

    Parameters
    ----------
    sizes
        Of the night's tables, where they are known.

    Raises
    ------
    InputError
        FAISS does not know it, or it does not fit the width of the vectors or so few items.
    """
    factory = settings.retrieve.index
    check_factory(factory)
    if sizes is not None:
        check_factory(factory, estimator_for(settings).width(sizes), sizes.items)


def chosen_index(
    settings: Settings,
    dataset: Dataset,
    model: Recommender,
    vectors: np.ndarray,
    allowed: np.ndarray,
    measured: Bundle | None = None,
) -> tuple[ItemIndex, IndexReport]:
    """Choose the search among a model's vectors by a sample of the users, drawn by the seed.

    The users ask with the events that the model was trained on: what the split holds out chooses nothing.

    Parameters
    ----------
    measured
        The bundle that this one is made of; its choice is kept where the same settings made it.
    """

    def sample() -> tuple[np.ndarray, Sequences]:
        histories = dataset.split.train
        known = np.flatnonzero(histories.lengths > 0)
        drawn = np.random.default_rng((settings.seed, 6)).choice(known, min(SAMPLE, len(known)), replace=False)
        some = histories.select(np.sort(drawn))
        return model.encode(some), some

    users = len(dataset.split.serving)
    return choose_index(settings.retrieve, vectors, allowed, sample, users, _kept(settings, measured))


def _kept(settings: Settings, measured: Bundle | None) -> ItemIndex | None:
    """Return the search of a bundle, if it was chosen by these settings."""
    if measured is None:
        return None
    now, then = settings.retrieve, measured.settings.retrieve
    same = all(getattr(now, name) == getattr(then, name) for name in ("index", "recall", "k", "exclude_seen"))
    return measured.index() if same else None
