"""Fit the blend on validation users, and find out there whether it pays; test users are never looked at.

The sources are fitted on the training part alone, like the model, also when a test history holds the validation item:
so the figures compare with those of models that have not trained on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from recsys.candidates.base import Source, TrainingData
from recsys.candidates.registry import context_of, features_of
from recsys.candidates.stage import blocks, fit_sources, propose
from recsys.candidates.text import whitened_text
from recsys.columns import SENTENCE, metric_name
from recsys.data.consumed import Consumed
from recsys.data.prepare import Dataset
from recsys.data.sequences import HistoryVectors
from recsys.data.splits import HeldOut, drawn_users
from recsys.errors import InputError
from recsys.evaluation.metrics import MISS, accuracy
from recsys.ranking.base import Choices, Columns, Ranker
from recsys.ranking.blend import Blended
from recsys.ranking.registry import DEFAULT, RANKERS
from recsys.retrieval.index import ItemIndex, build_index
from recsys.settings import Settings

USERS: Final = 10_000  # validation users that are measured
FITTED: Final = 5_000  # of those whose item was proposed, how many the weights are fitted on
OTHERS: Final = 60  # candidates that stand for all candidates of a user in the fit
FEWEST: Final = 30  # users a fit needs
PRIMARY: Final = metric_name("ndcg", 10, "val")
NOTABLE: Final = 0.02  # share of the training events that a source knows nothing of


@dataclass(frozen=True, kw_only=True)
class BlendReport:
    """Value of the blend on validation; JSON-friendly.

    Attributes
    ----------
    used
        Whether the bundle blends.
    reason
        Why, or why not, in a sentence.
    users
        Validation users measured.
    proposed
        Share of them whose next item some source proposed.
    validation
        HR, NDCG and MRR at 10 of each feature alone, and of the blend with weights that were fitted on the other half
        of these users.
    weights
        Columns of what the ranker tells of itself; see `Ranker.table`.
    seconds
        It took.
    reach
        Of each source that a bound may keep from items: shares of the training events whose items say something to it
        ("events"), of the items asked that it can propose ("targets"), and of the pairs of events that it counted
        ("pairs").
    counted, weighed
        The histories that the sources were fitted on, and the questions that the ranker was fitted on.
    """

    used: bool
    reason: str
    users: int = 0
    proposed: float = 0.0
    validation: dict[str, dict[str, float]] | None = None
    weights: dict[str, list[Any]] | None = None
    seconds: float = 0.0
    reach: dict[str, dict[str, float]] | None = None
    counted: Consumed | None = None
    weighed: Consumed | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """Candidates of validation users, P in all, and where their item is among them."""

    offsets: np.ndarray  # int64 [U + 1]
    features: np.ndarray  # float32 [P, F]
    context: np.ndarray  # float32 [P, C]
    came: np.ndarray  # int64 [U]: place of the target in the flat arrays; -1 where no source proposed it
    asked: Consumed
    columns: Columns

    def __len__(self) -> int:
        return len(self.came)


def fit_blend(
    settings: Settings,
    dataset: Dataset,
    queries: HistoryVectors,
    vectors: np.ndarray,
    allowed: np.ndarray,
    alone: Callable[[HeldOut], dict[str, float]] | None = None,
    *,
    ranker: str = DEFAULT,
    former: Source | None = None,
) -> tuple[Blended | None, BlendReport | None]:
    """The blend of a model with the other sources; None where the settings or validation are against it.

    Parameters
    ----------
    queries
        Of the model.
    vectors, allowed
        float32 [V + 1, D] and bool [V + 1], the model's items.
    alone
        Metrics of the model on the questions that the blend is measured on, where its vectors do not say all of it, as
        with `model.repeats`; None: they do.
    ranker
        Name of the registered ranker that is fitted.
    former
        A source that was fitted before and serves on.
    """
    if settings.blend.kind == "never":
        return None, None
    began = time.perf_counter()
    sources, counted, lacking = training_sources(settings, dataset, former)
    rng = np.random.default_rng(settings.seed)
    held_out = drawn_users(dataset.split.validation, USERS, rng)
    own = None if alone is None else alone(held_out)  # now, as the candidates of these users take memory
    measured = _measure(settings, held_out, queries, build_index(vectors, allowed), sources)
    found = np.flatnonzero(measured.came >= 0)
    if len(found) < 2 * FEWEST:
        who = "1 validation user has" if len(found) == 1 else f"{len(found)} validation users have"
        reason = f"The model serves alone: {who} an item that a source proposed, and a blend needs {2 * FEWEST}."
        return None, BlendReport(used=False, reason=reason, users=len(held_out))

    fold = rng.permutation(len(held_out)) % 2
    fitted = RANKERS[ranker]
    orders = {feature.name for feature in features_of(sources) if feature.orders}
    names = measured.columns.features
    ranks = {name: _ranks(measured, measured.features[:, at]) for at, name in enumerate(names) if name in orders}
    ranks["blend"] = _crossed(fitted, measured, fold, settings.seed)
    validation = {name: accuracy(theirs, (10,), part="val") for name, theirs in ranks.items()}
    if own is not None:
        validation["model"] = own
    reach = reached(sources, dataset.split.train.items, held_out.targets) if settings.blend.counts else {}
    model, blend = validation["model"][PRIMARY], validation["blend"][PRIMARY]
    used = blend > model or settings.blend.kind == "always"
    whole = fitted.fit(_choices(measured, found, settings.seed), measured.columns)
    report = BlendReport(
        used=used,
        reason=f"On validation the blend reaches NDCG@10 {blend:.4f} and the model alone {model:.4f}.{lacking}"
        + "".join(bounded(reach)),
        users=len(held_out),
        proposed=len(found) / len(held_out),
        validation=validation,
        weights=whole.table(),
        seconds=time.perf_counter() - began,
        reach=reach,
        counted=counted,
        weighed=measured.asked,
    )
    blended = Blended(sources=sources, ranker=whole, candidates=settings.blend.candidates)
    return (blended if used else None), report


def reached(sources: tuple[Source, ...], items: np.ndarray, targets: np.ndarray) -> dict[str, dict[str, float]]:
    """`BlendReport.reach` of training events and of asked items, both as codes; events of unknown items apart."""
    items, found = items[items > 0], {}
    for source in sources:
        reach = source.reach()
        if reach is not None and len(items) and len(targets):
            found[source.name] = {
                "events": float(reach.speaks[items].mean()),
                "targets": float(reach.proposed[targets].mean()),
                "pairs": reach.counted,
            }
    return found


def bounded(reach: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield a sentence for each source that leaves out much: `NOTABLE` of the events, or any pair of them."""
    for name, shares in reach.items():
        if shares["events"] < 1 - NOTABLE:
            yield (
                f" The source {name!r} knows the items of {shares['events']:.1%} of the training events, and "
                f"{shares['targets']:.1%} of the items asked."
            )
        if shares["pairs"] < 1:
            yield f" The source {name!r} counted {shares['pairs']:.1%} of the pairs of events."


