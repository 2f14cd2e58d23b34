"""The search of a night's bundle, chosen by queries of the night's own users.

Indexes of all kinds are tried where nothing is known of the vectors. A former bundle of about as many items knows which
kind is cheapest; then that one alone is built and measured, and the others are tried only if it no longer finds enough.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from recsys.bundles.bundle import Bundle
from recsys.data.prepare import Dataset
from recsys.data.sequences import Sequences
from recsys.models.base import Recommender
from recsys.models.demand import NightSizes
from recsys.models.registry import estimator_for
from recsys.retrieval.choice import SAMPLE, IndexReport, choose_index
from recsys.retrieval.factory import check_factory, is_exact
from recsys.retrieval.index import ItemIndex
from recsys.settings import Settings

GROWN: Final = 0.2  # share of the items by which a catalogue may change before all kinds of index are tried again


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
    before: Bundle | None = None,
) -> tuple[ItemIndex, IndexReport]:
    """Choose the search among a model's vectors by a sample of the users, drawn by the seed.

    The users ask with the events that the model was trained on: what the split holds out chooses nothing.

    Parameters
    ----------
    before
        A bundle of nearly the same vectors, whose choice is kept while it finds enough.
    """

    def sample() -> tuple[np.ndarray, Sequences]:
        histories = dataset.split.train
        known = np.flatnonzero(histories.lengths > 0)
        drawn = np.random.default_rng((settings.seed, 6)).choice(known, min(SAMPLE, len(known)), replace=False)
        some = histories.select(np.sort(drawn))
        return model.encode(some), some

    users = len(dataset.split.serving)
    return choose_index(settings.retrieve, vectors, allowed, sample, users, _kept(settings, before, len(vectors) - 1))


def former_search(bundle: Bundle | None) -> Bundle | None:
    """Return a former night's bundle if its index may serve on; an exact search may no longer be the cheapest one."""
    return None if bundle is None or is_exact(str(bundle.manifest["index"]["factory"])) else bundle


def _kept(settings: Settings, before: Bundle | None, items: int) -> ItemIndex | None:
    """Return the search of a bundle, if the same settings chose it among about as many items."""
    if before is None or abs(items - before.vocabulary.size) > GROWN * items:
        return None
    now, then = settings.retrieve, before.settings.retrieve
    same = all(getattr(now, name) == getattr(then, name) for name in ("index", "recall", "k", "exclude_seen"))
    return before.index() if same else None
