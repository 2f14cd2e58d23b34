"""A Recformer's night: prepared data in, what a bundle needs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from recsys.data.consumed import Consumed
from recsys.data.prepare import Dataset
from recsys.data.sequences import HistoryVectors, Sequences
from recsys.data.splits import HeldOut, some_users
from recsys.errors import InputError
from recsys.features.tokens import ItemTokens
from recsys.features.whitening import Whitening
from recsys.models.recformer.catalogue_tokens import catalogue_tokens, item_attributes
from recsys.models.recformer.encode import best_dtype, encode_histories, item_table
from recsys.models.recformer.finetune import FineTuning
from recsys.models.recformer.model import Recformer
from recsys.models.recformer.start import Start, ready, start
from recsys.models.recformer.weights import ENCODER, aligned, declaration, extended, identity, unprojected, whitened
from recsys.models.sequential.loop import OnEpoch, OnResume, Training
from recsys.settings import RecformerSettings, Settings
from recsys.storage.warehouse import TableVersions
from recsys.training.checkpoint import Checkpoints
from recsys.training.fitted import Fitted

Metrics = Callable[[HistoryVectors, np.ndarray, np.ndarray, HeldOut, Settings, np.ndarray | None], dict[str, float]]


def fit_recformer(
    settings: Settings,
    versions: TableVersions,
    dataset: Dataset,
    metrics: Metrics,
    primary: str,
    on_epoch: OnEpoch | None = None,
    checkpoints: Checkpoints | None = None,
    on_resume: OnResume | None = None,
) -> Fitted:
    """Fine-tune the configured Recformer on the data set, or take it as it is.

    Parameters
    ----------
    metrics
        Of queries, item vectors, allowed items and numbers for what was had (or None) on a held-out set.
    primary
        The metric that decides which weights are best.

    Raises
    ------
    InputError
        `recformer.init` cannot be read, or no item has any text.
    """
    begun, catalogue, origin = start_on(settings, versions, dataset)
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
        metrics,
        primary,
        on_epoch,
        checkpoints,
        on_resume,
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
    return Fitted(weights=weights, declared=declared, vectors=table, allowed=catalogue.lengths > 0, outcome=outcome)


def fine_tune(
    model: Recformer,
    catalogue: ItemTokens,
    train: Sequences,
    held_out: HeldOut,
    settings: Settings,
    metrics: Metrics,
    primary: str,
    on_epoch: OnEpoch | None = None,
    checkpoints: Checkpoints | None = None,
    on_resume: OnResume | None = None,
) -> tuple[Training | None, np.ndarray]:
    """Fine-tune a model as the settings ask for, or take it as it is; the other arguments are as of `fit_recformer`.

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
    if not settings.recformer.fine_tune or not (settings.recformer.probe_epochs or settings.train.epochs):
        return None, item_table(model, catalogue, dtype=dtype)

    def validate(model: Recformer, table: np.ndarray) -> dict[str, float]:
        def queries(of: Sequences) -> np.ndarray:
            return encode_histories(model, catalogue, of.items, of.offsets, dtype=dtype)

        return metrics(queries, table, catalogue.lengths > 0, held_out, settings, repeats_of(model))

    tuning = FineTuning(
        model=model,
        catalogue=catalogue,
        items=train.items,
        offsets=train.offsets,
        train=settings.train,
        settings=settings.recformer,
        seed=settings.seed,
        validate=validate,
        primary=primary,
    )
    training, table = tuning.run(on_epoch, checkpoints, on_resume)
    return replace(training, validated=Consumed.asked(held_out)), table


def repeats_of(model: Recformer) -> np.ndarray | None:
    """The model's numbers by steps back for what was had, float32 [K]; None: it has none."""
    return None if model.repeats is None else model.repeats().detach().cpu().numpy()


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
    wanted = extended(begun.model, repeats=settings.model.repeats, follows=settings.recformer.follows)
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