def training_sources(
    settings: Settings, dataset: Dataset, former: Source | None = None
) -> tuple[tuple[Source, ...], Consumed, str]:
    """The sources of a data set: training histories, and the catalogue's text where it has any.

    Parameters
    ----------
    former
        A source that was fitted before and serves on.

    Returns
    -------
    sources, Consumed, str
        The sources, the histories that they were fitted on, and a sentence on why the text is lacking although the
        settings want it, or nothing.
    """
    text, lacking = None, ""
    if settings.blend.text and settings.items is not None and settings.items.text:
        try:
            text = whitened_text(settings, dataset.catalogue[SENTENCE])
        except InputError as error:  # a model that reads no text can be trained without `recsys represent`
            lacking = f" It blends without text: {error}"
    train = dataset.split.train
    histories = train if settings.blend.counts else train.select(np.arange(0))
    data = TrainingData(histories=histories, size=dataset.vocabulary.size, catalogue=dataset.catalogue, text=text)
    return fit_sources(data, former), Consumed.of(histories.items, histories.offsets), lacking


def _measure(
    settings: Settings, held_out: HeldOut, queries: HistoryVectors, items: ItemIndex, sources: tuple[Source, ...]
) -> _Measured:
    columns = columns_of(sources)
    wanted = {"features": columns.features, "context": columns.context}
    histories, stride = held_out.histories, len(items.vectors)
    features, context, counts, came, before = [], [], [], [], 0
    for part, block in blocks(items, queries(histories), histories, exclude_seen=settings.evaluate.exclude_seen):
        found = propose(sources, block, n=settings.blend.candidates, **wanted)
        keys = found.rows * stride + found.codes
        rows, codes = held_out.rest(part.start, part.stop)
        asked = ~np.isin(keys, rows * stride + codes)  # the target's basket does not compete with it
        keys = keys[asked]
        targets = np.arange(len(block)) * stride + held_out.targets[part]
        place = np.searchsorted(keys, targets)  # nobody may have proposed anything: everything was seen
        came.append(np.where(np.append(keys, -1)[place] == targets, before + place, -1))
        counts.append(np.bincount(found.rows[asked], minlength=len(block)))
        features.append(found.features[asked])
        context.append(found.context[asked])
        before += len(keys)
    return _Measured(
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64),
        features=np.concatenate(features),
        context=np.concatenate(context),
        came=np.concatenate(came),
        asked=Consumed.asked(held_out),
        columns=columns,
    )


