"""Rows of the candidate table for some users, with lineage, counted as they come: the night and a refresh make them so.

Shapes: U users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from recsys.columns import (
    AS_OF,
    BUNDLE,
    CANDIDATES,
    INDEX,
    INTERACTIONS_VERSION,
    ITEM_ID,
    ITEMS_VERSION,
    PADDING,
    RUN,
    USER_ID,
)
from recsys.compute.base import Engine
from recsys.compute.choice import engine_of
from recsys.compute.local import LOCAL
from recsys.data.sequences import Sequences
from recsys.retrieval.shelf import Shelf, most_rows
from recsys.rules.apply import Rules
from recsys.serving.batches import candidate_batches
from recsys.serving.fallback import Fallback
from recsys.serving.lists import floor
from recsys.serving.recommender import BundleRecommender
from recsys.serving.shop import rules_for
from recsys.settings import RetrieveSettings, Settings
from recsys.storage.warehouse import SCHEMAS, TableVersions


@dataclass(frozen=True, kw_only=True, eq=False)
class UserRows:
    """Rows of U users.

    Attributes
    ----------
    histories
        Of the users, ascending, in the bundle's codes.
    shelf, fallback, rules
        See `recsys.serving.lists`.
    run, as_of, versions
        Lineage: the run that served the bundle, the moment (with a zone) that the rows speak for, and the tables.
    engine
        That makes the lists.
    counts
        int64 [U] rows of each user, once `frames` has ended.
    totals
        Counts over the users, as a report names them.
    """

    settings: RetrieveSettings
    served: BundleRecommender
    histories: Sequences
    shelf: Shelf | None
    fallback: Fallback | None
    rules: Rules | None
    run: str
    as_of: datetime
    versions: TableVersions
    engine: Engine = LOCAL
    counts: np.ndarray = field(init=False)
    totals: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", np.zeros(len(self.histories), dtype=np.int64))
        object.__setattr__(self, "totals", {"without_signal": 0, "by_fallback": 0, "filled_lists": 0})

    @property
    def schema(self) -> dict[str, Any]:
        """Column to polars type."""
        items = self.served.bundle.vocabulary.items.dtype
        return {**SCHEMAS[CANDIDATES], USER_ID: self.histories.users.dtype, ITEM_ID: items}

    @property
    def lineage(self) -> list[pl.Expr]:
        """The columns that are the same in every row."""
        bundle, schema = self.served.bundle, self.schema
        values = {
            RUN: self.run,
            BUNDLE: bundle.label,
            INDEX: bundle.index_id,
            AS_OF: self.as_of.astimezone(UTC),
            INTERACTIONS_VERSION: self.versions.interactions,
            ITEMS_VERSION: self.versions.items,
        }
        return [pl.lit(value, dtype=schema[name]).alias(name) for name, value in values.items()]

    def frames(self, progress: Callable[[int], None] | None = None) -> Iterator[pl.DataFrame]:
        """The rows, ascending by (user_id, rank), in batches of whole users.

        Parameters
        ----------
        progress
            Called with the number of users of each finished batch.
        """
        schema, start, constants = self.schema, 0, self.lineage
        options = (self.shelf, self.fallback, self.rules, self.engine)
        for batch in candidate_batches(self.served, self.histories, self.settings, *options):
            self.counts[start : start + len(batch.counts)] = batch.counts
            self.totals["without_signal"] += batch.without_signal
            self.totals["by_fallback"] += batch.by_fallback
            self.totals["filled_lists"] += batch.filled
            start += len(batch.counts)
            yield batch.rows.with_columns(constants).select(*schema)
            if progress:
                progress(len(batch.counts))

    def of(self, some: np.ndarray) -> UserRows:
        """The rows of some of the users, bool [U]."""
        return replace(self, histories=self.histories.select(some))

    def counted(self) -> dict[str, int]:
        """Return `totals`, and how many users have too few rows and none, once `frames` has ended."""
        lists = {
            "short_lists": self._short_lists(),
            "empty_lists": int((self.counts == 0).sum()),
        }
        return {**lists, **self.totals}

    def _short_lists(self) -> int:
        """Lists with fewer rows than they can have; a rule that lets seen items return is not counted on."""
        below = self.counts < self.settings.k
        if not below.any():  # as nearly always in a large shop, whose histories are then not read again
            return 0
        model = self.served.bundle.allowed
        allowed = np.ones(len(model), dtype=bool) if self.fallback is not None or self.served.blended else model.copy()
        if self.shelf is not None:
            allowed &= self.shelf.allowed
        allowed[PADDING] = False
        most = most_rows(self.histories.select(below), allowed, self.settings.k, self.settings.exclude_seen)
        return int((self.counts[below] < most).sum())


def rows_for(
    settings: Settings,
    versions: TableVersions,
    served: BundleRecommender,
    histories: Sequences,
    fallback: Fallback | None,
    allowed: np.ndarray | None,
    *,
    run: str,
    as_of: datetime,
) -> UserRows:
    """Rows of users by the configuration's rules.

    Parameters
    ----------
    allowed
        bool [V + 1]: items that may be recommended before the rules say theirs; None: every item.

    Raises
    ------
    InputError
        A rule cannot be applied to the catalogue, or no item that the bundle can recommend is left.
    """
    rules = rules_for(settings, served, as_of, versions, timed=histories.times is not None)
    shelf, fallback = floor(served, rules, allowed=allowed, fallback=fallback)
    return UserRows(
        settings=settings.retrieve,
        served=served,
        histories=histories,
        shelf=shelf,
        fallback=fallback,
        rules=rules,
        run=run,
        as_of=as_of,
        versions=versions,
        engine=engine_of(settings),
    )
