"""Text vectors after a warm start: a bundle's whitening fits the checkpoint it was fitted with, and no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.columns import SENTENCE
from recsys.errors import InputError
from recsys.features.whitening import Whitening
from recsys.models.sequential import estimator
from recsys.settings.read import parse_settings
from recsys.text import catalogue


def test_a_checkpoint_of_other_dimensions_than_the_bundles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse_settings(
        {
            "name": "test",
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.csv", "text": ["title"]},
            "text": {"model": "ours/encoder", "dimensions": 8},
        }
    )
    rng = np.random.default_rng(0)
    dataset: Any = SimpleNamespace(catalogue=pl.DataFrame({SENTENCE: ["a", "b", "c"]}))
    tensors = Whitening.fit(rng.normal(size=(40, 16)).astype(np.float32), 8).to_tensors()
    bundle: Any = SimpleNamespace(place="bundles/shop-1", weights=lambda: tensors)
    monkeypatch.setattr(estimator, "same_text", lambda *_: True)
    raw = rng.normal(size=(3, 16)).astype(np.float32)
    monkeypatch.setattr(catalogue, "text_vectors", lambda *_: raw)
    kept = estimator.item_text(settings, dataset, bundle)
    assert kept is not None and kept.vectors.shape == (4, 8)
    monkeypatch.setattr(catalogue, "text_vectors", lambda *_: raw[:, :12])
    with pytest.raises(InputError, match=r"bundles/shop-1, .* of 16 dimensions and ours/encoder now gives 12; bring"):
        estimator.item_text(settings, dataset, bundle)
