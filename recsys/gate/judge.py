"""Judge a night: gather its figures, its rows and what it built, and ask every check.

Nothing here decides; the checks are pure functions of what is gathered.

Shapes: Q questions of the test part, V items (arrays by code have V + 1 entries).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from deltalake.exceptions import DeltaError

from recsys.columns import ITEM_ID, PADDING, SENTENCE, TITLE, USER_ID, metric_name
from recsys.data.asked import test_questions
from recsys.data.prepare import Dataset, prepare
from recsys.data.sequences import Sequences
from recsys.errors import RecsysError
from recsys.evaluation.former import ranks_beside
from recsys.evaluation.metrics import per_user
from recsys.evaluation.profiles import MOST_CATEGORIES
from recsys.evaluation.runs import FEW
from recsys.evaluation.users import UserValues
from recsys.gate import built, catalogue, lists, log, plausible, rows, verdict
from recsys.gate.check import Check, skipped, unless_off
from recsys.gate.figures import Lead, best, check_test_users, leads, split_metric, undecided_for_few
from recsys.releases.record import Release, bundle_folder
from recsys.retrieval.shelf import listed_items, most_rows
from recsys.rules.apply import Rules
from recsys.serving.histories import served_histories
from recsys.serving.recommender import BundleRecommender, open_bundle
from recsys.serving.shop import rules_for
from recsys.settings import Settings
from recsys.storage.stream import Staged, scan_staged
from recsys.storage.warehouse import TableVersions, table_path

SAMPLE: Final = 1_000  # users whose lists are looked at, and
ASKED: Final = 256  # whose queries are compared with every item
CHAMPION: Final = "champion"
IMPERSONAL: Final = ("popularity", "recent-popularity")  # a sound model may well be many times as good


@dataclass(frozen=True, kw_only=True, eq=False)
class Night:
    """State of a night so far, as its steps report it; all but `values` is JSON-friendly.

    Attributes
    ----------
    ingested, trained, evaluated, retrieved
        Reports of the steps.
    before
        The ingest report of the finished night before; None on the first one.
    values
        Values per user of the evaluation.
    served, measured
        Folders of the bundle whose rows were built, and of the one that was evaluated.
    as_of
        The night's moment.
    nights
        Versions of the log that the finished nights before worked on, oldest first; empty: not known.
    """

    ingested: Mapping[str, Any]
    trained: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    retrieved: Mapping[str, Any]
    before: Mapping[str, Any] | None
    values: UserValues
    served: str
    measured: str
    as_of: datetime
    nights: Sequence[int] = ()


def judge(settings: Settings, versions: TableVersions, night: Night, champion: Release | None) -> verdict.Verdict:
    """Return the verdict on a night.

    Parameters
    ----------
    versions
        The tables that the night worked on.
    champion
        What is served now; None: nothing yet.

    Raises
    ------
    RecsysError
        The values per user are not those of the tables' test part.
    """
    gate = settings.gate
    if not gate.enabled:
        return verdict.without_gate()
    dataset = prepare(settings, versions)
    if not night.values.frame[USER_ID].equals(test_questions(settings, dataset).histories.users):
        raise RecsysError("The values per user are of another test part than the tables'; evaluate again.")
    owner = night.values.frame[USER_ID].rank("dense").to_numpy().astype(np.int64)
    ranks = night.values.ranks()
    others = {name: theirs for name, theirs in night.values.baseline_ranks().items() if _is_baseline(settings, name)}
    if not gate.baselines:
        others = {}
    named: verdict.Champion | None = None
    theirs: np.ndarray | None = None
    if champion is not None and gate.champion:
        theirs, reason = _champion_ranks(settings, versions, dataset, night, champion, ranks)
        named = _named(champion, (), reason)
    found = _leads(settings, ranks, others | ({} if theirs is None else {CHAMPION: theirs}), owner)
    own = found.pop(CHAMPION, [])
    if named is not None and champion is not None and own:
        named = _named(champion, own, None)
    found = undecided_for_few(found, len(np.unique(owner)))
    metric, k = split_metric(gate.metrics[0])
    value = float(per_user(ranks, metric, k).mean()) if len(ranks) else None
    if not _finite(night.evaluated):
        value = None
    return verdict.decide(
        metric=gate.metrics[0],
        value=value,
        champion=named,
        baselines=found,
        checks=[
            check_test_users(len(np.unique(owner)), gate.min_test_users),
            *_row_checks(settings, versions, night),
            *_built_checks(settings, versions, dataset, night, best(found)),
            *_former_checks(settings, versions, dataset, night, champion),
            *_plausible_checks(settings, night, ranks, others, theirs, owner, best(found)),
        ],
        users=len(np.unique(owner)),
        few=FEW,
        as_of=night.as_of,
        confidence=gate.confidence,
    )


def _is_baseline(settings: Settings, name: str) -> bool:
    """Return whether a ranker is a reference; the model alone, beside its blend, is a part of what is judged."""
    return name in settings.evaluate.baselines


def _finite(evaluated: Mapping[str, Any]) -> bool:
    """Return whether every metric is a number; a report as JSON has None for what is not finite."""
    return all(value is not None for value in evaluated["metrics"].values())


def _named(champion: Release, own: list[Lead] | tuple[()], reason: str | None) -> verdict.Champion:
    return verdict.Champion(
        run=champion.run,
        bundle=Path(champion.measured).name,
        at=datetime.fromisoformat(champion.at),
        leads=own,
        reason=reason,
    )


def _champion_ranks(
    settings: Settings, versions: TableVersions, dataset: Dataset, night: Night, champion: Release, own: np.ndarray
) -> tuple[np.ndarray | None, str | None]:
    """Return the champion's ranks on today's test part, or why there are none."""
    folder = bundle_folder(settings, champion.measured)
    if folder.name == Path(night.measured).name:
        return own, None  # the same bundle: nothing has changed
    try:
        return ranks_beside(settings, versions, dataset, folder, own), None
    except RecsysError as error:
        text = str(error).rstrip(".")
        return None, f"{text[0].lower()}{text[1:]}"


def _leads(
    settings: Settings, ranks: np.ndarray, others: Mapping[str, np.ndarray], owner: np.ndarray
) -> dict[str, list[Lead]]:
    gate = settings.gate
    if not len(ranks):
        return {}
    return leads(
        ranks,
        others,
        gate.metrics,
        owner=owner,
        confidence=gate.confidence,
        tolerance=gate.tolerance,
        seed=settings.seed,
    )


def _row_checks(settings: Settings, versions: TableVersions, night: Night) -> Iterator[Check]:
    gate, ingested = settings.gate, night.ingested
    for table in ingested["rows_read"]:
        yield rows.check_rejected(table, ingested, night.before, gate.max_rejected_share)
    added = ingested["rows_added"].get("interactions", 0)
    earlier: Sequence[int]
    if night.nights:  # what was read between nights is of the night that follows
        since, earlier = log.volumes(settings.warehouse, night.nights, versions.interactions)
        added = added if since is None else since
    else:
        earlier = log.usual_volume(settings.warehouse, versions.interactions, added)
    yield rows.check_volume(added, earlier, gate.min_volume, gate.max_volume)
    if gate.max_age_hours is None:
        yield rows.check_age(None, night.as_of, None)
    else:
        newest = log.newest_event(log.events(settings.warehouse, versions.interactions))
        yield rows.check_age(newest, night.as_of, gate.max_age_hours)


def _built_checks(
    settings: Settings, versions: TableVersions, dataset: Dataset, night: Night, strongest: str | None
) -> Iterator[Check]:
    gate, retrieved = settings.gate, night.retrieved
    served = open_bundle(night.served)
    histories, _ = served_histories(settings, versions, dataset, served.bundle.vocabulary)
    rules = rules_for(settings, served, night.as_of, versions, timed=histories.times is not None)
    shelf = _shelf(settings, versions, served, rules)
    exclude_seen = settings.retrieve.exclude_seen
    yield built.check_users(retrieved["users"] - retrieved["empty_lists"], retrieved["users"], gate.min_users)
    yield unless_off(
        "unseen values", gate.max_unseen, lambda most: built.check_unseen(_unseen(settings, dataset), most)
    )
    order = np.random.default_rng((settings.seed, 4)).permutation(len(histories))
    asked = histories.select(order[:ASKED])
    yield unless_off(
        "recall of the index",
        settings.least_index_recall,
        lambda least: built.check_index(
            served.bundle.index().only(shelf), served.encode(asked), asked, settings.retrieve.k, least, exclude_seen
        ),
    )
    staged = scan_staged(Staged(**retrieved["staged"]))
    if staged is None:
        for name in ("full lists", "popularity in disguise", "the same list for everybody"):
            yield skipped(name, "The table is empty.")
        return
    listed = histories.users.is_in(lists.users_of(staged, histories.users).implode()).to_numpy()
    if rules is not None and rules.by_user:
        reason = (
            f"Rules shape the lists; {retrieved['short_lists']:,} of them are shorter than k and the items left allow."
        )
        yield skipped("full lists", reason, gate.min_full_lists)
    else:
        yield unless_off(
            "full lists",
            gate.min_full_lists,
            lambda least: built.check_full_lists(
                lists.rows_of(staged, histories.users.filter(pl.Series(listed))),
                int(most_rows(histories.select(listed), shelf, settings.retrieve.k, exclude_seen).sum()),
                least,
            ),
        )
    some = histories.select(order[listed[order]][:SAMPLE])
    first = lists.first_places(staged, some.users, served.bundle.vocabulary)
    items = int(shelf[1:].sum())
    popularity = _popularity(dataset, served)
    if strongest in IMPERSONAL:  # then popular lists are what users want
        reason = f"{strongest} is the best baseline, so popular lists are no fault."
        yield skipped("popularity in disguise", reason, gate.max_popularity)
        yield skipped("the same list for everybody", reason, gate.max_same_lists)
        return
    yield unless_off(
        "popularity in disguise",
        gate.max_popularity,
        lambda most: built.check_popularity(
            first, lists.popular_lists(popularity, shelf, some, exclude_seen), items, most
        ),
    )
    yield built.check_same_lists(first, items, gate.max_same_lists)


def _shelf(settings: Settings, versions: TableVersions, served: BundleRecommender, rules: Rules | None) -> np.ndarray:
    """Return bool [V + 1] of the bundle's vocabulary: the items that its lists can hold."""
    placed = np.arange(served.bundle.vocabulary.size + 1) != PADDING
    if served.blended is None:
        placed &= served.bundle.allowed
    listed = listed_items(settings, versions, served.bundle.vocabulary)
    left = listed if rules is None else rules.joined(listed)
    return placed if left is None else placed & left


