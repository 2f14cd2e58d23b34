"""Recformer as a kind: prepared data in, what a bundle needs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from recsys.data.consumed import Consumed
from recsys.data.prepare import Dataset
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, some_users
from recsys.errors import InputError
from recsys.features.tokens import ItemTokens
from recsys.features.whitening import Whitening
from recsys.models.base import Estimator, Fitted, Job, OnEpoch, OnResume, Origin, Parts
from recsys.models.demand import TEXT_WIDTH, NightSizes
from recsys.models.recformer.catalogue_tokens import catalogue_tokens, item_attributes
from recsys.models.recformer.encode import best_dtype, encode_histories, item_table
from recsys.models.recformer.finetune import FineTuning
from recsys.models.recformer.model import Recformer
from recsys.models.recformer.recommender import RecformerRecommender, repeats_of
from recsys.models.recformer.start import Start, earlier_recformer, ready, start
from recsys.models.recformer.weights import ENCODER, aligned, declaration, extended, identity, unprojected, whitened
from recsys.settings import RecformerModelSettings, RecformerSettings, Settings
from recsys.storage.warehouse import TableVersions
from recsys.training.checkpoint import Checkpoints
from recsys.training.outcome import Training
from recsys.training.validation import PRIMARY, validation_metrics


class RecformerEstimator(Estimator):
    """A language model that reads items as text: fine-tuned on the data set, or taken as it is."""

    kind = "recformer"
    recommender = RecformerRecommender
    fixed_epochs = True

    def origin(self) -> Origin:
        """The bundle that `recformer.init` names, if it names one."""
        return Origin(bundle=earlier_recformer(self.settings))

    @property
    def reads_text(self) -> bool:
        """True: it reads the catalogue's sentences; what a text encoder makes of them is at hand for the blend."""
        return True

    def width(self, sizes: NightSizes) -> int:
        """The projection's, or the language model's where its settings tell."""
        settings = self.settings.recformer
        return settings.whitened or (settings.dimensions if settings.init is None else TEXT_WIDTH)

    def fit(self, job: Job) -> Fitted:
        """Fine-tune the configured Recformer, or take it as it is.

        Raises
        ------
        InputError
            `recformer.init` cannot be read, or no item has any text.
        """
        settings, dataset, checkpoints = self.settings, job.dataset, job.checkpoints
        if settings.split.same_time == "basket":
            job.say(
                "Recformer learns what comes next event by event, also inside a basket, and is measured by baskets."
            )
        begun, catalogue, origin = start_on(settings, job.versions, dataset)
        model = begun.model
        held_out = some_users(dataset.split.validation, settings.recformer.validation_users, settings.seed)
        if checkpoints is not None:  # weights that training starts from are part of what decides its result
            checkpoints = Checkpoints(checkpoints.folder / origin[:16], seconds=checkpoints.seconds)
        outcome, table = fine_tune(
            model,
            catalogue,
            dataset.split.train,
            held_out,
            settings,
            job.on_epoch,
            checkpoints,
            job.on_resume,
            job.epochs,
            job.stages,
        )
        assert settings.items is not None
        declared = declaration(model, begun.tokenizer) | {
            "attributes": list(settings.items.text),
            "attribute_tokens": settings.recformer.attribute_tokens,
            "truncated_values": catalogue.truncated,
            "empty_items": catalogue.empty,
            **begun.about,
        }
        weights = {f"{ENCODER}{name}": value for name, value in model.state_dict().items()}
        for name in ("tokens", "types", "offsets"):
            weights[f"catalogue.{name}"] = torch.from_numpy(getattr(catalogue, name))
        parts = Parts(vectors=table, allowed=catalogue.lengths > 0, weights=weights, declared=declared)
        return Fitted(parts=parts, outcome=outcome, stages=() if outcome is None else outcome.stages)


