"""The text recommender as a kind: item vectors are whitened text vectors, and there is nothing to train."""

from __future__ import annotations

import numpy as np
import torch

from recsys.errors import InputError
from recsys.models.base import Estimator, Fitted, Job, Parts
from recsys.models.history_mean import HistoryMean
from recsys.text.catalogue import describe_text, raw_vectors, whitened


class TextEstimator(Estimator):
    """An item is its whitened text vector, a history the mean of its newest items'."""

    kind = "text"
    recommender = HistoryMean
    learns = False

    def fit(self, job: Job) -> Fitted:
        """Whiten the catalogue's text vectors."""
        raw = raw_vectors(self.settings, job.dataset)
        if raw is None:
            raise InputError('No item of the catalogue has any text; model.kind = "text" has nothing to go by.')
        text = whitened(self.settings, raw)
        tensors = {} if text.whitening is None else text.whitening.to_tensors()
        return Fitted(
            parts=Parts(
                vectors=text.vectors.astype(np.float32, copy=False),
                allowed=text.allowed,
                weights={name: torch.as_tensor(value) for name, value in tensors.items()},
                declared={"text": describe_text(self.settings, text)},
            )
        )
