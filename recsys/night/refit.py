"""The served bundle: made of the measured one and of all events, those that were held out too.

A night chooses on validation, measures on test, and refits with what was chosen. Figures belong to the measured
bundle; the candidates come from the refitted one, which nothing can be measured with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.bundles.manifest import BLEND
from recsys.bundles.store import REFIT, measured_bundle, write_bundle
from recsys.columns import ITEM_ID, TITLE
from recsys.data.prepare import Dataset
from recsys.data.whole import in_codes_of, whole_dataset
from recsys.errors import InputError
from recsys.models.base import Job, OnEpoch
from recsys.models.registry import estimator_for
from recsys.night.fit import parts_beside
from recsys.night.index import chosen_index
from recsys.night.solved import SOLVED, record_of, served_before, solved_before
from recsys.night.together import check_together, checkpoint_minutes, served_dataset, together_of
from recsys.ranking.recount import recounted
from recsys.retrieval.choice import IndexReport
from recsys.runs import step_key
from recsys.serving.fallback import PART as FALLBACK
from recsys.serving.recommender import BundleRecommender, open_bundle
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.training.checkpoint import checkpoints_of
from recsys.training.origin import BEST_EPOCH, STAGES, trained_until

# of [train] and [recformer]: what a refit need not share with the training that was measured
_FREE: Final = {"refit", "checkpoint_minutes", "warm_start", "warm_epochs", "warm_share"}


@dataclass(frozen=True, kw_only=True)
class RefitReport:
    """Report of a refit; JSON-friendly.

    Attributes
    ----------
    bundle, bundle_id
        Path and id of the bundle to serve.
    measured
        Path of the bundle that it was made of, whose figures stand for both.
    kind
        "all", "counts", or "none" where both are the same.
    reason
        A sentence on what was done, or why less than was asked for.
    epochs
        That were trained.
    history
        An entry an epoch.
    report
        Counts of all events.
    predicted_bytes
        Peak of memory that training was to take.
    consumed
        As the bundle's lineage has it: events of each consumer.
    resumed
        Epoch and steps done in it where a killed training was taken up.
    index
        How its vectors are searched; None: as the measured one's, which are the same.
    """

    bundle: str
    bundle_id: str
    measured: str
    kind: str
    reason: str
    seconds: float
    epochs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    predicted_bytes: int = 0
    consumed: dict[str, Any] = field(default_factory=dict)
    resumed: dict[str, int] | None = None
    index: IndexReport | None = None


def refit(
    settings: Settings,
    versions: TableVersions,
    bundle: str | Path,
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> RefitReport:
    """Make the served bundle of a measured one and all events of the tables at these versions; `train.refit` says how.

    Parameters
    ----------
    bundle
        The measured one; for one that was refitted, that which it was made of.
    on_epoch
        Called after every epoch with its entry of the history; after a resume first with those of the epochs before.
    say
        Called with a sentence on what is done.

    Raises
    ------
    InputError
        Not a sound bundle, one of other features or settings, or one that does not say for how long it was trained.
    """
    began = time.perf_counter()
    path = measured_bundle(bundle)
    measured = open_bundle(path)
    measured.check_features(settings)
    kind, reason = _kind(settings, measured)
    if kind == "none":
        say(reason)
        opened = measured.bundle
        return RefitReport(
            bundle=str(path),
            bundle_id=opened.id,
            measured=str(path),
            kind=kind,
            reason=reason,
            seconds=time.perf_counter() - began,
        )
    dataset = whole_dataset(settings, versions, measured.bundle.vocabulary)
    if kind == "counts":
        report = _recounted(settings, versions, measured, dataset, reason)
    else:
        report = _retrained(settings, versions, measured, dataset, on_epoch, say)
    say(report.reason)
    return replace(report, seconds=time.perf_counter() - began)


def _kind(settings: Settings, measured: BundleRecommender) -> tuple[str, str]:
    """Return what can be done of `train.refit` with this bundle, and a sentence on it."""
    wanted, bundle, prefix = settings.train.refit, measured.bundle, ""
    if wanted == "none":
        return "none", 'What was measured is served: train.refit = "none".'
    if wanted == "all":
        estimator, lineage = estimator_for(settings), bundle.manifest["lineage"]
        _check_chosen(settings, bundle)
        if BEST_EPOCH not in lineage:
            raise InputError(
                f"The bundle {bundle.place} is of an earlier version and does not say which epoch was its best, so it "
                'cannot be trained again on all events; train again, or set train.refit = "counts".'
            )
        if lineage["consumed"]["trained"] is None:  # what it knows, nothing here can teach it again
            prefix = "The model has learnt from no event. "
        elif not lineage[BEST_EPOCH] or estimator.fixed_epochs:
            return "all", ""
        else:
            prefix = f'model.kind = "{bundle.kind}" cannot be trained for a number of epochs that is given. '
    if measured.blended is None or not bundle.settings.blend.counts:
        return "none", f"{prefix}What was measured is served: it has no blend whose counts could be of all events."
    return "counts", prefix


def _recounted(
    settings: Settings, versions: TableVersions, measured: BundleRecommender, dataset: Dataset, prefix: str
) -> RefitReport:
    """Write the measured bundle's model with a blend that counted all events of the items that it knows."""
    bundle, blended = measured.bundle, measured.blended
    assert blended is not None
    known = in_codes_of(dataset, bundle.vocabulary)
    again, counted = recounted(blended, _with_blend_of(settings, bundle), known, new_items=False)
    lineage = bundle.manifest["lineage"]
    consumed = {**(lineage.get("consumed") or {}), "counted": counted.to_dict()}
    left_out = len(dataset.split.train.items) - len(known.split.train.items)
    path = write_bundle(
        settings.warehouse,
        settings=bundle.settings.model_copy(
            update={"name": settings.name, "train": bundle.settings.train.model_copy(update={"refit": "counts"})}
        ),
        vocabulary=bundle.vocabulary,
        catalogue=bundle.catalogue,
        features={name: value for name, value in bundle.features().items() if name not in (BLEND, FALLBACK)},
        weights=bundle.weights(),
        vectors=bundle.vectors,
        allowed=bundle.allowed,
        bias_dims=bundle.bias_dims,
        lineage={
            **lineage,
            **_tables(versions),
            "consumed": consumed,
            "trained_until": trained_until(known.split.train, bundle),
            SOLVED: record_of(None, known),
            REFIT: {"kind": "counts", "measured": bundle.label},
        },
        more=parts_beside(known, again, learns=True),
        index=bundle.index(),
    )
    unknown = f", but for {left_out:,} of items that it does not know" if left_out else ""
    return RefitReport(
        bundle=str(path),
        bundle_id=read_bundle(path, verify=False).id,
        measured=str(bundle.path),
        kind="counts",
        reason=f"{prefix}The served bundle counts all {counted.events:,} events{unknown}; its model is as measured.",
        seconds=0.0,
        report={**dataset.report, "unknown_events": left_out},
        consumed=consumed,
    )