def fine_tune(
    model: Recformer,
    catalogue: ItemTokens,
    train: Sequences,
    held_out: HeldOut,
    settings: Settings,
    on_epoch: OnEpoch | None = None,
    checkpoints: Checkpoints | None = None,
    on_resume: OnResume | None = None,
    epochs: int | None = None,
    stages: Sequence[int] = (),
) -> tuple[Training | None, np.ndarray]:
    """Fine-tune a model as the settings ask for, or take it as it is; the other arguments are as of `Job`.

    Parameters
    ----------
    model
        Changed in place; ends with the best weights.
    train, held_out
        What is learnt from, and what validation asks.

    Returns
    -------
    training, table
        None where nothing was trained; the item table float32 [V + 1, E] that the weights go with.
    """
    dtype = best_dtype(settings.train.precision)
    planned = (settings.recformer.probe_epochs or settings.train.epochs) if epochs is None else epochs
    if not settings.recformer.fine_tune or not planned:
        return None, item_table(model, catalogue, dtype=dtype)

    def validate(model: Recformer, table: np.ndarray) -> dict[str, float]:
        def queries(of: Sequences) -> np.ndarray:
            return encode_histories(model, catalogue, of.items, of.offsets, dtype=dtype)

        return validation_metrics(queries, table, catalogue.lengths > 0, held_out, settings, repeats_of(model))

    tuning = FineTuning(
        model=model,
        catalogue=catalogue,
        items=train.items,
        offsets=train.offsets,
        train=settings.train,
        settings=settings.recformer,
        seed=settings.seed,
        validate=validate if epochs is None else None,
        primary=PRIMARY,
        fixed=epochs,
        stages=stages,
    )
    training, table = tuning.run(on_epoch, checkpoints, on_resume)
    return (training if epochs is not None else replace(training, validated=Consumed.asked(held_out))), table


def start_on(settings: Settings, versions: TableVersions, dataset: Dataset) -> tuple[Start, ItemTokens, str]:
    """The model to train, the tokens of the data set's catalogue, and the identity of what the model was made of.

    That identity is the same in every process; a whitening that an accelerator fitted may differ in its last bits.

    Raises
    ------
    InputError
        `recformer.init` cannot be read, or no item has any text.
    """
    assert settings.items is not None
    frame = item_attributes(settings, versions, dataset.vocabulary)
    begun = start(settings.recformer, [frame], settings.seed)
    catalogue = catalogue_tokens(
        settings.warehouse, frame, settings.items.text, begun.tokenizer, settings.recformer.attribute_tokens
    )
    if catalogue.empty == catalogue.size:
        raise InputError('No item of the catalogue has any text; model.kind = "recformer" has nothing to read.')
    return on_catalogue(begun, catalogue, settings), catalogue, identity(begun.model, begun.tokenizer)


def on_catalogue(begun: Start, catalogue: ItemTokens, settings: Settings) -> Start:
    """With the projection, the maps and the numbers that the settings ask for on this catalogue."""
    begun = with_projection(begun, catalogue, settings.recformer)
    assert isinstance(settings.model, RecformerModelSettings)
    wanted = extended(begun.model, repeats=settings.model.repeat_bias, follows=settings.recformer.transition_maps)
    return replace(begun, model=ready(wanted, settings.recformer))


def with_projection(begun: Start, catalogue: ItemTokens, settings: RecformerSettings) -> Start:
    """With a projection that begins as the whitening of the catalogue's vectors, where the settings want one.

    A projection that has been learnt stays, or is aligned with the catalogue.
    """
    if settings.whitened is None:
        return begun
    if begun.model.shape.projection is None:
        fitted = Whitening.fit(item_table(begun.model, catalogue), settings.whitened)
        return replace(begun, model=ready(whitened(begun.model, fitted), settings))
    if not settings.aligned:
        return begun
    states = item_table(unprojected(begun.model), catalogue)
    weight, bias = (getattr(begun.model.projection, part).detach().cpu().numpy() for part in ("weight", "bias"))
    vectors = (states @ weight.T + bias) * (states != 0).any(axis=1, keepdims=True)
    fitted = Whitening.fit(vectors, vectors.shape[1], aligned=True)
    return replace(begun, model=ready(aligned(begun.model, fitted), settings))