def _popularity(dataset: Dataset, served: BundleRecommender) -> np.ndarray:
    """Return float32 [V + 1] of the bundle's vocabulary: all events of each item."""
    counts = np.bincount(dataset.split.serving.items, minlength=dataset.vocabulary.size + 1).astype(np.float32)
    ours = np.zeros(served.bundle.vocabulary.size + 1, dtype=np.float32)
    ours[served.bundle.vocabulary.encode(dataset.vocabulary.items)] = counts[1:]
    ours[PADDING] = 0.0
    return ours


def _unseen(settings: Settings, dataset: Dataset) -> dict[str, float]:
    """The share of unseen values of each categorical attribute: items that nobody trained on, users of the test."""
    shares: dict[str, float] = {}
    if settings.items is not None:
        trained = pl.Series(dataset.trained_items()[1:])
        names = _categorical(dataset.catalogue)
        parts = dataset.catalogue.filter(trained), dataset.catalogue
        shares |= lists.unseen_shares(*parts, names, MOST_CATEGORIES)
    train, test = dataset.split.train.attributes, dataset.split.test.histories.attributes
    if train is not None and test is not None:
        found = lists.unseen_shares(train, test, _categorical(train), MOST_CATEGORIES)
        shares |= {f"users' {name}": share for name, share in found.items()}
    return shares


