"""What a training hands over to the bundle, whichever model it trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys.data.feature_encoders import Encoders
from recsys.models.sequential.loop import Training


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What `write_bundle` and the report want; V items, D width.

    Attributes
    ----------
    weights
        Tensors by name; of a Recformer the tokenised catalogue is among them, for histories are read from it.
    declared
        For `features.json`.
    vectors, allowed
        float32 [V + 1, D] and bool [V + 1]: items that may be recommended.
    outcome
        None where nothing was trained.
    encoders
        Of the features that the model reads.
    warm_start
        What was copied from which bundle; None: nothing was.
    predicted_bytes
        Peak of memory that training was to take; 0 where nobody predicts it.
    """

    weights: dict[str, Any]
    declared: dict[str, Any]
    vectors: np.ndarray
    allowed: np.ndarray
    outcome: Training | None = None
    encoders: Encoders = field(default_factory=Encoders)
    warm_start: dict[str, Any] | None = None
    predicted_bytes: int = 0
