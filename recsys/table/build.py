"""The candidate table: the k best unseen items of every user, with lineage on every row, in one Delta commit.

It is built, then published. `build` writes the rows where no reader sees them, in batches of users, ascending by
(user_id, rank), so memory does not grow with the table. `publish` is the commit: a reader sees the whole old table or
the whole new one, and the old version stays readable, which is the way back. What was built can be published by
another process, after a kill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable

from recsys.columns import CANDIDATES, USER_ID
from recsys.data.changes import log_id
from recsys.data.prepare import prepare
from recsys.errors import InputError
from recsys.retrieval.shelf import listed_items
from recsys.serving.histories import served_histories
from recsys.serving.recommender import open_bundle
from recsys.settings import Settings
from recsys.storage import stream
from recsys.storage.delta import scan_delta
from recsys.storage.warehouse import TableVersions, scan
from recsys.table.built import BuiltCandidates, CandidatesReport, Counted
from recsys.table.everyone import whom_to_serve
from recsys.table.kept import MADE_BY, kept_rows, made_by
from recsys.table.naming import LOG, NAME, candidates_table
from recsys.table.rows import UserRows, rows_for
from recsys.table.stored import merged


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
    serving, unknown = served_histories(settings, versions, dataset, opened.vocabulary)
    if len(serving.items) == 0 and unknown:
        raise InputError(
            f"The bundle {bundle} knows none of the items of the {len(serving)} histories; "
            "it was trained on other data: use a bundle of this configuration."
        )
    allowed = listed_items(settings, versions, opened.vocabulary)
    serving, fallback = whom_to_serve(settings, versions, opened, dataset, serving, allowed)
    rows = rows_for(settings, versions, served, serving, fallback, allowed, run=run_id, as_of=as_of)
    rules = rows.rules
    kept = kept_rows(settings, versions, served, rules, serving.users)
    if kept is not None:
        rows = rows.of(~kept.among(serving.users))
    table = candidates_table(settings.warehouse, settings.name)
    staged = stream.stage(
        settings.warehouse,
        table,
        rows.schema,
        rows.frames(progress) if kept is None else merged(kept.frames(rows.lineage), rows.frames(progress)),
        sorted_by=USER_ID,
        metadata=said_of(settings, rows),
    )
    return BuiltCandidates(
        staged=staged,
        run=run_id,
        rows=staged.rows,
        users=len(serving),
        k=settings.retrieve.k,
        unknown_events=unknown,
        unlisted=0 if allowed is None else int((~allowed[1:]).sum()),
        bundle=opened.label,
        index=opened.index_id,
        seconds=time.perf_counter() - began,
        rules=[] if rules is None else list(rules.names),
        rules_digest=None if rules is None else rules.digest,
        denied=0 if rules is None else int((~rules.allowed[1:]).sum()),
        kept=0 if kept is None else len(kept.users),
        log_users=len(dataset.split.serving) + dataset.report["left_out"]["users"],
        **rows.counted(),
    )


def said_of(settings: Settings, rows: UserRows) -> dict[str, Any]:
    """Metadata of the commit of a candidate table; LOG says up to which version of the log its rows know the events."""
    rules, bundle = rows.rules, rows.served.bundle
    return {
        NAME: settings.name,
        "run": rows.run,
        "bundle": bundle.label,
        "as_of": rows.as_of.isoformat(),
        **({} if rules is None else {"rules": ", ".join(rules.names), "rules_digest": rules.digest}),
        MADE_BY: made_by(settings, rows.versions),
        LOG: {"table": log_id(settings.warehouse), "version": rows.versions.interactions},
    }


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
    counted = {of.name: getattr(built, of.name) for of in fields(Counted)}
    return CandidatesReport(path=built.staged.path, version=version, **counted)


def is_published(built: BuiltCandidates) -> bool:
    """Return whether built candidates are the newest version of their table."""
    return stream.published(built.staged) is not None


def can_publish(built: BuiltCandidates) -> bool:
    """Return whether built candidates are still there, and the table is as it was when they were built."""
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
