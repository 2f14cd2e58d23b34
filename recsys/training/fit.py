"""One night's training: prepared data in, a bundle out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch

from features.multiplexed import hash_values
from recsys.bundle import read_bundle, write_bundle
from recsys.columns import ITEM_ID, SENTENCE, metric_name
from recsys.config import ModelSettings, Settings
from recsys.data.prepare import TITLE, Dataset, prepare
from recsys.data.splits import HeldOut
from recsys.data.warehouse import TableVersions
from recsys.errors import InputError
from recsys.evaluation.metrics import accuracy
from recsys.evaluation.ranking import rank_targets
from recsys.models.bert4rec import Bert4Rec, Queries, encode_queries
from recsys.models.item_tower import ItemFeatures
from recsys.models.text import TextItems, text_items
from recsys.represent import text_vectors
from recsys.training.loop import OnEpoch, Training, train

PRIMARY = metric_name("ndcg", 10, "val")  # decides which epoch is best
HASHING = "BLAKE2b-64 of the value's text, splitmix64 of it and the salt, modulo rows"


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What training did; JSON-friendly."""

    bundle: str  # path
    bundle_id: str
    epochs: int
    best_epoch: int
    parameters: int
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)  # an entry an epoch
    report: dict[str, Any] = field(default_factory=dict)  # counts of the prepared data


def fit(settings: Settings, versions: TableVersions, on_epoch: OnEpoch | None = None) -> FitReport:
    """Train the configured model on the tables at these versions and write its bundle.

    Parameters
    ----------
    settings, versions
        What the result depends on, and all of it: equal values give an equal bundle on one machine.
    on_epoch
        Called after every epoch with its metrics.

    Raises
    ------
    InputError
        The data do not allow the training that the settings ask for.
    """
    began = time.perf_counter()
    dataset = prepare(settings, versions)
    wants_text = settings.model.kind == "text" or settings.model.text
    text = item_text(settings, dataset) if wants_text else None
    outcome: Training | None = None
    if settings.model.kind == "text":
        if text is None:
            raise InputError('No item of the catalogue has any text; model.kind = "text" has nothing to go by.')
        weights: dict[str, Any] = {}
        features = {"text": _describe_text(settings, text)}
        vectors, allowed = text.vectors, text.allowed
    else:
        model = build_model(settings, dataset, text)
        outcome = train_model(model, settings, dataset, on_epoch)
        weights = dict(model.state_dict())
        features = _describe(settings, model, text)
        vectors, allowed = model.item_vectors()
    if text is not None and text.whitening is not None:
        weights |= text.whitening.to_tensors()
    bundle = write_bundle(
        settings.warehouse,
        settings=settings,
        vocabulary=dataset.vocabulary,
        catalogue=dataset.catalogue.select(ITEM_ID, TITLE),
        features=features,
        weights=weights,
        vectors=vectors,
        allowed=allowed,
        lineage={
            "interactions_version": versions.interactions,
            "items_version": versions.items,
            "data": dataset.digest,
            "seed": settings.seed,
        },
    )
    return FitReport(
        bundle=str(bundle),
        bundle_id=read_bundle(bundle, verify=False).id,
        epochs=outcome.epochs if outcome else 0,
        best_epoch=outcome.best_epoch if outcome else 0,
        parameters=sum(int(np.prod(tensor.shape)) for tensor in weights.values()),
        seconds=time.perf_counter() - began,
        history=outcome.history if outcome else [],
        report=dataset.report,
    )


def item_text(settings: Settings, dataset: Dataset) -> TextItems | None:
    """Whitened text vectors of the catalogue; None where the configuration has no text or no item has any."""
    sentences: pl.Series = dataset.catalogue[SENTENCE]
    if settings.items is None or not settings.items.text or (sentences.fill_null("") == "").all():
        return None
    return text_items(text_vectors(settings, sentences), settings.text.dimensions)


