"""The sequence model as a kind: prepared data in, what a bundle needs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch

from recsys.bundles.bundle import Bundle
from recsys.data.asked import validation_questions
from recsys.data.consumed import Consumed
from recsys.data.prepare import Dataset
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut
from recsys.errors import InputError
from recsys.features.device import best_device, is_accelerator
from recsys.features.multiplexed import HASHING
from recsys.features.precision import activation_dtype
from recsys.features.whitening import Whitening
from recsys.machine import GIB, free_memory
from recsys.models.base import Estimator, Fitted, Job, OnEpoch, OnResume, Origin, Parts, Say, Together
from recsys.models.demand import Demand, NightSizes
from recsys.models.sequential.batches import windows
from recsys.models.sequential.bert4rec import Bert4Rec, encode_queries
from recsys.models.sequential.build import build_model, item_features, table_size
from recsys.models.sequential.choice import choose_precision, decided, loss_reason
from recsys.models.sequential.feature_encoders import Encoders, fit_encoders
from recsys.models.sequential.feature_report import feature_report
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.loop import Training, step_seconds, train, typical_length
from recsys.models.sequential.memory import Memory, Sizes, advice, check_memory, predict
from recsys.models.sequential.next_basket import NextBasket
from recsys.models.sequential.recommender import SequenceRecommender
from recsys.models.sequential.settings import sequence_settings
from recsys.models.sequential.side import Side, SideFeatures
from recsys.models.sequential.warm_start import after_warm_start, earlier_bundle, same_text, start_from
from recsys.runs import state_folder
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.text.catalogue import TextItems, describe_text, raw_vectors, whitened
from recsys.training.checkpoint import Checkpoints
from recsys.training.validation import PRIMARY, validation_metrics

AGAIN: Final = 6  # a refit that begins with the measured weights takes this part of the epochs that were best


class SequenceEstimator(Estimator):
    """A transformer over item vectors made of ids, attributes and text; from nothing or from an earlier bundle."""

    kind = "bert4rec"
    recommender = SequenceRecommender
    fixed_epochs = True
    divides = True

    def origin(self) -> Origin:
        """The bundle that `train.warm_start` asks for, or the reason why there is none."""
        return earlier_bundle(self.settings)

    def again(self, measured: Bundle, best_epoch: int) -> tuple[Bundle | None, int]:
        """From the measured weights, for a part of the epochs; they know all but the newest events already."""
        return measured, -(-best_epoch // AGAIN)

    def fit(self, job: Job) -> Fitted:
        """Train on windows of the training histories; the best epoch on validation is kept, or that of `job.epochs`."""
        settings, dataset, previous = self.settings, job.dataset, job.start
        text = item_text(settings, dataset, previous) if sequence_settings(settings).text else None
        encoders = fit_encoders(settings, dataset, None if previous is None else encoders_of(previous))
        features, side = item_features(dataset, encoders, text), encoders.side_features(dataset.split.train)
        memory = _check_memory(settings, features, table_size(settings, features, previous, side), dataset, side)
        job.say(f"Training takes about {memory.peak / GIB:.1f} GiB of memory.")
        model = build_model(settings, features, previous, side)
        warm, planned = None, settings
        if previous is not None:
            events = np.bincount(dataset.split.train.items, minlength=features.size)
            warm = start_from(previous, model, features, settings, events, encoders.side(dataset.split.train))
            planned = after_warm_start(settings, job.epochs)
            job.say(str(warm))
        outcome: Training | None = None
        if planned.train.epochs if job.epochs is None else job.epochs:
            outcome = train_model(
                model,
                _as_chosen(planned, job),
                dataset,
                encoders,
                job.on_epoch,
                job.checkpoints,
                job.on_resume,
                job.epochs,
                job.say,
                job.together,
            )
        return Fitted(
            parts=parts_of(model, settings, encoders, text),
            outcome=outcome,
            warm_start=None if warm is None else warm.report(),
            predicted_bytes=memory.peak,
            chosen={} if outcome is None else dict(outcome.chosen),
        )

    @property
    def planned_epochs(self) -> int | None:
        """As configured; after a warm start there are fewer, and whether there is one shows in training."""
        return None if self.settings.train.warm_start else self.settings.train.epochs

    @property
    def reads_text(self) -> bool:
        """Return whether text is one of the item tower's channels."""
        return sequence_settings(self.settings).text

    def width(self, sizes: NightSizes) -> int:
        """The encoder's width and the bias."""
        return sequence_settings(self.settings).dimensions + 1

    def demand(self, sizes: NightSizes) -> Demand:
        """The prediction that training itself makes, of the tables' sizes."""
        model, train, of = sequence_settings(self.settings), self.settings.train, training_sizes(self.settings, sizes)
        memory = predict(model, train, of)
        return Demand(peak=memory.peak, program=memory.program, advice=advice(model, train, of))

    def feature_report(self, versions: TableVersions, memory: float | None = None) -> dict[str, Any]:
        """See `recsys.models.sequential.feature_report`."""
        return feature_report(self.settings, versions, memory)


