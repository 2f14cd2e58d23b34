"""A trained sequence model that answers."""

from __future__ import annotations

import numpy as np
import torch

from recsys.data.prepare import Dataset
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.features.hashing import HASHING
from recsys.features.precision import activation_dtype
from recsys.features.tables import MultiplexedTable
from recsys.models.base import Parts, Recommender
from recsys.models.sequential.bert4rec import TABLE, SequenceEncoder, encode_queries
from recsys.models.sequential.feature_encoders import Encoders, check_declared, unseen_values
from recsys.models.sequential.side import Side, SideFeatures, unknown_side
from recsys.settings import ModelSettings, Settings

ENCODER = "encoder."  # before the names of the encoder's weights


class SequenceRecommender(Recommender):
    """The encoder and the item vectors; of the item tower the table alone, where users or events have features.

    Attributes
    ----------
    encoders
        What features were encoded with in training.
    """

    bias_dims = 1

    def __init__(self, settings: Settings, parts: Parts) -> None:
        super().__init__(settings, parts)
        assert isinstance(settings.model, ModelSettings)
        self.model = settings.model
        self.encoders = Encoders.from_dict(parts.declared)
        self.encoder = load_encoder(settings.model, parts, self.encoders.side_features())
        table = torch.from_numpy(np.ascontiguousarray(parts.vectors[:, :-1]))
        self._table = table.to(activation_dtype(settings.train.precision))

    @property
    def repeats(self) -> np.ndarray | None:
        """float32 [L], added to the scores of the history's own items by steps back; None: nothing is."""
        return None if self.encoder.repeats is None else self.encoder.repeats().detach().numpy()

    def encode(self, histories: Sequences) -> np.ndarray:
        """float32 [U, D + 1], the last number 1; attributes or context that the histories lack are missing values."""
        side = self._side(histories)
        return encode_queries(
            self.encoder, self._table, histories.items, histories.offsets, self.model.max_length, side
        )

    def check_features(self, settings: Settings) -> None:
        """Refuse tables whose features are declared or hashed in another way than in training."""
        hashing = self.parts.declared.get("hashing", HASHING)
        if hashing != HASHING:
            raise InputError(
                f"The model hashes values in another way ({hashing}) than this program ({HASHING}); train "
                "again, or use the program's version that wrote it."
            )
        check_declared(self.encoders, settings, self.model)

    def unseen_values(self, dataset: Dataset) -> dict[str, int]:
        """Look-ups, by feature, of values that the training part does not have."""
        return unseen_values(self.encoders, dataset)

    def _side(self, histories: Sequences) -> Side | None:
        """Features that the encoder reads besides items, encoded where the histories have them."""
        encoders = self.encoders
        lacks = (
            encoders.users is not None and histories.attributes is None,
            encoders.context is not None and histories.context is None,
        )
        if not any(lacks):
            return encoders.side(histories)
        missing = unknown_side(encoders.side_features(), len(histories), len(histories.items))
        known = Encoders(users=None if lacks[0] else encoders.users, context=None if lacks[1] else encoders.context)
        found = known.side(histories) or Side()
        return Side(
            users=missing.users if lacks[0] else found.users, context=missing.context if lacks[1] else found.context
        )


def load_encoder(settings: ModelSettings, parts: Parts, side: SideFeatures) -> SequenceEncoder:
    """The encoder of a model's parts: its weights are those under `encoder.`; the table comes where `side` reads it."""
    table: MultiplexedTable | None = None
    if side:
        weight = parts.weights[TABLE]
        table = MultiplexedTable(*weight.shape)
        table.load_state_dict({"weight": weight})
    encoder = SequenceEncoder(settings, side, table)
    encoder.load_state_dict(
        {name.removeprefix(ENCODER): parts.weights[name] for name in parts.weights if name.startswith(ENCODER)}
    )
    return encoder.eval()
