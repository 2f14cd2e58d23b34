"""A sequence model of a catalogue: its items as the tower reads them, its table's size, its first weights."""

from __future__ import annotations

import numpy as np
import torch

from recsys.bundles.bundle import Bundle
from recsys.data.prepare import Dataset
from recsys.features.multiplexed import by_feature, hash_values
from recsys.models.sequential.bert4rec import NO_SIDE, Bert4Rec
from recsys.models.sequential.feature_encoders import Encoders
from recsys.models.sequential.item_tower import Attribute, ItemFeatures
from recsys.models.sequential.settings import sequence_settings
from recsys.models.sequential.side import SideFeatures
from recsys.models.sequential.warm_start import grown_rows
from recsys.settings import ModelSettings, Settings
from recsys.text.catalogue import TextItems


def build_model(
    settings: Settings, features: ItemFeatures, previous: Bundle | None = None, side: SideFeatures = NO_SIDE
) -> Bert4Rec:
    """An untrained model over a catalogue; the seed fixes its weights, `previous` the size of its table."""
    rows = table_size(settings, features, previous, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Bert4Rec(features, sequence_settings(settings), rows, side)


def table_size(
    settings: Settings, features: ItemFeatures, previous: Bundle | None = None, side: SideFeatures = NO_SIDE
) -> int:
    """Rows of the model's table: as configured, after a warm start a multiple of the bundle's, or by the catalogue."""
    model = sequence_settings(settings)
    if model.table_rows is not None:
        return model.table_rows
    rows = table_rows(features, model, side)
    return rows if previous is None else grown_rows(rows, previous)


def table_rows(features: ItemFeatures, model: ModelSettings, side: SideFeatures = NO_SIDE) -> int:
    """Rows that give every value as many parameters as a table of its own would."""
    rows = side.rows + (features.size * model.id_lookups if model.ids else 0)
    for attribute in features.attributes.values():
        rows += len(torch.unique(attribute.hashes)) * attribute.feature.lookups
    return max(rows, 16)


def item_features(dataset: Dataset, encoders: Encoders, text: TextItems | None) -> ItemFeatures:
    """The catalogue as the item tower reads it."""
    ids = dataset.vocabulary.items.to_list()
    attributes = {}
    if encoders.attributes is not None:
        features = encoders.attributes.features
        values = by_feature(features, encoders.attributes.encode(dataset.catalogue))
        for feature in features:
            hashes, offsets = values[feature.name]
            # row 0, padding, has none
            attributes[feature.name] = Attribute(
                feature=feature, hashes=hashes, offsets=torch.cat([offsets.new_zeros(1), offsets])
            )
    return ItemFeatures(
        id_hashes=torch.from_numpy(np.concatenate([[0], hash_values(ids)])),
        trained=torch.from_numpy(dataset.trained_items()),
        attributes=attributes,
        text=None if text is None else torch.from_numpy(text.vectors),
    )