def build_model(settings: Settings, dataset: Dataset, text: TextItems | None) -> Bert4Rec:
    """An untrained model over the data set's catalogue; the seed fixes its weights."""
    features = item_features(dataset, settings.model, text)
    rows = settings.model.table_rows or table_rows(features, settings.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Bert4Rec(features, settings.model, rows)


def item_features(dataset: Dataset, model: ModelSettings, text: TextItems | None) -> ItemFeatures:
    """The catalogue as the item tower reads it."""
    ids = dataset.vocabulary.items.to_list()
    attributes = {}
    if model.attributes:
        for name in dataset.catalogue.columns[3:]:  # after item_id, title and sentence
            values = dataset.catalogue[name]
            attributes[name] = hash_lists(values.fill_null([]))
    return ItemFeatures(
        id_hashes=torch.from_numpy(np.concatenate([[0], hash_values(ids)])),
        trained=torch.from_numpy(dataset.trained_items()),
        attributes=attributes,
        text=None if text is None else torch.from_numpy(text.vectors),
    )


def hash_lists(values: pl.Series) -> tuple[torch.Tensor, torch.Tensor]:
    """(hashes int64 [T], offsets int64 [V + 2]) of List(String) values; row 0, padding, holds none.

    An item without a value holds the missing value.
    """
    lists = pl.DataFrame({"value": values}).with_columns(
        pl.when(pl.col("value").list.len() == 0)
        .then(pl.lit([None], pl.List(pl.String)))
        .otherwise(pl.col("value"))
        .alias("value")
    )["value"]
    flat = lists.explode()
    distinct = flat.unique(maintain_order=True)
    hashed = pl.DataFrame({"value": distinct, "hash": hash_values(distinct.to_list())})
    hashes = (
        flat.alias("value")
        .to_frame()
        .join(hashed, on="value", how="left", nulls_equal=True, maintain_order="left")["hash"]
    )
    offsets = np.concatenate([[0, 0], np.cumsum(lists.list.len().to_numpy())]).astype(np.int64)
    return torch.from_numpy(hashes.to_numpy().copy()), torch.from_numpy(offsets)


def table_rows(features: ItemFeatures, model: ModelSettings) -> int:
    """Rows that give every value as many parameters as a table of its own would."""
    rows = features.size * model.id_lookups if model.ids else 0
    for hashes, _ in features.attributes.values():
        rows += len(torch.unique(hashes)) * model.attribute_lookups
    return max(rows, 16)


def train_model(model: Bert4Rec, settings: Settings, dataset: Dataset, on_epoch: OnEpoch | None) -> Training:
    """Cloze training with validation on the held-out items, full ranking."""
    held_out = dataset.split.validation

    def validate(model: Bert4Rec) -> dict[str, float]:
        vectors, allowed = model.item_vectors()
        table = torch.from_numpy(vectors[:, :-1])

        def queries(items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
            return encode_queries(model.encoder, table, items, offsets, settings.model.max_length)

        return validation_metrics(queries, vectors, allowed, held_out, settings)

    return train(
        model,
        dataset.split.train.items,
        dataset.split.train.offsets,
        settings.train,
        seed=settings.seed,
        max_length=settings.model.max_length,
        validate=validate,
        primary=PRIMARY,
        on_epoch=on_epoch,
    )


def validation_metrics(
    queries: Queries, vectors: np.ndarray, allowed: np.ndarray, held_out: HeldOut, settings: Settings
) -> dict[str, float]:
    """HR, NDCG and MRR at 10 on a held-out set, named `val/…`."""
    encoded = queries(held_out.histories.items, held_out.histories.offsets)  # [U, D]
    ranking = rank_targets(
        lambda start, stop: encoded[start:stop] @ vectors.T,
        held_out,
        allowed,
        exclude_seen=settings.evaluate.exclude_seen,
        top_k=1,
    )
    return accuracy(ranking.ranks, (10,), part="val")


def _describe(settings: Settings, model: Bert4Rec, text: TextItems | None) -> dict[str, Any]:
    """The declaration of the tower's features, for `features.json`."""
    tower = model.tower
    return {
        "hashing": HASHING,
        "table": None if tower.table is None else {"rows": tower.table.rows, "width": tower.table.width},
        "ids": {"lookups": settings.model.id_lookups} if settings.model.ids else None,
        "attributes": {
            name: {"lookups": settings.model.attribute_lookups, "pooling": "mean"} for name in tower.attribute_names
        },
        "text": None if text is None else _describe_text(settings, text),
    }


def _describe_text(settings: Settings, text: TextItems) -> dict[str, Any]:
    assert settings.items is not None
    return {
        "model": settings.text.model,
        "attributes": list(settings.items.text),
        "dimensions": text.vectors.shape[1],
        "whitened": text.whitening is not None,
    }
