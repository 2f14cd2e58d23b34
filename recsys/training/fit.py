"""One night's training: prepared data in, a bundle out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys.bundles.bundle import REPEATS, Bundle, of_histories, query_encoder, read_bundle
from recsys.bundles.store import write_bundle
from recsys.columns import ITEM_ID, SENTENCE, TITLE, metric_name
from recsys.data.consumed import Consumed
from recsys.data.feature_encoders import Encoders, fit_encoders
from recsys.data.prepare import Dataset, few_users, prepare
from recsys.data.sequences import HistoryVectors, Sequences
from recsys.data.splits import HeldOut
from recsys.data.withdrawals import Withdrawals
from recsys.errors import InputError
from recsys.evaluation.metrics import accuracy
from recsys.evaluation.ranking import rank_targets
from recsys.features.device import best_device
from recsys.features.multiplexed import HASHING, by_feature, hash_values
from recsys.features.precision import activation_dtype
from recsys.features.whitening import Whitening
from recsys.models.recformer.estimator import fit_recformer
from recsys.models.recformer.start import earlier_recformer
from recsys.models.repeats import STEP, with_repeats
from recsys.models.sequential.batches import windows
from recsys.models.sequential.bert4rec import NO_SIDE, Bert4Rec, encode_queries
from recsys.models.sequential.item_tower import Attribute, ItemFeatures
from recsys.models.sequential.loop import OnEpoch, OnResume, Training, train
from recsys.models.sequential.memory import GIB, Memory, Sizes, check_memory, free_memory
from recsys.models.sequential.next_basket import NextBasket
from recsys.models.sequential.side import Side, SideFeatures
from recsys.models.sequential.warm_start import (
    after_warm_start,
    earlier_bundle,
    grown_rows,
    known_before,
    same_text,
    start_from,
    trained_until,
)
from recsys.models.text.model import TextItems, text_items
from recsys.ranking.fit import BlendReport, fit_blend
from recsys.runs import step_key
from recsys.settings import ModelSettings, Settings
from recsys.storage.warehouse import TableVersions
from recsys.text.represent import text_vectors
from recsys.training.checkpoint import Checkpoints, checkpoints_of
from recsys.training.fitted import Fitted

PRIMARY = metric_name("ndcg", 10, "val")  # decides which epoch is best


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
    predicted_bytes: int = 0  # peak of memory that training was to take
    consumed: dict[str, Any] = field(default_factory=dict)  # events of each consumer, as the bundle's lineage has them
    resumed: dict[str, int] | None = None  # epoch and steps done in it where a killed training was taken up
    warm_start: dict[str, Any] | None = None  # what was copied from which bundle, or why nothing was
    blend: BlendReport | None = None  # of the model with the neighbour sources


def fit(
    settings: Settings,
    versions: TableVersions,
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> FitReport:
    """Train the configured model on the tables at these versions and write its bundle.

    A training that was killed goes on from its last checkpoint when the same is asked for again.

    Parameters
    ----------
    settings, versions
        What the result depends on, and all of it but for the bundle that a warm start begins with: equal values give
        an equal bundle on one machine, without an accelerator.
    on_epoch
        Called after every epoch with its metrics; after a resume first with those of the epochs before.
    say
        Called with a sentence on what the training starts from, or resumes at.

    Raises
    ------
    InputError
        The data do not allow the training that the settings ask for.
    """
    began = time.perf_counter()
    dataset = few_users(prepare(settings, versions), settings.train.users, settings.seed)
    withdrawals = Withdrawals(**dataset.report["withdrawals"])
    if withdrawals.rows:
        say(str(withdrawals))
    if settings.split.same_time == "basket" and settings.model.kind == "recformer":
        say("Recformer learns what comes next event by event, also inside a basket, and is measured by baskets.")
    previous, reason = earlier_bundle(settings)
    origin = earlier_recformer(settings) if settings.model.kind == "recformer" else previous
    known = None if origin is None else known_before(origin, settings, dataset.split)
    if known is not None:
        say(known)
    wants_text = settings.model.kind == "text" or (settings.model.kind == "bert4rec" and settings.model.text)
    text = item_text(settings, dataset, previous) if wants_text else None
    resumed: dict[str, int] | None = None
    checkpoints = _checkpoints(settings, versions, dataset, previous)

    def on_resume(epoch: int, step: int) -> None:
        nonlocal resumed
        resumed = {"epoch": epoch, "step": step}
        say(f"Training resumed at epoch {epoch}, step {step}.")

    if settings.model.kind == "text":
        fitted = _fit_text(settings, text)
    elif settings.model.kind == "recformer":
        fitted = fit_recformer(
            settings, versions, dataset, validation_metrics, PRIMARY, on_epoch, checkpoints, on_resume
        )
    else:
        if reason is not None:
            say(f"Training starts from nothing: {reason}")
        fitted = _fit_bert4rec(settings, dataset, text, previous, say, on_epoch, checkpoints, on_resume)
    weights, vectors, allowed, outcome = dict(fitted.weights), fitted.vectors, fitted.allowed, fitted.outcome
    if text is not None and text.whitening is not None:
        weights |= text.whitening.to_tensors()
    served = query_encoder(settings, fitted.declared, weights, vectors)
    queries, alone = of_histories(served, fitted.encoders), None
    if REPEATS in weights and settings.model.repeats and settings.blend.kind != "never":
        repeats = STEP * weights[REPEATS].detach().cpu().numpy()
        alone = validation_metrics(queries, vectors, allowed, dataset.split.validation, settings, repeats)
    blended, blend = fit_blend(settings, dataset, queries, vectors, allowed, alone)
    if blend is not None:
        say(blend.reason)
    consumed = _consumed(outcome, blend)
    bundle = write_bundle(
        settings.warehouse,
        settings=settings,
        vocabulary=dataset.vocabulary,
        catalogue=dataset.catalogue.select(ITEM_ID, TITLE),
        features=fitted.declared,
        weights=weights,
        vectors=vectors,
        allowed=allowed,
        lineage={
            "interactions_version": versions.interactions,
            "items_version": versions.items,
            "data": dataset.digest,
            "seed": settings.seed,
            "warm_start": None if previous is None else previous.id,
            "consumed": consumed,
            "trained_until": trained_until(dataset.split.train, origin),
            "known_before": known,
        },
        blended=blended,
    )
    if checkpoints is not None:
        checkpoints.remove()
    return FitReport(
        bundle=str(bundle),
        bundle_id=read_bundle(bundle, verify=False).id,
        epochs=outcome.epochs if outcome else 0,
        best_epoch=outcome.best_epoch if outcome else 0,
        parameters=sum(
            int(np.prod(tensor.shape)) for name, tensor in weights.items() if not name.startswith("catalogue.")
        ),
        seconds=time.perf_counter() - began,
        history=outcome.history if outcome else [],
        report=dataset.report,
        predicted_bytes=fitted.predicted_bytes,
        consumed=consumed,
        resumed=resumed,
        warm_start=fitted.warm_start if reason is None else {"bundle": None, "reason": reason},
        blend=blend,
    )


def _consumed(outcome: Training | None, blend: BlendReport | None) -> dict[str, Any]:
    """Return each consumer's digest for the bundle's lineage; None if nothing consumed anything."""
    found: dict[str, Consumed | None] = {
        "trained": None if outcome is None else outcome.trained,
        "validated": None if outcome is None else outcome.validated,
        "counted": None if blend is None else blend.counted,
        "weighed": None if blend is None else blend.weighed,
    }
    return {name: None if one is None else one.to_dict() for name, one in found.items()}


def _fit_text(settings: Settings, text: TextItems | None) -> Fitted:
    """The text recommender, which has nothing to train."""
    if text is None:
        raise InputError('No item of the catalogue has any text; model.kind = "text" has nothing to go by.')
    declared = {"text": _describe_text(settings, text)}
    return Fitted(weights={}, declared=declared, vectors=text.vectors, allowed=text.allowed)


def _fit_bert4rec(
    settings: Settings,
    dataset: Dataset,
    text: TextItems | None,
    previous: Bundle | None,
    say: Callable[[str], None],
    on_epoch: OnEpoch | None,
    checkpoints: Checkpoints | None,
    on_resume: OnResume,
) -> Fitted:
    """A sequence model over the multiplexed table, from nothing or from the bundle `previous`."""
    encoders = fit_encoders(settings, dataset, None if previous is None else previous.encoders)
    features, side = item_features(dataset, encoders, text), encoders.side_features(dataset.split.train)
    memory = _check_memory(settings, features, table_size(settings, features, previous, side), dataset, side)
    say(f"Training takes about {memory.peak / GIB:.1f} GiB of memory.")
    model = build_model(settings, features, previous, side)
    warm, planned = None, settings
    if previous is not None:
        events = np.bincount(dataset.split.train.items, minlength=features.size)
        warm = start_from(previous, model, features, settings, events, encoders.side(dataset.split.train))
        planned = after_warm_start(settings)
        say(str(warm))
    outcome: Training | None = None
    if planned.train.epochs:
        outcome = train_model(model, planned, dataset, encoders, on_epoch, checkpoints, on_resume)
    vectors, allowed = model.item_vectors()
    return Fitted(
        weights=dict(model.state_dict()),
        declared=describe(settings, model, encoders, text),
        vectors=vectors,
        allowed=allowed,
        outcome=outcome,
        encoders=encoders,
        warm_start=None if warm is None else warm.report(),
        predicted_bytes=memory.peak,
    )


def _checkpoints(
    settings: Settings, versions: TableVersions, dataset: Dataset, previous: Bundle | None
) -> Checkpoints | None:
    if settings.model.kind == "text":
        return None
    parts = [step_key(settings, "train"), asdict(versions), dataset.digest, previous and previous.id]
    return checkpoints_of(settings.warehouse, "training", parts, settings.train.checkpoint_minutes)


def item_text(settings: Settings, dataset: Dataset, previous: Bundle | None = None) -> TextItems | None:
    """Whitened text vectors of the catalogue; None where the configuration has no text or no item has any.

    After a warm start they are whitened as the weights of the bundle `previous` know them.
    """
    sentences: pl.Series = dataset.catalogue[SENTENCE]
    if settings.items is None or not settings.items.text or (sentences.fill_null("") == "").all():
        return None
    whitening = None
    if previous is not None and not settings.text.aligned and same_text(previous, settings):
        whitening = Whitening.from_tensors(previous.weights())
    raw = text_vectors(settings, sentences)
    if whitening is not None and previous is not None and len(whitening.mean) != raw.shape[1]:
        raise InputError(
            f"The bundle {previous.path}, from which train.warm_start begins, has text vectors of "
            f"{len(whitening.mean)} dimensions and {settings.text.model} now gives {raw.shape[1]}; bring its "
            "checkpoint back, or train once with --set train.warm_start=none."
        )
    return text_items(
        raw, settings.text.dimensions, whitening, equal=settings.text.whiten, aligned=settings.text.aligned
    )


def build_model(
    settings: Settings, features: ItemFeatures, previous: Bundle | None = None, side: SideFeatures = NO_SIDE
) -> Bert4Rec:
    """An untrained model over a catalogue; the seed fixes its weights, `previous` the size of its table."""
    rows = table_size(settings, features, previous, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Bert4Rec(features, settings.model, rows, side)


def table_size(
    settings: Settings, features: ItemFeatures, previous: Bundle | None = None, side: SideFeatures = NO_SIDE
) -> int:
    """Rows of the model's table: as configured, after a warm start a multiple of the bundle's, or by the catalogue."""
    if settings.model.table_rows is not None:
        return settings.model.table_rows
    rows = table_rows(features, settings.model, side)
    return rows if previous is None else grown_rows(rows, previous)


def _check_memory(
    settings: Settings, features: ItemFeatures, rows: int, dataset: Dataset, side: SideFeatures
) -> Memory:
    starts, ends = windows(dataset.split.train.offsets, settings.model.max_length)
    sizes = Sizes.of(features, rows, ends - starts, side)
    return check_memory(settings.model, settings.train, sizes, free_memory())


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


def table_rows(features: ItemFeatures, model: ModelSettings, side: SideFeatures = NO_SIDE) -> int:
    """Rows that give every value as many parameters as a table of its own would."""
    rows = side.rows + (features.size * model.id_lookups if model.ids else 0)
    for attribute in features.attributes.values():
        rows += len(torch.unique(attribute.hashes)) * attribute.feature.lookups
    return max(rows, 16)


def train_model(
    model: Bert4Rec,
    settings: Settings,
    dataset: Dataset,
    encoders: Encoders,
    on_epoch: OnEpoch | None = None,
    checkpoints: Checkpoints | None = None,
    on_resume: OnResume | None = None,
) -> Training:
    """Training with validation on the held-out items, full ranking; on the accelerator if there is one."""
    held_out = dataset.split.validation
    baskets = NextBasket(dataset.split.train) if settings.split.same_time == "basket" else None
    if baskets is not None and not (baskets.next >= 0).any():
        raise InputError(
            'No user has two baskets to train on, which split.same_time = "basket" needs; give longer histories, or '
            'use same_time = "order".'
        )
    training = train(
        model.to(best_device()),
        dataset.split.train.items,
        dataset.split.train.offsets,
        settings.train,
        seed=settings.seed,
        # a window of one more event asks as many next items as the encoder has positions
        max_length=settings.model.max_length + (settings.model.objective == "next-item" and baskets is None),
        validate=validation(settings, held_out, encoders.side(held_out.histories)),
        primary=PRIMARY,
        on_epoch=on_epoch,
        checkpoints=checkpoints,
        on_resume=on_resume,
        side=encoders.side(dataset.split.train),
        baskets=baskets,
    )
    model.cpu()  # whatever follows needs no accelerator
    return replace(training, validated=Consumed.asked(held_out))


def validation(
    settings: Settings, held_out: HeldOut, side: Side | None = None
) -> Callable[[Bert4Rec], dict[str, float]]:
    """`validation_metrics` of a model on its device, between epochs; `side` as `encode_queries` takes it."""
    device = best_device()

    def validate(model: Bert4Rec) -> dict[str, float]:
        vectors, allowed = model.item_vectors()
        table = torch.from_numpy(vectors[:, :-1]).to(device, activation_dtype(settings.train.precision, device))

        def queries(of: Sequences) -> np.ndarray:
            return encode_queries(model.encoder, table, of.items, of.offsets, settings.model.max_length, side)

        repeats = None if model.encoder.repeats is None else model.encoder.repeats().detach().cpu().numpy()
        return validation_metrics(queries, vectors, allowed, held_out, settings, repeats)

    return validate


def validation_metrics(
    queries: HistoryVectors,
    vectors: np.ndarray,
    allowed: np.ndarray,
    held_out: HeldOut,
    settings: Settings,
    repeats: np.ndarray | None = None,
) -> dict[str, float]:
    """HR, NDCG and MRR at 10 on a held-out set, named `val/…`; `repeats` as `with_repeats` takes them."""
    encoded = queries(held_out.histories)  # [U, D]
    items, offsets = held_out.histories.items, held_out.histories.offsets
    ranking = rank_targets(
        with_repeats(lambda start, stop: encoded[start:stop] @ vectors.T, items, offsets, repeats),
        held_out,
        allowed,
        exclude_seen=settings.evaluate.exclude_seen,
        top_k=1,
    )
    return accuracy(ranking.ranks, (10,), part="val")


def describe(settings: Settings, model: Bert4Rec, encoders: Encoders, text: TextItems | None) -> dict[str, Any]:
    """The declaration of the model's features, for `features.json`."""
    tower = model.tower
    return {
        "hashing": HASHING,
        "table": None if tower.table is None else {"rows": tower.table.rows, "width": tower.table.width},
        "ids": {"lookups": settings.model.id_lookups} if settings.model.ids else None,
        **encoders.to_dict(),
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