def _categorical(frame: pl.DataFrame) -> list[str]:
    kinds = (pl.String, pl.List(pl.String))
    return [name for name, kind in frame.schema.items() if kind in kinds and name not in (TITLE, SENTENCE, ITEM_ID)]


def _former_checks(
    settings: Settings, versions: TableVersions, dataset: Dataset, night: Night, champion: Release | None
) -> Iterator[Check]:
    """Compare with the table that is served now: its users and items, the rows that came since, what it promised."""
    gate = settings.gate
    left = ["users of the table before", catalogue.NAME, "drift", "promise of the table before"]

    def rest_skipped(reason: str) -> Iterator[Check]:
        yield from (skipped(name, reason) for name in left)

    if champion is None:
        yield from rest_skipped("Nothing was served before.")
        return
    try:
        path = table_path(settings.warehouse, champion.table_name)  # warehouses are moved
        former = lists.former_table(path, champion.version)
        if former is None:
            yield from rest_skipped("The table served now is empty.")
            return
        ours = lists.users_of(scan_staged(Staged(**night.retrieved["staged"])), dataset.split.serving.users)
        theirs = lists.users_of(former.rows, ours)
        kept = int(theirs.is_in(ours.implode()).sum()) if theirs.dtype == ours.dtype else 0
        yield built.check_former_users(kept, len(theirs), gate.min_former_users)
        left.pop(0)
        days = catalogue.days_between(former.as_of, night.as_of)  # a release may have been brought back since
        yield catalogue.check_catalogue(settings, versions, night.ingested, former.items, days)
        left.pop(0)
        new = log.new_rows(settings.warehouse, former.night, versions.interactions)
        yield from list(log.drift_checks(new, _first_categories(dataset.catalogue), gate.max_drift))
        left.pop(0)
        if former.interactions != former.night:
            new = log.new_rows(settings.warehouse, former.interactions, versions.interactions)
        yield unless_off(
            "promise of the table before",
            gate.min_kept_promise,
            lambda least: _promise(settings, dataset, champion, former, new, least),
        )
    except (RecsysError, DeltaError, OSError, pl.exceptions.PolarsError) as error:
        yield from rest_skipped(f"The table served now, or the log it was made from, cannot be read: {error}")


