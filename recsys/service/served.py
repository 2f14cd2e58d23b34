"""Serving state: a bundle with the candidate table, the log and the rules beside it. It is replaced as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from recsys.bundles.manifest import MANIFEST
from recsys.columns import (
    AS_OF,
    BUNDLE,
    CANDIDATE_SOURCE,
    INTERACTIONS,
    ITEM_ID,
    ITEMS,
    RANK,
    RUN,
    SCORE,
    TITLE,
    USER_ID,
    USERS,
)
from recsys.errors import InputError
from recsys.loops import choice
from recsys.retrieval.shelf import listed_items
from recsys.service.log import LogHistories
from recsys.service.models import RecommendRequest, events_of
from recsys.service.policies import Policies
from recsys.service.users import UserTable
from recsys.serving.answers import answer_many
from recsys.serving.queries import CodeLookup, Query
from recsys.serving.recommender import Answer, BundleRecommender, open_bundle
from recsys.serving.vector_cache import with_cache
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, latest_version


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Bundle and candidate table to serve.

    Attributes
    ----------
    bundle
        Folder of the bundle.
    root
        The warehouse; None: the bundle lies outside of one.
    settings
        The configuration; None: the service was started with a bundle, whose own settings count.
    run, released
        Run and time of the release; None: the service was started with a bundle.
    table, version
        Candidate table; None: there is none.
    """

    bundle: Path
    root: str | None = None
    settings: Settings | None = None
    run: str | None = None
    released: str | None = None
    table: str | None = None
    version: int | None = None

    @property
    def versions(self) -> TableVersions | None:
        """Return the newest versions of the warehouse's tables; None: there is no log."""
        if self.root is None:
            return None
        interactions, items, users = (latest_version(self.root, table) for table in (INTERACTIONS, ITEMS, USERS))
        return None if interactions is None else TableVersions(interactions=interactions, items=items, users=users)

    @property
    def written(self) -> int | None:
        """Return when the bundle's manifest was written (ns): a repaired bundle is loaded again."""
        try:
            return (self.bundle / MANIFEST).stat().st_mtime_ns
        except OSError:
            return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """Serving state of a moment.

    Attributes
    ----------
    target, written, versions
        The target, its manifest's time and the table versions that this state was loaded from.
    since
        Time at which its bundle was loaded.
    settings
        Configuration that decides which items may be recommended.
    codes
        Codes of the bundle's vocabulary.
    log
        Histories of users; None: there is no log.
    policies
        Today's catalogue, the rules and the fallback.
    table
        Candidate table; None: there is none.
    """

    target: Target
    written: int | None
    versions: TableVersions | None
    since: datetime
    settings: Settings
    recommender: BundleRecommender
    codes: CodeLookup
    log: LogHistories | None
    policies: Policies
    table: UserTable | None

    @property
    def label(self) -> str:
        """The bundle's name and the beginning of its id."""
        return self.recommender.bundle.label

    def answer(self, requests: Sequence[RecommendRequest]) -> list[tuple[Answer | InputError, bool | None]]:
        """Answer requests in one batch; each answer comes with whether the log has the user (None: no user)."""
        queries: list[Query | InputError] = []
        known: list[bool | None] = []
        for request in requests:
            try:
                query, has_user = self._query(request)
                queries.append(query)
                known.append(has_user)
            except InputError as error:
                queries.append(error)
                known.append(None)
        sound = [query for query in queries if isinstance(query, Query)]
        found = iter(answer_many(self.recommender, self.codes, sound, self.policies.of) if sound else ())
        answers = [query if isinstance(query, InputError) else next(found) for query in queries]
        return list(zip(answers, known, strict=True))

    def rows(self, user: str, k: int | None = None) -> dict[str, Any] | None:
        """Return the rows of a user in the candidate table, JSON-friendly; None: the table has no such user.

        Raises
        ------
        InputError
            There is no candidate table.
        RecsysError
            A file of it is gone or damaged.
        """
        if self.table is None:
            raise InputError(
                f"There is no candidate table beside {self.label}; ask POST /recommend, or serve a configuration."
            )
        rows = self.table.rows(user)
        if not rows:
            return None
        first, rows = rows[0], rows[:k]
        catalogue = self.recommender.bundle.catalogue
        places = np.array(self.codes.of([str(row[ITEM_ID]) for row in rows]))
        titles = [None] * len(rows)
        if TITLE in catalogue.columns:
            found = catalogue[TITLE].gather(np.maximum(places - 1, 0)).to_list()
            titles = [title if place else None for title, place in zip(found, places.tolist(), strict=True)]
        told = (RANK, ITEM_ID, SCORE, CANDIDATE_SOURCE)
        items = [{name: row[name] for name in told} | {TITLE: title} for row, title in zip(rows, titles, strict=True)]
        return {"user": first[USER_ID], "items": items, **{name: first[name] for name in (RUN, BUNDLE, AS_OF)}}

    def _query(self, request: RecommendRequest) -> tuple[Query, bool | None]:
        of_log = None
        if request.user is not None:
            if self.log is None:
                raise InputError(f"{self.label} is served without a log, so users are unknown; give `history`.")
            of_log = self.log.of(str(request.user))
        default = self.settings.retrieve.exclude_seen
        query = Query(
            history=events_of(request.history),
            of_log=of_log,
            attributes=request.attributes,
            k=request.k,
            exclude=[str(item) for item in request.exclude],
            exclude_seen=default if request.exclude_seen is None else request.exclude_seen,
            rules=None if request.rules is None else tuple(request.rules),
        )
        return query, None if request.user is None else of_log is not None


def load(target: Target, before: Served | None = None) -> Served:
    """Load a target; parts that have not changed are taken from the state before.

    Raises
    ------
    InputError
        The bundle is missing or damaged: every file is compared with its hash.
    RecsysError
        A table is damaged.
    """
    written, versions = target.written, target.versions
    if before is not None and (before.target.bundle, before.written) != (target.bundle, written):
        before = None
    recommender = open_bundle(target.bundle) if before is None else before.recommender
    bundle = recommender.bundle
    settings = target.settings or bundle.settings
    log = None if before is None else before.log
    held = None if before is None else before.versions
    allowed = None
    if versions is not None and target.root is not None:
        settings = settings.model_copy(update={"warehouse": target.root})
        if held is None or (held.interactions, held.users) != (versions.interactions, versions.users):
            log = LogHistories.read(target.root, bundle, versions, settings.retrieve.segment)
        allowed = listed_items(settings, versions, bundle.vocabulary)
    if before is not None and before.settings == settings and held is not None and versions is not None:
        # items and events may lose an item, and users change the segment
        policies = before.policies if held == versions else None
    else:
        policies = None
    table = None if before is None else before.table
    if target.table is None or target.version is None:
        table = None
    elif table is None or (table.path, table.version) != (target.table, target.version):
        table = UserTable(target.table, target.version)
    if policies is None:
        timed = log is None or log.histories.times is not None
        popular = None if log is None else log.popular
        policies = Policies(
            target.settings, recommender, versions=versions, allowed=allowed, timed=timed, popular=popular
        )
    served = Served(
        target=target,
        written=written,
        versions=versions,
        since=datetime.now(UTC) if before is None else before.since,
        settings=settings,
        recommender=recommender if before is not None else with_cache(recommender),
        codes=CodeLookup(bundle.vocabulary) if before is None else before.codes,
        log=log,
        policies=policies,
        table=table,
    )
    if before is None:  # warm-up: index and blend are loaded by the first answer, compiled loops are not
        choice.load()
        served.answer([RecommendRequest(history=[bundle.vocabulary.items[0]])])
    return served