def _crossed(ranker: type[Ranker], measured: _Measured, fold: np.ndarray, seed: int) -> np.ndarray:
    """int64 [U] ranks of the targets: each user's by the ranker that was fitted on the users of the other fold."""
    found = np.flatnonzero(measured.came >= 0)
    ranks = np.full(len(measured), MISS, dtype=np.int64)
    for other in (0, 1):
        half = ranker.fit(_choices(measured, found[fold[found] != other], seed), measured.columns)
        ranks = np.where(fold == other, _ranks(measured, half.scores(measured.features, measured.context)), ranks)
    return ranks


def columns_of(sources: tuple[Source, ...]) -> Columns:
    """Return the columns that the sources give, for a ranker that is fitted anew."""
    features = features_of(sources)
    unpaired = tuple((other, feature.name) for feature in features for other in feature.unpaired)
    return Columns(features=tuple(feature.name for feature in features), context=context_of(sources), unpaired=unpaired)


def _ranks(measured: _Measured, scores: np.ndarray) -> np.ndarray:
    """int64 [U] ranks of the targets by scores [P]: higher score first, then lower code; `MISS` if not proposed."""
    users = np.flatnonzero(measured.came >= 0)
    ranks = np.full(len(measured), MISS, dtype=np.int64)
    starts, ends, came = measured.offsets[users], measured.offsets[users + 1], measured.came[users]
    lengths = ends - starts
    flat = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    own, place = np.repeat(scores[came], lengths), np.repeat(came, lengths)
    above = (scores[flat] > own) | ((scores[flat] == own) & (flat < place))
    ranks[users] = 1 + np.add.reduceat(above.astype(np.int64), np.cumsum(lengths) - lengths)
    return ranks


def _choices(measured: _Measured, users: np.ndarray, seed: int) -> Choices:
    """Some of the users' candidates: what came next and `OTHERS` drawn at random."""
    rng = np.random.default_rng(seed)
    users = np.sort(rng.permutation(users)[:FITTED])
    kept, chosen = [], []
    for user in users:
        start, end, came = measured.offsets[user], measured.offsets[user + 1], measured.came[user]
        drawn = start + rng.permutation(end - start)[: OTHERS + 1]
        own = np.union1d(drawn[drawn != came][:OTHERS], came)
        kept.append(own)
        chosen.append(int(np.searchsorted(own, came)))
    flat = np.concatenate(kept)
    return Choices(
        features=measured.features[flat],
        context=measured.context[flat],
        offsets=np.concatenate([[0], np.cumsum([len(own) for own in kept])]).astype(np.int64),
        chosen=np.array(chosen),
    )
