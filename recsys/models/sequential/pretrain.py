"""One pre-training of a text-only sequence model: the warehouses of several catalogues in, a bundle out.

The catalogues become one, each item under `catalogue/id`. With `text.aligned` each is whitened by what it holds, in
axes that mean the same everywhere. Otherwise there is one whitening, fitted on all of them, which passes along:
principal axes of a catalogue's own would turn the same word into another direction in each shop. Negatives come from
the history's own catalogue. The bundle is a value for `train.warm_start` of a run on a catalogue that none of them is.

Shapes: V items of all catalogues, E width of the text encoder, D after whitening.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.nn import functional

from recsys.bundles.bundle import read_bundle
from recsys.bundles.store import publish_bundle, write_bundle
from recsys.columns import ITEM_ID, SENTENCE, TITLE
from recsys.data.prepare import Dataset, prepare
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, some_users
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.features.multiplexed import hash_values
from recsys.models.sequential.bert4rec import Bert4Rec, encode_queries
from recsys.models.sequential.build import build_model
from recsys.models.sequential.estimator import parts_of
from recsys.models.sequential.feature_encoders import Encoders
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.loop import train
from recsys.models.sequential.recommender import SequenceRecommender
from recsys.models.sequential.settings import sequence_settings
from recsys.settings import Settings, TextSettings
from recsys.settings.pretrain import PretrainSettings
from recsys.storage.warehouse import TableVersions
from recsys.text.catalogue import TextItems, text_items
from recsys.text.represent import text_vectors
from recsys.training.checkpoint import checkpoints_of
from recsys.training.outcome import OnEpoch
from recsys.training.pretrain_report import PretrainReport
from recsys.training.validation import PRIMARY, validation_metrics

VALIDATED = 2000  # users of each catalogue that validation asks

_Exam = tuple[torch.Tensor, np.ndarray, HeldOut]


def pretrain_sequence(
    settings: PretrainSettings,
    versions: Mapping[str, TableVersions],
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> PretrainReport:
    """Pre-train on the tables at these versions and publish the bundle under the configuration's name.

    Which epoch's weights are kept is decided on the held-out catalogues, or where there are none on the validation
    users of those that are learnt from.

    Raises
    ------
    InputError
        A catalogue has no text, or its sentences have not been encoded.
    """
    assert settings.model is not None
    began = time.perf_counter()
    datasets = {name: prepare(settings.catalogue(name), versions[name]) for name in settings.catalogues}
    raw = {name: _raw_vectors(settings, name, dataset) for name, dataset in datasets.items()}
    learnt = [name for name, catalogue in settings.catalogues.items() if not catalogue.held_out]
    text, texts = _whitened(raw, learnt, settings.text)
    vocabulary, catalogue, histories = united({name: datasets[name] for name in learnt}, settings)
    own = union_settings(settings, learnt[0])
    features = ItemFeatures(
        id_hashes=torch.from_numpy(np.concatenate([[0], hash_values(vocabulary.items.to_list())])),
        trained=torch.from_numpy(np.bincount(histories.items, minlength=vocabulary.size + 1) > 0),
        text=torch.from_numpy(text.vectors),
        firsts=torch.tensor(np.cumsum([1, *(datasets[name].vocabulary.size for name in learnt)])),
    )
    model = build_model(own, features)
    asked = [name for name in settings.catalogues if settings.catalogues[name].held_out] or learnt
    validate = _validation({name: _exam(settings, datasets[name], texts[name]) for name in asked}, own)
    tables = {name: asdict(version) for name, version in versions.items()}
    asks = [settings.digest(), sorted(tables.items())]
    checkpoints = checkpoints_of(settings.warehouse, "pretraining", asks, settings.sequence.checkpoint_minutes)
    resumed: int | None = None

    def on_resume(epoch: int, step: int) -> None:
        nonlocal resumed
        resumed = step
        say(f"Pre-training resumed at epoch {epoch}, step {step}.")

    say(f"Before pre-training validation NDCG@10 is {validate(model)[PRIMARY]:.4f}.")
    outcome = train(
        model,
        histories.items,
        histories.offsets,
        settings.sequence,
        seed=settings.seed,
        max_length=settings.model.max_length + 1,
        validate=validate,
        primary=PRIMARY,
        on_epoch=on_epoch,
        checkpoints=checkpoints,
        on_resume=on_resume,
    )
    counts = _counts(datasets, settings)
    parts = parts_of(model, own, Encoders(), text)
    folder = write_bundle(
        settings.warehouse,
        settings=own,
        vocabulary=vocabulary,
        catalogue=catalogue,
        features=parts.declared,
        weights=parts.weights,
        vectors=parts.vectors,
        allowed=parts.allowed,
        bias_dims=SequenceRecommender.bias_dims,
        lineage={
            "seed": settings.seed,
            "catalogues": counts,
            "versions": tables,
        },
    )
    publish_bundle(settings.warehouse, folder)
    if checkpoints is not None:
        checkpoints.remove()
    return PretrainReport(
        folder=str(folder),
        identity=read_bundle(folder, verify=False).id,
        steps=outcome.epochs,
        best_step=outcome.best_epoch,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=time.perf_counter() - began,
        catalogues=counts,
        history=outcome.history,
        resumed=resumed,
    )


def united(datasets: Mapping[str, Dataset], settings: PretrainSettings) -> tuple[Vocabulary, pl.DataFrame, Sequences]:
    """Several data sets as one: ids `catalogue/id`, item_id and title of each, and all histories that are learnt from.

    The codes of a catalogue follow those of the one before.
    """
    frames, users, items, lengths, before = [], [], [], [], 0
    for name, dataset in datasets.items():
        histories = _learnt_from(settings, name, dataset)
        frames.append(
            dataset.catalogue.select(pl.format(name + "/{}", pl.col(ITEM_ID).cast(pl.String)).alias(ITEM_ID), TITLE)
        )
        users += [f"{name}/{user}" for user in histories.users.to_list()]
        items.append(np.where(histories.items > 0, histories.items + before, 0).astype(np.int32))
        lengths.append(histories.lengths)
        before += dataset.vocabulary.size
    catalogue = pl.concat(frames)
    histories = Sequences(
        users=pl.Series("user_id", users),
        items=np.concatenate(items),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64),
    )
    return Vocabulary(catalogue[ITEM_ID]), catalogue, histories


def union_settings(settings: PretrainSettings, first: str) -> Settings:
    """Return what the bundle says of itself; its sources are those of the first catalogue that is learnt from."""
    assert settings.model is not None
    return settings.catalogue(first).model_copy(
        update={
            "name": settings.name,
            "warehouse": settings.warehouse,
            "model": settings.model,
            "train": settings.sequence,
        }
    )


def _raw_vectors(settings: PretrainSettings, name: str, dataset: Dataset) -> np.ndarray:
    sentences = dataset.catalogue[SENTENCE]
    if (sentences.fill_null("") == "").all():
        raise InputError(f"No item of the catalogue {name!r} has any text; leave it out, or name its attributes.")
    return text_vectors(settings.catalogue(name), sentences)


def _learnt_from(settings: PretrainSettings, name: str, dataset: Dataset) -> Sequences:
    """The histories of a catalogue: all events, or all but each user's last two."""
    return dataset.split.serving if settings.catalogues[name].whole else dataset.split.train