def parts_of(model: Bert4Rec, settings: Settings, encoders: Encoders, text: TextItems | None) -> Parts:
    """Parts of a trained model that a bundle keeps."""
    vectors, allowed = model.item_vectors()
    weights = dict(model.state_dict())
    if text is not None and text.whitening is not None:
        weights |= {name: torch.as_tensor(value) for name, value in text.whitening.to_tensors().items()}
    declared = describe(settings, model, encoders, text)
    return Parts(vectors=vectors, allowed=allowed, weights=weights, declared=declared)


def encoders_of(bundle: Bundle) -> Encoders:
    """Return the encoders of a sequence model's bundle."""
    return Encoders.from_dict(bundle.features())


def item_text(settings: Settings, dataset: Dataset, previous: Bundle | None = None) -> TextItems | None:
    """Whitened text vectors of the catalogue; None where the configuration has no text or no item has any.

    After a warm start they are whitened as the weights of the bundle `previous` know them.
    """
    raw = raw_vectors(settings, dataset)
    if raw is None:
        return None
    whitening = None
    if previous is not None and not settings.text.aligned and same_text(previous, settings):
        whitening = Whitening.from_tensors(previous.weights())
    if whitening is not None and previous is not None and len(whitening.mean) != raw.shape[1]:
        raise InputError(
            f"The bundle {previous.place}, from which train.warm_start begins, has text vectors of "
            f"{len(whitening.mean)} dimensions and {settings.text.model} now gives {raw.shape[1]}; bring its "
            "checkpoint back, or train once with --set train.warm_start=none."
        )
    return whitened(settings, raw, whitening)


def training_sizes(settings: Settings, sizes: NightSizes) -> Sizes:
    """The sizes that decide the training's memory, of those of a night."""
    model = sequence_settings(settings)
    starts, ends = windows(np.concatenate([[0], np.cumsum(np.maximum(sizes.learnt - 2, 0))]), model.max_length)
    wanted = model.attributes
    rows = (sizes.items + 1) * model.id_lookups * model.ids + sizes.values * model.attribute_lookups * wanted
    return Sizes(
        items=sizes.items,
        rows=model.table_rows or max(rows, 16),
        attributes=sizes.attributes * wanted,
        text=sizes.text_width(settings) if model.text else 0,
        windows=len(starts),
        length=int((ends - starts).max(initial=0)),
        mixed=len(np.unique(ends - starts)) > 1,
    )


def _as_chosen(settings: Settings, job: Job) -> Settings:
    """The settings; where a measured model is trained again, with what was chosen for it."""
    recorded = None if job.epochs is None or job.start is None else job.start.manifest["lineage"].get("chosen")
    if not recorded:
        return settings
    kept = {name: recorded[name] for name in ("loss", "precision") if getattr(settings.train, name) == "auto"}
    return settings.model_copy(update={"train": settings.train.model_copy(update=kept)})


def _check_memory(
    settings: Settings, features: ItemFeatures, rows: int, dataset: Dataset, side: SideFeatures
) -> Memory:
    model = sequence_settings(settings)
    starts, ends = windows(dataset.split.train.offsets, model.max_length)
    sizes = Sizes.of(features, rows, ends - starts, side)
    return check_memory(model, settings.train, sizes, free_memory())


