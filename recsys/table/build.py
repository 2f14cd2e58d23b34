"""The candidate table: the k best unseen items of every user, with lineage on every row, in one Delta commit.

It is built, then published. `build` writes the rows where no reader sees them, in batches of users, ascending by
(user_id, rank), so memory does not grow with the table. `publish` is the commit: a reader sees the whole old table or
the whole new one, and the old version stays readable, which is the way back. What was built can be published by
another process, after a kill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from deltalake import DeltaTable

from recsys.columns import (
    AS_OF,
    BUNDLE,
    CANDIDATES,
    INDEX,
    INTERACTIONS_VERSION,
    ITEM_ID,
    ITEMS_VERSION,
    RUN,
    USER_ID,
)
from recsys.data.prepare import prepare
from recsys.errors import InputError
from recsys.retrieval.shelf import listed_items
from recsys.serving.batches import candidate_batches
from recsys.serving.histories import recode
from recsys.serving.lists import floor
from recsys.serving.recommender import open_bundle
from recsys.serving.shop import rules_for
from recsys.settings import Settings
from recsys.storage import stream
from recsys.storage.delta import scan_delta
from recsys.storage.warehouse import SCHEMAS, TableVersions, scan
from recsys.table.everyone import whom_to_serve
from recsys.table.naming import NAME, candidates_table


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """Counts of a retrieval."""

    run: str  # that its rows name
    rows: int
    users: int  # who were to be served, also those without a candidate
    k: int
    short_lists: int  # users with fewer than k candidates
    empty_lists: int  # users with none; they have no row
    without_signal: int  # users whose query vector is zero: the model's items come in the order of their codes
    unknown_events: int  # of the histories: items that the bundle does not know
    unlisted: int  # items of the bundle that the newest catalogue does not list; they are not recommended
    bundle: str
    index: str
    seconds: float
    by_fallback: int = 0  # users whose list is by text or by popularity, as the model knows nothing of them
    filled_lists: int = 0  # users whose list the fallback makes full
    log_users: int = 0  # of the log, whether they are served or not
    rules: list[str] = field(default_factory=list)  # that made the lists, by name
    rules_digest: str | None = None  # of their settings, and of the items that they allow
    denied: int = 0  # items that rules recommend to nobody


@dataclass(frozen=True, kw_only=True)
class BuiltCandidates(_Counted):
    """Candidates that are written and not published; JSON-friendly."""

    staged: stream.Staged

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> BuiltCandidates:
        """Return what a JSON-friendly report tells; other entries of it are left out."""
        known = {of.name: report[of.name] for of in fields(cls) if of.name in report}
        return cls(**{**known, "staged": stream.Staged(**report["staged"])})


@dataclass(frozen=True, kw_only=True)
class CandidatesReport(_Counted):
    """Report of a published candidate table; JSON-friendly."""

    path: str  # of the Delta table
    version: int


def retrieve(
    settings: Settings,
    versions: TableVersions,
    bundle: str | Path,
    run_id: str,
    as_of: datetime,
    progress: Callable[[int], None] | None = None,
) -> CandidatesReport:
    """Make the candidates of every user and publish them: `build`, then `publish`."""
    return publish(settings, build(settings, versions, bundle, run_id, as_of, progress))


def build(
    settings: Settings,
    versions: TableVersions,
    bundle: str | Path,
    run_id: str,
    as_of: datetime,
    progress: Callable[[int], None] | None = None,
) -> BuiltCandidates:
    """Make the candidates of every user, beside the candidate table.

    Parameters
    ----------
    versions
        Tables whose histories are served.
    bundle
        Folder of the bundle that scores; its own vocabulary codes the histories.
    run_id, as_of
        Lineage: the run, and the moment (with a zone) that the table speaks for.
    progress
        Called with the number of users of each finished batch.

    Raises
    ------
    InputError
        Not a sound bundle, one that knows none of the histories' items, one of other features, or one that can
        recommend no item of the catalogue.
    """
    began = time.perf_counter()
    if as_of.tzinfo is None:
        raise ValueError(f"as_of = {as_of} needs a time zone")
    served = open_bundle(bundle)
    served.check_features(settings)
    opened = served.bundle
    dataset = prepare(settings, versions)
    serving, unknown = recode(dataset.split.serving, dataset.vocabulary, opened.vocabulary)
    if len(serving.items) == 0 and unknown:
        raise InputError(
            f"The bundle {bundle} knows none of the items of the {len(serving)} histories; "
            "it was trained on other data: use a bundle of this configuration."
        )
    allowed = listed_items(settings, versions, opened.vocabulary)
    serving, fallback = whom_to_serve(settings, versions, opened, dataset, serving, allowed)
    rules = rules_for(settings, served, as_of, versions, timed=serving.times is not None)
    shelf, fallback = floor(served, rules, allowed=allowed, fallback=fallback)
    table = candidates_table(settings.warehouse, settings.name)
    schema = {
        **SCHEMAS[CANDIDATES],
        USER_ID: serving.users.dtype,
        ITEM_ID: opened.vocabulary.items.dtype,
    }
    lineage = {
        RUN: run_id,
        BUNDLE: opened.label,
        INDEX: opened.index_id,
        AS_OF: as_of.astimezone(UTC),
        INTERACTIONS_VERSION: versions.interactions,
        ITEMS_VERSION: versions.items,
    }
    constants = [pl.lit(value, dtype=schema[name]).alias(name) for name, value in lineage.items()]
    counts = np.zeros(len(serving), dtype=np.int64)  # candidates of each user
    without_signal = 0
    lower = {"by_fallback": 0, "filled_lists": 0}

    def frames() -> Iterator[pl.DataFrame]:
        nonlocal without_signal
        start = 0
        for batch in candidate_batches(served, serving, settings.retrieve, shelf, fallback, rules):
            counts[start : start + len(batch.counts)] = batch.counts
            without_signal += batch.without_signal
            lower["by_fallback"] += batch.by_fallback
            lower["filled_lists"] += batch.filled
            start += len(batch.counts)
            yield batch.rows.with_columns(constants).select(*schema)
            if progress:
                progress(len(batch.counts))

    staged = stream.stage(
        settings.warehouse,
        table,
        schema,
        frames(),
        sorted_by=USER_ID,
        metadata={
            NAME: settings.name,
            "run": run_id,
            "bundle": opened.label,
            "as_of": as_of.isoformat(),
            **({} if rules is None else {"rules": ", ".join(rules.names), "rules_digest": rules.digest}),
        },
    )
    return BuiltCandidates(
        staged=staged,
        run=run_id,
        rows=staged.rows,
        users=len(serving),
        k=settings.retrieve.k,
        short_lists=int((counts < settings.retrieve.k).sum()),
        empty_lists=int((counts == 0).sum()),
        without_signal=without_signal,
        unknown_events=unknown,
        unlisted=0 if allowed is None else int((~allowed[1:]).sum()),
        bundle=opened.label,
        index=opened.index_id,
        seconds=time.perf_counter() - began,
        rules=[] if rules is None else list(rules.names),
        rules_digest=None if rules is None else rules.digest,
        denied=0 if rules is None else int((~rules.allowed[1:]).sum()),
        log_users=len(dataset.split.serving) + dataset.report["left_out"]["users"],
        **lower,
    )


def publish(settings: Settings, built: BuiltCandidates, metadata: Mapping[str, Any] | None = None) -> CandidatesReport:
    """Make built candidates the newest version of the candidate table; those that are already stay as they are.

    Parameters
    ----------
    metadata
        Of the commit, besides the rows' own.

    Raises
    ------
    InputError
        They are none, and the table has some.
    RecsysError
        Another process has written the table since they were built, or the disk does not take the commit.
    """
    version = stream.published(built.staged)
    if version is None:
        check_not_empty(settings, built)
        said = {**built.staged.metadata, **(metadata or {})}
        version = stream.publish(replace(built.staged, metadata=said))
    counted = {of.name: getattr(built, of.name) for of in fields(_Counted)}
    return CandidatesReport(path=built.staged.path, version=version, **counted)


def is_published(built: BuiltCandidates) -> bool:
    """Return whether built candidates are the newest version of their table."""
    return stream.published(built.staged) is not None


def can_publish(built: BuiltCandidates) -> bool:
    """Whether built candidates are still there, and the table is as it was when they were built."""
    return is_published(built) or stream.is_whole(built.staged)


def check_not_empty(settings: Settings, built: BuiltCandidates) -> None:
    """Refuse to replace a table that has rows by one that has none.

    Raises
    ------
    InputError
        The reasons, and what to change.
    """
    path, version = built.staged.path, built.staged.expected
    if built.rows or version is None:
        return
    before = int(scan_delta(DeltaTable(path, version=version)).select(pl.len()).collect().item())
    if not before:
        return
    reasons = []
    if built.unlisted:
        reasons.append(
            f"the newest catalogue does not list {built.unlisted:,} items that the bundle knows (retrieve.items = "
            '"all" recommends them)'
        )
    if settings.retrieve.exclude_seen:
        reasons.append("every user has had all that is left (retrieve.exclude_seen = false recommends it again)")
    raise InputError(
        f"No user of {built.users:,} has a candidate, and version {version} of the table {path} has {before:,} rows, "
        f"which it keeps: {' and '.join(reasons) or f'the bundle {built.bundle} proposes nothing'}. Change that, or "
        "read a complete catalogue, and run again; to have an empty table, remove the folder first."
    )


def read_candidates(root: str | Path, version: int | None = None, name: str | None = None) -> pl.LazyFrame:
    """The candidate table of a warehouse, lazily; `version` None is the newest, an older one is the way back.

    `name` is that of a configuration, where several share the warehouse.

    Raises
    ------
    InputError
        There is no such table or version.
    """
    return scan(root, CANDIDATES if name is None else candidates_table(str(root), name), version)
