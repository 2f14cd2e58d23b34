"""One trial: a model is trained and measured on validation. It gets no test part, so it cannot read it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from recsys.data.asked import validation_questions
from recsys.data.prepare import Dataset
from recsys.models.base import Job, OnEpoch, Say
from recsys.models.registry import estimator_for
from recsys.night.fit import blend_of
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.training.checkpoint import Checkpoints
from recsys.training.validation import PRIMARY, validation_metrics


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Validation of a trial; JSON-friendly.

    Attributes
    ----------
    value
        NDCG@10 of what would serve: the blend, or the model where nothing is blended.
    serves
        Which of the two.
    model
        NDCG@10 of the model alone.
    """

    value: float
    serves: Literal["blend", "model"]
    model: float
    epochs: int
    best_epoch: int
    seconds: float


def without_test(dataset: Dataset) -> Dataset:
    """Return the data set without what test asks and without what came after: no test row is left in it."""
    split = dataset.split
    nobody = np.zeros(0, dtype=np.int64)
    return replace(
        dataset,
        split=replace(
            split,
            test=split.test.select(nobody),
            newcomers=None,
            serving=split.train,
            users_without_history=0,
            cold_targets=0,
        ),
    )


def measure(
    settings: Settings,
    versions: TableVersions,
    dataset: Dataset,
    *,
    checkpoints: Checkpoints | None = None,
    on_epoch: OnEpoch | None = None,
    say: Say = lambda _: None,
) -> Measured:
    """Train the configured model and measure it on validation; nothing of it is kept.

    Parameters
    ----------
    dataset
        As `without_test` gives it.
    on_epoch
        Called after every epoch with its entry of the history; what it raises ends the trial.

    Raises
    ------
    InputError
        The data or the machine do not allow this training.
    FloatingPointError
        The loss stopped being a number.
    """
    began = time.perf_counter()
    estimator = estimator_for(settings)
    start = estimator.origin().bundle
    job = Job(dataset=dataset, versions=versions, start=start, checkpoints=checkpoints, say=say, on_epoch=on_epoch)
    fitted = estimator.fit(job)
    model = estimator.recommender(settings, fitted.parts)
    _, blend = blend_of(settings, dataset, model)
    if blend is None or blend.validation is None:
        held_out = validation_questions(settings, dataset)
        alone = validation_metrics(model.encode, model.vectors, model.allowed, held_out, settings, model.repeats)
        value = own = alone[PRIMARY]
    else:
        own = blend.validation["model"][PRIMARY]
        value = blend.validation["blend"][PRIMARY] if blend.used else own
    outcome: Any = fitted.outcome
    return Measured(
        value=value,
        serves="blend" if blend is not None and blend.used else "model",
        model=own,
        epochs=outcome.epochs if outcome else 0,
        best_epoch=outcome.best_epoch if outcome else 0,
        seconds=time.perf_counter() - began,
    )