def _counts(datasets: Mapping[str, Dataset], settings: PretrainSettings) -> dict[str, dict[str, Any]]:
    """Return figures of each catalogue, for the report and the bundle's lineage."""
    counts = {}
    for name, dataset in datasets.items():
        histories = _learnt_from(settings, name, dataset)
        counts[name] = {
            "users": len(histories),
            "items": dataset.vocabulary.size,
            "events": len(histories.items),
            "held_out": settings.catalogues[name].held_out,
        }
    return counts


def _whitened(
    raw: Mapping[str, np.ndarray], learnt: list[str], settings: TextSettings
) -> tuple[TextItems, dict[str, TextItems]]:
    """The catalogues that are learnt from as one, and each catalogue, of raw text vectors [V, E]."""
    if settings.aligned:  # each catalogue whitened by what it holds
        texts = {name: text_items(raw[name], settings.dimensions, aligned=True) for name in raw}
        return _joined([texts[name] for name in learnt]), texts
    text = text_items(np.concatenate([raw[name] for name in learnt]), settings.dimensions)
    return text, {name: text_items(raw[name], None, text.whitening) for name in raw}


def _joined(texts: list[TextItems]) -> TextItems:
    """Catalogues one after the other; row 0 of all but the first, padding, is left out."""
    first, *others = texts
    return TextItems(
        vectors=np.concatenate([first.vectors, *(text.vectors[1:] for text in others)]),
        allowed=np.concatenate([first.allowed, *(text.allowed[1:] for text in others)]),
        whitening=None,
    )


def _exam(settings: PretrainSettings, dataset: Dataset, text: TextItems) -> _Exam:
    """Text vectors, allowed items and some validation users of a catalogue."""
    held_out = some_users(dataset.split.validation, VALIDATED, settings.seed)
    return torch.from_numpy(text.vectors), text.allowed, held_out


def _validation(exams: Mapping[str, _Exam], settings: Settings) -> Callable[[Bert4Rec], dict[str, float]]:
    """Return the validation of a model: metrics as means over the exams, and NDCG of each."""

    def validate(model: Bert4Rec) -> dict[str, float]:
        found = {name: _measured(model, settings, *exam) for name, exam in exams.items()}
        keys = next(iter(found.values()))
        of_each = {f"val/{name}_ndcg_at_10": one[PRIMARY] for name, one in found.items()}
        return {key: float(np.mean([one[key] for one in found.values()])) for key in keys} | of_each

    return validate


@torch.no_grad()
def _measured(
    model: Bert4Rec, settings: Settings, text: torch.Tensor, allowed: np.ndarray, held_out: HeldOut
) -> dict[str, float]:
    """HR, NDCG and MRR at 10 on a catalogue, of which the model knows the text vectors [V + 1, D] alone."""
    model.eval()
    assert model.tower.text_map is not None
    table = functional.normalize(model.tower.text_map(text), dim=-1)
    vectors, max_length = np.pad(table.numpy(), ((0, 0), (0, 1))), sequence_settings(settings).max_length

    def queries(of: Sequences) -> np.ndarray:
        return encode_queries(model.encoder, table, of.items, of.offsets, max_length)

    return validation_metrics(queries, vectors, allowed, held_out, settings)