def train_model(
    model: Bert4Rec,
    settings: Settings,
    dataset: Dataset,
    encoders: Encoders,
    on_epoch: OnEpoch | None = None,
    checkpoints: Checkpoints | None = None,
    on_resume: OnResume | None = None,
    epochs: int | None = None,
    say: Say = lambda _: None,
    together: Together | None = None,
) -> Training:
    """Training with validation on the held-out items, full ranking; on the accelerator if there is one.

    `epochs` and `together` as of `Job`. `say` tells what was chosen for the training.
    """
    held_out, asked = validation_questions(settings, dataset), sequence_settings(settings)
    baskets = NextBasket(dataset.split.train) if settings.split.same_time == "basket" else None
    if baskets is not None and not (baskets.next >= 0).any():
        raise InputError(
            'No user has two baskets to train on, which split.same_time = "basket" needs; give longer histories, or '
            'use same_time = "order".'
        )
    train_part, model = dataset.split.train, model.to(best_device())
    # a window of one more event asks as many next items as the encoder has positions
    max_length = asked.max_length + (asked.objective == "next-item" and baskets is None)
    side = encoders.side(train_part)
    settings = _chosen(settings, model, train_part, max_length, side, baskets, say)
    if together is not None:
        together(settings.train.precision)
        on_epoch = on_resume = None  # told of already
    training = train(
        model,
        train_part.items,
        train_part.offsets,
        settings.train,
        seed=settings.seed,
        max_length=max_length,
        validate=None if epochs is not None else validation(settings, held_out, encoders.side(held_out.histories)),
        primary=PRIMARY,
        epochs=epochs,
        on_epoch=on_epoch,
        checkpoints=checkpoints,
        on_resume=on_resume,
        side=side,
        baskets=baskets,
    )
    model.cpu()  # whatever follows needs no accelerator
    return training if epochs is not None else replace(training, validated=Consumed.asked(held_out))


def _chosen(
    settings: Settings,
    model: Bert4Rec,
    histories: Sequences,
    max_length: int,
    side: Side | None,
    baskets: NextBasket | None,
    say: Say,
) -> Settings:
    """The settings with loss and precision chosen, and said why where it is not the configuration that chose."""
    items, train_settings = len(model.output_bias) - 1, settings.train
    reasons = [loss_reason(train_settings, items)]
    if not is_accelerator(model.output_bias.device):
        starts, _ = windows(histories.offsets, max_length)
        batches = -(-len(starts) // train_settings.batch_size)
        shape = {
            "windows": min(train_settings.batch_size, len(starts)),
            "length": typical_length(histories.offsets, max_length),
            "items": items.bit_length(),  # of a catalogue that grows a little, a step takes the same
        }
        choice = choose_precision(
            decided(train_settings, items),
            sequence_settings(settings),
            shape,
            train_settings.epochs * batches,
            state_folder(settings.warehouse),
            lambda: step_seconds(
                model,
                histories.items,
                histories.offsets,
                train_settings,
                seed=settings.seed,
                max_length=max_length,
                side=side,
                baskets=baskets,
            ),
        )
        train_settings = train_settings.model_copy(update={"precision": choice.precision})
        reasons.append(choice.reason)
    for reason in reasons:
        if reason is not None:
            say(reason)
    return settings.model_copy(update={"train": decided(train_settings, items)})


def validation(
    settings: Settings, held_out: HeldOut, side: Side | None = None
) -> Callable[[Bert4Rec], dict[str, float]]:
    """`validation_metrics` of a model on its device, between epochs; `side` as `encode_queries` takes it."""
    device, max_length = best_device(), sequence_settings(settings).max_length

    def validate(model: Bert4Rec) -> dict[str, float]:
        vectors, allowed = model.item_vectors()
        table = torch.from_numpy(vectors[:, :-1]).to(device, activation_dtype(settings.train.precision, device))

        def queries(of: Sequences) -> np.ndarray:
            return encode_queries(model.encoder, table, of.items, of.offsets, max_length, side)

        repeats = None if model.encoder.repeats is None else model.encoder.repeats().detach().cpu().numpy()
        return validation_metrics(queries, vectors, allowed, held_out, settings, repeats)

    return validate


def describe(settings: Settings, model: Bert4Rec, encoders: Encoders, text: TextItems | None) -> dict[str, Any]:
    """The declaration of the model's features, for `features.json`."""
    tower, asked = model.tower, sequence_settings(settings)
    return {
        "hashing": HASHING,
        "table": None if tower.table is None else {"rows": tower.table.rows, "width": tower.table.width},
        "ids": {"lookups": asked.id_lookups} if asked.ids else None,
        **encoders.to_dict(),
        "text": None if text is None else describe_text(settings, text),
    }
