"""What a model is asked to predict: the cloze objective of BERT4Rec.

Source: BERT4Rec (arXiv 1904.06690) section 3.6 and its public training configuration: hidden positions always become
[MASK], at least one a history; some histories hide only their last item, which is the question asked at inference.
Masking afresh at every step replaces the original's ten fixed copies of each history.

Shapes: B histories, L positions, P hidden positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.models.bert4rec import MASK, PADDING


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Cloze:
    """Hidden positions of a batch.

    Attributes
    ----------
    tokens
        int64 [B, L], MASK where hidden.
    positions
        int64 [P], indices into the flattened tokens.
    labels
        int64 [P], the item codes that stood there.
    """

    tokens: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def cloze(tokens: np.ndarray, rng: np.random.Generator, *, mask_probability: float, mask_last_share: float) -> Cloze:
    """Hide items of a batch of histories.

    Parameters
    ----------
    tokens
        int64 [B, L] item codes, padded on the left; every row holds at least one item.
    rng
        Source of randomness.
    mask_probability
        Share of a history's items hidden, rounded, at least one.
    mask_last_share
        Probability that a history hides its last item and nothing else.
    """
    present = tokens != PADDING
    lengths = present.sum(1)
    count = np.maximum(1, np.rint(lengths * mask_probability)).astype(np.int64)  # [B]
    draw = np.where(present, rng.random(tokens.shape, dtype=np.float32), np.float32(2))
    # the `count` smallest draws of each row: compare with the row's count-th smallest
    threshold = np.take_along_axis(np.sort(draw, axis=1), count[:, None] - 1, axis=1)
    hidden = draw <= threshold
    last_only = rng.random(len(tokens)) < mask_last_share
    hidden[last_only] = False
    hidden[last_only, -1] = True
    positions = np.flatnonzero(hidden)
    return Cloze(tokens=np.where(hidden, MASK, tokens), positions=positions, labels=tokens.ravel()[positions])
