"""One night's training: prepared data in, a bundle out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.bundles.manifest import BLEND
from recsys.bundles.store import Part, write_bundle
from recsys.candidates.base import Source
from recsys.columns import ITEM_ID, TITLE
from recsys.data.consumed import Consumed
from recsys.data.prepare import Dataset
from recsys.data.splits import HeldOut
from recsys.data.withdrawals import Withdrawals
from recsys.models.base import Job, OnEpoch, Outcome, Recommender
from recsys.models.registry import estimator_for
from recsys.night.index import check_index, chosen_index, former_search
from recsys.night.news import begun
from recsys.night.solved import SOLVED, record_of, solved_before
from recsys.night.together import check_together, checkpoint_minutes, together_of, training_dataset
from recsys.ranking.blend import Blended
from recsys.ranking.fit import BlendReport, fit_blend
from recsys.retrieval.choice import IndexReport
from recsys.runs import step_key
from recsys.serving.fallback import PART as FALLBACK
from recsys.serving.fallback import Popular
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.training.checkpoint import Checkpoints, checkpoints_of
from recsys.training.learned_before import said_learned
from recsys.training.origin import BEST_EPOCH, STAGES, known_before, trained_until
from recsys.training.validation import validation_metrics


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """Report of a training; JSON-friendly."""

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
    chosen: dict[str, str] = field(default_factory=dict)  # what the configuration left to the program, by setting
    index: IndexReport | None = None  # how its vectors are searched


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
    check_index(settings)
    check_together(settings)
    dataset = training_dataset(settings, versions)
    withdrawals = Withdrawals(**dataset.report["withdrawals"])
    if withdrawals.rows:
        say(str(withdrawals))
    estimator = estimator_for(settings)
    origin = begun(settings, dataset, estimator.origin())
    known = None if origin.bundle is None else known_before(origin.bundle, settings, dataset.split)
    learned = said_learned(origin.bundle, settings, versions, dataset) if origin.bundle and known is None else None
    for told in (known, learned, origin.reason and f"Training starts from nothing: {origin.reason}"):
        if told is not None:
            say(told)
    resumed: dict[str, int] | None = None
    checkpoints = _checkpoints(settings, versions, dataset, origin.bundle) if estimator.learns else None

    def on_resume(epoch: int, step: int) -> None:
        nonlocal resumed
        resumed = {"epoch": epoch, "step": step}
        say(f"Training resumed at epoch {epoch}, step {step}.")

    fitted = estimator.fit(
        Job(
            dataset=dataset,
            versions=versions,
            start=origin.bundle,
            checkpoints=checkpoints,
            say=say,
            on_epoch=on_epoch,
            on_resume=on_resume,
            together=together_of(
                settings,
                versions,
                training_dataset,
                checkpoints,
                start=origin.bundle,
                on_epoch=on_epoch,
                on_resume=on_resume,
                say=say,
            ),
        )
    )
    parts, outcome = fitted.parts, fitted.outcome
    model = estimator.recommender(settings, parts)
    solved = solved_before(settings, dataset, origin.bundle if known is None else None)
    blended, blend = blend_of(settings, dataset, model, None if solved is None else solved.source)
    if blend is not None and solved is not None:
        blend = replace(blend, reason=f"{blend.reason} {solved.reason}")
    if blend is not None:
        say(blend.reason)
    consumed = _consumed(outcome, blend)
    index, searched = chosen_index(settings, dataset, model, parts.vectors, parts.allowed, former_search(origin.bundle))
    if searched.is_said:
        say(searched.reason)
    bundle = write_bundle(
        settings.warehouse,
        settings=settings,
        vocabulary=dataset.vocabulary,
        catalogue=dataset.catalogue.select(ITEM_ID, TITLE),
        features=parts.declared,
        weights=parts.weights,
        vectors=parts.vectors,
        allowed=parts.allowed,
        bias_dims=model.bias_dims,
        lineage={
            "interactions_version": versions.interactions,
            "items_version": versions.items,
            "data": dataset.digest,
            "seed": settings.seed,
            "warm_start": None if origin.bundle is None else origin.bundle.id,
            "consumed": consumed,
            BEST_EPOCH: outcome.best_epoch if outcome else None,
            STAGES: list(fitted.stages),
            "chosen": fitted.chosen,
            "trained_until": trained_until(dataset.split.train, origin.bundle),
            "known_before": known,
            SOLVED: record_of(solved, dataset),
        },
        more=parts_beside(dataset, blended, learns=estimator.learns),
        index=index,
    )
    if checkpoints is not None:
        checkpoints.remove()
    return FitReport(
        bundle=str(bundle),
        bundle_id=read_bundle(bundle, verify=False).id,
        epochs=outcome.epochs if outcome else 0,
        best_epoch=outcome.best_epoch if outcome else 0,
        parameters=sum(
            int(np.prod(tensor.shape)) for name, tensor in parts.weights.items() if not name.startswith("catalogue.")
        ),
        seconds=time.perf_counter() - began,
        history=outcome.history if outcome else [],
        report=dataset.report,
        predicted_bytes=fitted.predicted_bytes,
        consumed=consumed,
        resumed=resumed,
        warm_start=fitted.warm_start if origin.reason is None else {"bundle": None, "reason": origin.reason},
        blend=blend,
        chosen=fitted.chosen,
        index=searched,
    )


def parts_beside(dataset: Dataset, blended: Blended | None, *, learns: bool) -> dict[str, Part]:
    """Parts of a bundle beside its model: the blend, and what is recommended where the model says nothing.

    A bundle that learns from no event counts none either, so that it stays the same from day to day.
    """
    if blended is None and not learns:
        return {}
    parts: dict[str, Part] = {FALLBACK: Popular.fit(dataset.split.train, dataset.vocabulary.size)}
    return parts if blended is None else {**parts, BLEND: blended}


def _consumed(outcome: Outcome | None, blend: BlendReport | None) -> dict[str, Any]:
    """Return each consumer's digest for the bundle's lineage; None if nothing consumed anything."""
    found: dict[str, Consumed | None] = {
        "trained": None if outcome is None else outcome.trained,
        "validated": None if outcome is None else outcome.validated,
        "counted": None if blend is None else blend.counted,
        "weighed": None if blend is None else blend.weighed,
    }
    return {name: None if one is None else one.to_dict() for name, one in found.items()}


def blend_of(
    settings: Settings, dataset: Dataset, model: Recommender, former: Source | None = None
) -> tuple[Blended | None, BlendReport | None]:
    """Return the blend of the model with the other sources, measured beside the model alone on validation.

    `former`, where there is one, is a source that was fitted before and serves on.
    """

    def alone(held_out: HeldOut) -> dict[str, float]:
        return validation_metrics(model.encode, model.vectors, model.allowed, held_out, settings, model.repeats)

    measured = None if model.repeats is None else alone  # its vectors do not say all of it
    return fit_blend(settings, dataset, model.encode, model.vectors, model.allowed, measured, former=former)


def _checkpoints(
    settings: Settings, versions: TableVersions, dataset: Dataset, previous: Bundle | None
) -> Checkpoints | None:
    parts = [step_key(settings, "train"), asdict(versions), dataset.digest, previous and previous.id]
    return checkpoints_of(settings.warehouse, "training", parts, checkpoint_minutes(settings))
