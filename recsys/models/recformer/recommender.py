"""A trained Recformer that answers."""

from __future__ import annotations

import numpy as np

from recsys.data.sequences import Sequences
from recsys.features.precision import activation_dtype
from recsys.features.tokens import ItemTokens
from recsys.models.base import Parts, Recommender
from recsys.models.recformer.encode import encode_histories
from recsys.models.recformer.model import Recformer, Shape
from recsys.models.recformer.weights import ENCODER
from recsys.settings import RecformerModelSettings, Settings


class RecformerRecommender(Recommender):
    """The language model and the catalogue's tokens, of which it reads histories."""

    def __init__(self, settings: Settings, parts: Parts) -> None:
        super().__init__(settings, parts)
        weights = parts.weights
        self.model = Recformer(Shape(**parts.declared["shape"]))
        self.model.load_state_dict(
            {name.removeprefix(ENCODER): weights[name] for name in weights if name.startswith(ENCODER)}
        )
        tokens, types, offsets = (weights[f"catalogue.{name}"].numpy() for name in ("tokens", "types", "offsets"))
        self.catalogue = ItemTokens(tokens=tokens, types=types, offsets=offsets)
        self.dtype = activation_dtype(settings.train.precision)

    @property
    def repeats(self) -> np.ndarray | None:
        """float32 [L], added to the scores of the history's own items by steps back; None: nothing is."""
        wanted = self.settings.model
        return repeats_of(self.model) if isinstance(wanted, RecformerModelSettings) and wanted.repeat_bias else None

    def encode(self, histories: Sequences) -> np.ndarray:
        """Unit vectors float32 [U, E] of the newest items' texts."""
        return encode_histories(self.model, self.catalogue, histories.items, histories.offsets, dtype=self.dtype)


def repeats_of(model: Recformer) -> np.ndarray | None:
    """The model's numbers by steps back for what was had, float32 [K]; None: it has none."""
    return None if model.repeats is None else model.repeats().detach().cpu().numpy()