def _retrained(
    settings: Settings,
    versions: TableVersions,
    measured: BundleRecommender,
    dataset: Dataset,
    on_epoch: OnEpoch | None,
    say: Callable[[str], None],
) -> RefitReport:
    """Train on all events as was chosen, and count them."""
    bundle, blended, estimator = measured.bundle, measured.blended, estimator_for(settings)
    lineage = bundle.manifest["lineage"]
    start, epochs = None, lineage[BEST_EPOCH] if estimator.fixed_epochs else None
    if epochs:
        start, epochs = estimator.again(bundle, epochs)
    resumed: dict[str, int] | None = None
    check_together(settings)
    parts = [step_key(settings, "refit"), asdict(versions), dataset.digest, bundle.id]
    checkpoints = checkpoints_of(settings.warehouse, "training", parts, checkpoint_minutes(settings))

    def on_resume(epoch: int, step: int) -> None:
        nonlocal resumed
        resumed = {"epoch": epoch, "step": step}
        say(f"Training on all events resumed at epoch {epoch}, step {step}.")

    fitted = estimator.fit(
        Job(
            dataset=dataset,
            versions=versions,
            start=start,
            epochs=epochs,
            stages=() if start is not None else lineage.get(STAGES, ()),
            checkpoints=checkpoints,
            say=say,
            on_epoch=on_epoch,
            on_resume=on_resume,
            together=together_of(
                settings,
                versions,
                partial(served_dataset, measured=str(Path(bundle.path).absolute())),
                checkpoints,
                start=start,
                epochs=epochs,
                on_epoch=on_epoch,
                on_resume=on_resume,
                say=say,
            ),
        )
    )
    outcome, model = fitted.outcome, estimator.recommender(settings, fitted.parts)
    consumed = {**(lineage.get("consumed") or {}), "trained": None if outcome is None else outcome.trained.to_dict()}
    again, solved = None, solved_before(settings, dataset, served_before(settings))
    if blended is not None:
        new_items = dataset.vocabulary.size > bundle.vocabulary.size
        former = None if solved is None else solved.source
        blending = _with_blend_of(settings, bundle)
        again, counted = recounted(blended, blending, dataset, new_items=new_items, former=former)
        consumed["counted"] = counted.to_dict()
    index, searched = chosen_index(settings, dataset, model, fitted.parts.vectors, fitted.parts.allowed, bundle)
    if searched.is_said:
        say(searched.reason)
    path = write_bundle(
        settings.warehouse,
        settings=settings,
        vocabulary=dataset.vocabulary,
        catalogue=dataset.catalogue.select(ITEM_ID, TITLE),
        features=fitted.parts.declared,
        weights=fitted.parts.weights,
        vectors=fitted.parts.vectors,
        allowed=fitted.parts.allowed,
        bias_dims=model.bias_dims,
        lineage={
            **_tables(versions),
            "data": dataset.digest,
            "warm_start": None if start is None else start.id,
            "consumed": consumed,
            BEST_EPOCH: None if outcome is None else outcome.best_epoch,
            STAGES: list(fitted.stages),
            "chosen": fitted.chosen,
            "trained_until": trained_until(dataset.split.train, start),
            "known_before": lineage.get("known_before"),
            SOLVED: record_of(solved, dataset),
            REFIT: {"kind": "all", "measured": bundle.label},
        },
        more=parts_beside(dataset, again, learns=estimator.learns),
        index=index,
    )
    if checkpoints is not None:
        checkpoints.remove()
    trained = outcome.epochs if outcome else 0
    learnt = f"learnt from all {len(dataset.split.train.items):,} events"
    if trained:
        learnt += f" in {trained} epoch{'' if trained == 1 else 's'}" + (
            "" if start is None else " that began with the measured weights"
        )
    new = dataset.report["new_items"]
    return RefitReport(
        bundle=str(path),
        bundle_id=read_bundle(path, verify=False).id,
        measured=str(bundle.path),
        kind="all",
        reason=f"The served bundle {learnt}; it knows {new:,} items that the measured one does not."
        + ("" if solved is None or blended is None else f" {solved.reason}"),
        seconds=0.0,
        epochs=trained,
        history=outcome.history if outcome else [],
        report=dataset.report,
        predicted_bytes=fitted.predicted_bytes,
        consumed=consumed,
        resumed=resumed,
        index=searched,
    )


def _check_chosen(settings: Settings, bundle: Bundle) -> None:
    """Refuse other settings of the training than those that were measured: nobody would know what is served.

    Raises
    ------
    InputError
        Names the first key that differs.
    """
    for section in ("model", "train", "recformer"):
        now = getattr(settings, section).model_dump(mode="json", exclude=_FREE)
        then = getattr(bundle.settings, section).model_dump(mode="json", exclude=_FREE)
        for name, value in now.items():
            if then.get(name) != value:
                raise InputError(
                    f"The bundle {bundle.place} was trained with {section}.{name} = {then.get(name)!r} and this "
                    f"configuration has {value!r}, which nobody has measured; set it back, or train again."
                )


def _with_blend_of(settings: Settings, bundle: Bundle) -> Settings:
    return settings.model_copy(update={"blend": bundle.settings.blend})


def _tables(versions: TableVersions) -> dict[str, Any]:
    return {"interactions_version": versions.interactions, "items_version": versions.items}
