"""Users whose rows need not be made again, because nothing that decides on them has changed since they were published.

That holds while the bundle, the settings, the program, the catalogue and the user table are the same, for users whose
events are the same. It does not hold for lists that the fallback fills, which follow what sells now; nor where a rule
looks at the time or an event of one user decides whether another one's counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from recsys.columns import CANDIDATE_SOURCE, USER_ID
from recsys.data.changes import changed_users, log_id
from recsys.errors import RecsysError
from recsys.rules.apply import Rules
from recsys.rules.base import Seen
from recsys.runs import code_version
from recsys.serving.fallback import NAMES
from recsys.serving.recommender import BundleRecommender
from recsys.settings import Settings
from recsys.storage.delta import data_files
from recsys.storage.intact import check_intact
from recsys.storage.warehouse import TableVersions, commit_metadata, latest_version, table_path
from recsys.table import stored
from recsys.table.naming import BUNDLE, LOG, candidates_table

MADE_BY: Final = "made_by"  # in a commit's metadata: a digest of what else than bundle, rules and log decides on rows
RULES_DIGEST: Final = "rules_digest"
# sections that no row depends on, or whose part in rows shows otherwise: places, the page, the rules' own digest
_OTHER: Final = frozenset(
    {"data_root", "warehouse", "tracking", "export", "report", "retention", "gate", "evaluate", "rules"}
)


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptRows:
    """Rows of the published table that stay.

    Attributes
    ----------
    users
        Whose rows they are.
    files
        Of the table.
    """

    users: pl.Series
    files: list[str]

    def among(self, users: pl.Series) -> np.ndarray:
        """bool [U]: which of these users keep their rows."""
        return users.is_in(self.users.implode()).to_numpy()

    def frames(self, lineage: list[pl.Expr]) -> Iterator[pl.DataFrame]:
        """The rows with another lineage, ascending by (user_id, rank)."""
        for frame in stored.frames(self.files):
            yield frame.filter(pl.col(USER_ID).is_in(self.users.implode())).with_columns(lineage)


def made_by(settings: Settings, versions: TableVersions) -> str:
    """Digest of what decides on rows besides the bundle, the rules and the log."""
    parts = [settings.model_dump(mode="json", exclude=set(_OTHER)), code_version(), versions.items, versions.users]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def of_some_users(said: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a commit that makes the rows of some users anew, on top of another commit.

    It says what made the rows only where that holds for the other users' rows, too; otherwise no later build keeps any.

    Parameters
    ----------
    said, before
        Metadata as of a commit that makes all rows, and the metadata of the commit before.
    """
    same = all(said.get(key) == before.get(key) for key in (MADE_BY, RULES_DIGEST))
    return {key: value for key, value in said.items() if same or key != MADE_BY}


def kept_rows(
    settings: Settings, versions: TableVersions, served: BundleRecommender, rules: Rules | None, users: pl.Series
) -> KeptRows | None:
    """The rows of the published table that a new build would make again; None where all are to be made.

    Parameters
    ----------
    rules
        That the new rows are made by.
    users
        Who is to be served.
    """
    try:
        return _kept_rows(settings, versions, served, rules, users)
    except (RecsysError, DeltaError, OSError, pl.exceptions.PolarsError):  # a damaged table helps nobody
        return None


def _kept_rows(
    settings: Settings, versions: TableVersions, served: BundleRecommender, rules: Rules | None, users: pl.Series
) -> KeptRows | None:
    root, table = settings.warehouse, candidates_table(settings.warehouse, settings.name)
    if latest_version(root, table) is None or settings.filter.min_item_interactions > 1:
        return None
    said = commit_metadata(root, table)
    if said.get(BUNDLE) != served.bundle.label or said.get(MADE_BY) != made_by(settings, versions):
        return None
    if said.get(RULES_DIGEST) != (None if rules is None else rules.digest) or _look_at_time(rules):
        return None
    log: dict[str, Any] = said.get(LOG) or {}
    if log.get("table") != log_id(root):
        return None
    changed = changed_users(root, int(log["version"]), versions.interactions)
    if changed is None:
        return None
    path = table_path(root, table)
    opened = DeltaTable(path)
    check_intact(opened, path)
    files = data_files(opened)
    own = ~pl.col(CANDIDATE_SOURCE).is_in(list(NAMES.values()))
    whole = (
        pl.scan_parquet(files, glob=False)
        .group_by(USER_ID)
        .agg((own.all() & (pl.len() == settings.retrieve.k)).alias("whole"))
        .filter("whole")
        .collect(engine="streaming")[USER_ID]
    )
    same = whole.filter(whole.is_in(users.implode()) & ~whole.is_in(changed.implode()))
    return KeptRows(users=same.sort(), files=files) if len(same) else None


def _look_at_time(rules: Rules | None) -> bool:
    """Return whether a rule asks how long ago an event was."""
    return rules is not None and any(isinstance(rule, Seen) for rule in rules.rules)
