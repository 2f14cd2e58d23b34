"""Named baselines: what a model has to beat, with nothing trained by gradient.

- "popularity": training events of an item.
- "recent-popularity": the same of the newest days alone (recent_popularity.py).
- "transitions": what followed the newest items of a history.
- "item-neighbours": cosine of two items' sets of users, summed over the newest items of a history (item-item kNN).
- "ease": the closed-form linear autoencoder (arXiv 1905.03375), the 500 largest weights of an item; beyond 6,000 items
  each is told from its nearest alone.
- "text": cosine of text vectors with the mean of the newest items of a history.
- "text+transitions": both in one sum.

All of them learn from training histories alone.

Shapes: U users, V items (arrays by code have V + 1 entries).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from recsys.candidates.co_occurrence import TOGETHER, user_cosines
from recsys.candidates.linear import fit_within
from recsys.candidates.tables import KEPT
from recsys.candidates.transitions import transitions
from recsys.columns import PADDING
from recsys.data.recency import WHOLE, mean_weights, recency_weights
from recsys.data.sequences import Sequences
from recsys.evaluation import baselines as counting
from recsys.evaluation.compare import Scorer
from recsys.evaluation.ranking import ScoreBlock
from recsys.evaluation.recent_popularity import RecentPopularity


def baseline_scorers(
    names: Sequence[str],
    train: Sequences,
    histories: Sequences,
    popularity: np.ndarray,
    text: Callable[[], np.ndarray | None],
    recent: Callable[[], RecentPopularity] | None = None,
) -> dict[str, Scorer]:
    """Score users by the named baselines over the whole vocabulary, counted on training histories only.

    Parameters
    ----------
    names
        Any of those above.
    train, histories
        Histories that are counted, and histories that are scored.
    popularity
        float32 [V + 1], counted on `train`.
    text
        Function that gives float32 [V + 1, D] whitened text vectors (`baseline_text`), or None if no item has text:
        then the baselines that read it are left out. It is called only if needed.
    recent
        Function that gives the counts of "recent-popularity", called only if needed; None: it is left out.
    """
    size = len(popularity) - 1
    found: dict[str, ScoreBlock] = {}
    if "popularity" in names:
        found["popularity"] = counting.score_popularity(popularity)
    if "recent-popularity" in names and recent is not None:
        found["recent-popularity"] = counting.score_popularity(recent().counts)
    if {"transitions", "text", "text+transitions"} & set(names):
        weights = recency_weights(histories.items, histories.offsets, size)
    if {"transitions", "text+transitions"} & set(names):
        table = transitions(train.items, train.offsets, size)
        if "transitions" in names:
            found["transitions"] = counting.score_transitions(weights, table)
        vectors = text() if "text+transitions" in names else None
        if vectors is not None:
            found["text+transitions"] = counting.score_text_and_transitions(weights, table, vectors)
    if "item-neighbours" in names:
        together = user_cosines(train.items, train.offsets, size, kept=KEPT)
        every = mean_weights(histories.items, histories.offsets, size, last=TOGETHER, decay=1.0)
        found["item-neighbours"] = counting.score_transitions(every, together)
    if "ease" in names:
        linear = fit_within(train.items, train.offsets, size)
        whole = recency_weights(histories.items, histories.offsets, size, last=WHOLE, decay=1.0)
        found["ease"] = counting.score_transitions(whole, linear)
    everything = np.arange(size + 1) != PADDING
    scorers = {name: Scorer(score_block=block, allowed=everything) for name, block in found.items()}
    vectors = text() if "text" in names else None
    if vectors is not None:
        units, has_text = _units(vectors)
        queries = weights @ units  # its length changes no order
        scorers["text"] = Scorer(
            score_block=lambda start, stop: queries[start:stop] @ units.T, allowed=everything & has_text
        )
    return {name: scorers[name] for name in names if name in scorers}


def _units(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors at length 1, zeros where there is none, and bool [V + 1]: which there are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0), lengths[:, 0] > 0
