"""Bundles and models, opened for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from recsys.bundles.bundle import Bundle
from recsys.data.sequences import Sequences
from recsys.models.base import Parts
from recsys.models.sequential.bert4rec import NO_SIDE, encode_queries
from recsys.models.sequential.feature_encoders import Encoders
from recsys.models.sequential.recommender import load_encoder
from recsys.models.sequential.side import Side, SideFeatures
from recsys.serving.recommender import recommender_of
from recsys.settings import ModelSettings


def queries_of(bundle: Bundle, items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """float32 [U, D]: vectors of histories of users of whom nothing else is known."""
    return recommender_of(bundle).encode(Sequences.nameless(items, offsets))


def encoders_of(bundle: Bundle) -> Encoders:
    """What a sequence model's features were encoded with."""
    return Encoders.from_dict(bundle.features())


def sequence_queries(
    settings: ModelSettings, weights: Mapping[str, torch.Tensor], vectors: np.ndarray, side: SideFeatures = NO_SIDE
) -> Callable[..., np.ndarray]:
    """(items, offsets, side) -> vectors of histories, of a sequence model's weights, in float32."""
    encoder = load_encoder(settings, Parts(vectors=vectors, allowed=vectors.any(axis=1), weights=weights), side)
    table = torch.from_numpy(vectors[:, :-1].copy())

    def queries(items: np.ndarray, offsets: np.ndarray, known: Side | None = None) -> np.ndarray:
        return encode_queries(encoder, table, items, offsets, settings.max_length, known)

    return queries
