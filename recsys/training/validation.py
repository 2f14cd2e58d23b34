"""Validation metrics of a model, between epochs and before the blend: the figures that choose weights."""

from __future__ import annotations

import numpy as np

from recsys.columns import metric_name
from recsys.data.sequences import HistoryVectors
from recsys.data.splits import HeldOut
from recsys.evaluation.metrics import accuracy
from recsys.evaluation.ranking import rank_targets
from recsys.retrieval.repeats import with_repeats
from recsys.settings import Settings

PRIMARY = metric_name("ndcg", 10, "val")  # decides which epoch is best


def validation_metrics(
    queries: HistoryVectors,
    vectors: np.ndarray,
    allowed: np.ndarray,
    held_out: HeldOut,
    settings: Settings,
    repeats: np.ndarray | None = None,
) -> dict[str, float]:
    """HR, NDCG and MRR at 10 on a held-out set, named `val/…`; `repeats` as `with_repeats` takes them."""
    encoded = queries(held_out.histories)  # [U, D]
    items, offsets = held_out.histories.items, held_out.histories.offsets
    ranking = rank_targets(
        with_repeats(lambda start, stop: encoded[start:stop] @ vectors.T, items, offsets, repeats),
        held_out,
        allowed,
        exclude_seen=settings.evaluate.exclude_seen,
        top_k=1,
    )
    return accuracy(ranking.ranks, (10,), part="val")
