"""Everything that answers at a moment: a bundle, the table and the log beside it. It is replaced as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from recsys.bundles.manifest import MANIFEST
from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS, TITLE, USERS
from recsys.errors import InputError
from recsys.retrieval.shelf import listed_items
from recsys.service.log import LogHistories
from recsys.service.models import Question, events_of
from recsys.service.users import UserTable
from recsys.service.ways import Ways
from recsys.serving.answers import answer_many
from recsys.serving.queries import Codes, Query
from recsys.serving.recommender import Answer, BundleRecommender, open_bundle
from recsys.serving.remembered import remembering
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, latest_version


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What is to be served.

    Attributes
    ----------
    bundle
        Its folder.
    root
        The warehouse; None: a bundle outside of one.
    settings
        Of the configuration; None: a bundle was named, and those that it was trained with count.
    run, released
        Of the release; None where a bundle was named.
    table, version
        The candidate table; None: there is none.
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
        """Return when the bundle's manifest was written (ns): a bundle that was mended is another one."""
        try:
            return (self.bundle / MANIFEST).stat().st_mtime_ns
        except OSError:
            return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """What answers.

    Attributes
    ----------
    target, written, versions
        What it was opened of.
    since
        When its bundle was opened.
    settings
        Those that say what may be recommended.
    codes
        Of the bundle's vocabulary.
    log
        Histories of users; None: there is no log.
    ways
        The items that may be recommended by today's catalogue and by rules, and what fills lists.
    table
        None: there is no candidate table.
    """

    target: Target
    written: int | None
    versions: TableVersions | None
    since: datetime
    settings: Settings
    recommender: BundleRecommender
    codes: Codes
    log: LogHistories | None
    ways: Ways
    table: UserTable | None

    @property
    def label(self) -> str:
        """The bundle's name and the beginning of its id."""
        return self.recommender.bundle.label

    def answer(self, questions: Sequence[Question]) -> list[tuple[Answer | InputError, bool | None]]:
        """Answer questions together; each with whether the log has its user."""
        asked: list[Query | InputError] = []
        known: list[bool | None] = []
        for question in questions:
            try:
                query, user = self._query(question)
                asked.append(query)
                known.append(user)
            except InputError as error:
                asked.append(error)
                known.append(None)
        sound = [query for query in asked if isinstance(query, Query)]
        found = iter(answer_many(self.recommender, self.codes, sound, self.ways.of) if sound else ())
        answers = [query if isinstance(query, InputError) else next(found) for query in asked]
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
        if rows.is_empty():
            return None
        first = rows.row(0, named=True)
        rows = rows if k is None else rows.head(k)
        catalogue = self.recommender.bundle.catalogue
        places = np.array(self.codes.of([str(item) for item in rows[ITEM_ID].to_list()]))
        titles = [None] * len(rows)
        if TITLE in catalogue.columns:
            found = catalogue[TITLE].gather(np.maximum(places - 1, 0)).to_list()
            titles = [title if place else None for title, place in zip(found, places.tolist(), strict=True)]
        columns = ("rank", "item_id", "score", "source")
        items = [
            {**row, "title": title}
            for row, title in zip(rows.select(columns).iter_rows(named=True), titles, strict=True)
        ]
        about = {name: first[name] for name in ("run", "bundle", "as_of")}
        return {"user": first["user_id"], "items": items, **about}

    def _query(self, question: Question) -> tuple[Query, bool | None]:
        of_log = None
        if question.user is not None:
            if self.log is None:
                raise InputError(f"{self.label} is served without a log, so nobody's history is known; give `history`.")
            of_log = self.log.of(str(question.user))
        usual = self.settings.retrieve.exclude_seen
        query = Query(
            history=events_of(question.history),
            of_log=of_log,
            attributes=question.attributes,
            k=question.k,
            exclude=[str(item) for item in question.exclude],
            exclude_seen=usual if question.exclude_seen is None else question.exclude_seen,
            rules=None if question.rules is None else tuple(question.rules),
        )
        return query, None if question.user is None else of_log is not None


def opened(target: Target, before: Served | None = None) -> Served:
    """Open what is to be served; parts that have not changed are taken from what was served before.

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
            log = LogHistories.read(target.root, bundle, versions)
        allowed = listed_items(settings, versions, bundle.vocabulary)
    if before is not None and before.settings == settings and held is not None and versions is not None:
        ways = before.ways if held.items == versions.items else None
    else:
        ways = None
    table = None if before is None else before.table
    if target.table is None or target.version is None:
        table = None
    elif table is None or (table.path, table.version) != (target.table, target.version):
        table = UserTable(target.table, target.version)
    if ways is None:
        timed = log is None or log.histories.times is not None
        ways = Ways(target.settings, recommender, versions=versions, allowed=allowed, timed=timed)
    served = Served(
        target=target,
        written=written,
        versions=versions,
        since=datetime.now(UTC) if before is None else before.since,
        settings=settings,
        recommender=recommender if before is not None else remembering(recommender),
        codes=Codes(bundle.vocabulary) if before is None else before.codes,
        log=log,
        ways=ways,
        table=table,
    )
    served.answer([Question(history=[bundle.vocabulary.items[0]])])  # the first answer loads what others find loaded
    return served