def _promise(
    settings: Settings,
    dataset: Dataset,
    champion: Release,
    former: lists.FormerTable,
    new: log.NewRows,
    least: float,
) -> Check:
    name = "promise of the table before"
    if new.newest is None:
        return skipped(name, "The log has no time.", least)
    if new.rows <= 0:
        return skipped(name, "There are no new rows.", least)
    frame = _events_of(dataset.split.serving, dataset.vocabulary.items, int(new.newest.timestamp() * 1_000_000))
    hits = lists.next_hits(former, frame, settings.retrieve.exclude_seen)
    return plausible.check_promise(hits, champion.metrics.get(metric_name("hr", 10, "test")), least)


def _events_of(histories: Sequences, ids: pl.Series, after: int) -> pl.DataFrame:
    """Return `user_id`, `item_id` and `new`: whether an event is later than `after`, in microseconds."""
    assert histories.times is not None
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    return pl.DataFrame(
        {
            USER_ID: histories.users.gather(owner),
            ITEM_ID: ids.gather(histories.items.astype(np.int64) - 1),
            "new": histories.times > after,
        }
    )


def _first_categories(catalogue: pl.DataFrame) -> pl.DataFrame | None:
    """Return `item_id` and the first value of each categorical attribute with few values; None: there are none."""
    columns = {}
    for name in _categorical(catalogue):
        values = catalogue[name]
        first = values.list.first() if values.dtype == pl.List else values
        if 1 < first.n_unique() <= MOST_CATEGORIES:
            columns[name] = first
    return pl.DataFrame({ITEM_ID: catalogue[ITEM_ID], **columns}) if columns else None


def _plausible_checks(
    settings: Settings,
    night: Night,
    ranks: np.ndarray,
    others: Mapping[str, np.ndarray],
    champion: np.ndarray | None,
    owner: np.ndarray,
    strongest: str | None,
) -> Iterator[Check]:
    gate = settings.gate
    metric, k = split_metric(gate.metrics[0])

    def values(theirs: np.ndarray) -> np.ndarray:
        return per_user(theirs, metric, k)

    rivals = {f"the baseline {name}": values(theirs) for name, theirs in others.items()}
    if champion is not None:
        rivals["what is served now"] = values(champion)
    yield plausible.check_hits(values(ranks), rivals, owner)
    validation, users = _validation(night)
    yield plausible.check_over_validation(per_user(ranks, "ndcg", 10), validation, users, gate.max_over_validation)
    jump = "jump over the champion"
    if champion is None:
        yield skipped(jump, "The champion was not measured.", gate.max_jump)
    else:
        yield plausible.check_jump(
            jump, "what is served now", values(ranks), values(champion), owner, settings.seed, gate.max_jump
        )
    over = "jump over the baselines"
    if not set(others) - set(IMPERSONAL) or strongest is None:
        yield skipped(over, "No personal baseline was measured.", gate.max_over_baselines)
    else:
        yield plausible.check_jump(
            over,
            f"the best baseline ({strongest})",
            values(ranks),
            values(others[strongest]),
            owner,
            settings.seed,
            gate.max_over_baselines,
        )


def _validation(night: Night) -> tuple[float | None, int]:
    """Return NDCG@10 of what is served on validation users, and their number; None where nothing was validated."""
    trained, key = night.trained, metric_name("ndcg", 10, "val")
    blend = trained.get("blend") or {}
    measured = (blend.get("validation") or {}).get(night.evaluated["served"])
    if measured is not None:
        return measured.get(key), int(blend["users"])
    by_epoch = [entry[key] for entry in trained.get("history", ()) if entry.get(key) is not None]
    return (max(by_epoch) if by_epoch else None), int(trained["report"].get("validation_users", 0))
