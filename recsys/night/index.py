"""The search of a night's bundle, chosen by queries of the night's own users.

Indexes of all kinds are tried where nothing is known of the vectors. A former bundle of about as many items knows which
kind is cheapest; then that one alone is built and measured, and the others are tried only if it no longer finds enough.
"""

from __future__ import annotations

from dataclasses import replace
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
    former: Bundle | None = None,
) -> tuple[ItemIndex, IndexReport]:
    """Choose the search among a model's vectors by a sample of the users, drawn by the seed.

    The users ask with the events that the model was trained on: what the split holds out chooses nothing.

    Parameters
    ----------
    former
        A bundle of the same model, whose kind of index is tried first.
    """

    def sample() -> tuple[np.ndarray, Sequences]:
        histories = dataset.split.train
        known = np.flatnonzero(histories.lengths > 0)
        drawn = np.random.default_rng((settings.seed, 6)).choice(known, min(SAMPLE, len(known)), replace=False)
        some = histories.select(np.sort(drawn))
        return model.encode(some), some

    asking = len(dataset.split.serving)
    known = None if former is None else former_factory(settings, former, dataset.vocabulary.size)
    if known is not None and former is not None:
        one = settings.retrieve.model_copy(update={"index": known})
        index, report = choose_index(one, vectors, allowed, sample, asking)
        if index.approximate is not None:
            reason = f"{report.reason} {former.label} has that kind, so no other one was tried."
            return index, replace(report, reason=reason)
    return choose_index(settings.retrieve, vectors, allowed, sample, asking)


def former_factory(settings: Settings, former: Bundle, items: int) -> str | None:
    """The factory string of a former bundle's index; None where all kinds are to be tried.

    That is where the configuration names one, the former search is exact, or the catalogue has grown or shrunk much.
    """
    if settings.retrieve.index != "auto" or abs(items - former.vocabulary.size) > GROWN * items:
        return None
    factory = str(former.manifest["index"]["factory"])
    return None if is_exact(factory) else factory
