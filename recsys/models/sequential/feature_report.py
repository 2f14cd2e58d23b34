"""Report what each feature of a configuration takes of the multiplexed table, and what would suit a memory budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from recsys.data.prepare import prepare
from recsys.errors import InputError
from recsys.features.collisions import BYTES, Suggestion, Use, suggest, table_use, unseen
from recsys.models.sequential.build import item_features, table_rows
from recsys.models.sequential.feature_encoders import fit_encoders, unseen_values
from recsys.models.sequential.item_tower import ID_FEATURE, ItemFeatures
from recsys.models.sequential.settings import sequence_settings
from recsys.settings import ModelSettings, Settings
from recsys.storage.warehouse import TableVersions

SHARES: Final = (1.0, 0.5, 0.25, 0.1)  # of the memory of tables without collisions
MEGABYTE: Final = 1_000_000
_FEWEST_ROWS: Final = 16  # that a configuration can ask for


def feature_report(settings: Settings, versions: TableVersions, memory: float | None = None) -> dict[str, Any]:
    """Collisions, costs and suggestions for a data set's features; JSON-friendly.

    Parameters
    ----------
    settings, versions
        The configuration, and the tables it is about.
    memory
        (MB) of the table's weights that look-ups and rows are suggested for; None: what tables without collisions
        would take.

    Returns
    -------
    dict
        `table`: rows, width, bytes, the share of rows in use. `features`: for each its distinct values, look-ups,
        rows, collisions counted and expected, parameters and bytes of its rows, and how many look-ups are of values
        that the training part does not have: of items without training interactions, and of the users and events of
        the test histories. `suggestion`: for the memory asked for.
        `budgets`: the same at shares of the collisionless memory.

    Raises
    ------
    InputError
        The data do not suit the configuration, no feature uses the table, or the memory is too small.
    """
    model = sequence_settings(settings)
    dataset = prepare(settings, versions)
    encoders = fit_encoders(settings, dataset)
    features, side = item_features(dataset, encoders, None), encoders.side_features(dataset.split.train)
    of_side = encoders.side(dataset.split.train)
    values = hashed_values(features, model) | ({} if of_side is None else of_side.values(side))
    if not values:
        raise InputError(
            f"{settings.name} has no feature in the multiplexed table: model.ids, model.attributes and "
            "model.user_attributes are off or nothing is declared for them, and model.context is empty; switch one on."
        )
    width = model.dimensions // model.id_lookups
    lookups = {feature.name: feature.lookups for part in encoders.features().values() for feature in part}
    lookups[ID_FEATURE] = model.id_lookups
    wanted = table_rows(features, model, side)
    use = table_use(values, lookups, model.table_rows or wanted)
    unseen_ids = unseen(features.id_hashes[features.trained], features.id_hashes[1:]) * model.id_lookups
    unseen_of = {ID_FEATURE: unseen_ids} | unseen_values(encoders, dataset)
    counts = {entry.feature: entry.values for entry in use.features}
    collisionless = wanted * width * BYTES
    budget = max(collisionless, _least(model)) if memory is None else round(memory * MEGABYTE)
    return {
        "name": settings.name,
        "table": {
            "rows": use.rows,
            "width": width,
            "bytes": use.rows * width * BYTES,
            "collisionless_bytes": collisionless,
            "used_share": use.used_share,
        },
        "features": [_of_feature(entry, width) | {"unseen": unseen_of[entry.feature]} for entry in use.features],
        "suggestion": _suggested(counts, model, budget),
        "budgets": [
            {"share": share} | _suggested(counts, model, max(round(share * collisionless), _least(model)))
            for share in SHARES
        ],
    }


def hashed_values(features: ItemFeatures, model: ModelSettings) -> dict[str, Tensor]:
    """Hashes of each feature that the item tower looks up, padding left out."""
    values: dict[str, Tensor] = {ID_FEATURE: features.id_hashes[1:]} if model.ids else {}
    return values | {name: attribute.hashes for name, attribute in features.attributes.items()}


def _of_feature(use: Use, width: int) -> dict[str, Any]:
    parameters = use.rows * width
    return dataclasses.asdict(use) | {"parameters": parameters, "bytes": parameters * BYTES}


def _suggested(values: Mapping[str, int], model: ModelSettings, memory: int) -> dict[str, Any]:
    """The suggestion as settings of `[model]`, where all attributes have one number of look-ups."""
    if memory < _least(model):
        raise InputError(
            f"{memory / MEGABYTE:g} MB hold fewer than {_FEWEST_ROWS} rows of the table; allow at least "
            f"{_least(model) / MEGABYTE:.3f} MB."
        )
    ids = (ID_FEATURE,) if model.ids else ()
    found: Suggestion = suggest(values, memory, model.dimensions, ids)
    of_attributes = [count for name, count in found.lookups.items() if name not in ids]
    return {
        "memory": memory,
        "bytes": found.bytes,
        "id_lookups": found.lookups.get(ID_FEATURE),
        "attribute_lookups": max(of_attributes, default=None),
        "table_rows": found.rows,
        "confused_expected": found.confused_expected,
    }


def _least(model: ModelSettings) -> int:
    """Bytes of the smallest table."""
    return _FEWEST_ROWS * model.dimensions * BYTES
