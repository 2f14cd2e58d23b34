"""Check of the catalogue: the share of the items listed for the served table that are still listed.

A file that was cut off, or a missing one of several, takes all of its items off the shelf. The comparison is with the
last published night, so that a second night on the same file is kept back, too. The limit is of a day and follows the
time since, or else a range that changes by a few percent a day would be kept back for ever after some days without a
new table.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import polars as pl
from deltalake.exceptions import DeltaError

from recsys.columns import ITEM_ID, ITEMS, LISTED
from recsys.errors import RecsysError, first_line
from recsys.gate.check import Check, at_least, skipped, unless_off
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, scan

NAME: Final = "items of the catalogue before"
FEWEST_ITEMS: Final = 20  # listed before, from which a share says something


def check_listed(before: pl.Series, now: pl.Series, limit: float, days: int = 1) -> Check:
    """Compare the share of the items listed some days before that are still listed with the limit of so many days."""
    limit **= days
    if len(before) < FEWEST_ITEMS:
        return skipped(NAME, f"{len(before)} items are too few for a share ({FEWEST_ITEMS} are needed).", limit)
    gone = int((~before.cast(pl.String).is_in(now.cast(pl.String).implode())).sum())
    which = f"{gone:,} of the {len(before):,} items that it listed for the table served now"
    since = "" if days == 1 else f" That table was made {days} days ago, and gate.min_listed is for one day."
    return at_least(NAME, 1 - gone / len(before), limit, f"The catalogue no longer lists {which}.{since}")


def days_between(made: datetime | None, now: datetime) -> int:
    """Return the whole days from one moment to another, at least 1; 1 where the first is not known."""
    return 1 if made is None else max(1, (now - made).days)


def check_catalogue(
    settings: Settings, versions: TableVersions, ingested: Mapping[str, Any], before: int | None, days: int
) -> Check:
    """Compare the catalogue of a night with that of the served table.

    Parameters
    ----------
    ingested
        Report of the night's ingest.
    before
        Version of the catalogue that the served table was made with; None: there was none.
    days
        Since then; see `days_between`.
    """

    def make(least: float) -> Check:
        if settings.items is None or versions.items is None:
            return skipped(NAME, "There is no catalogue.", least)
        if settings.retrieve.items == "all":
            said = 'Items that the catalogue no longer lists are recommended, too (retrieve.items = "all").'
            return skipped(NAME, said, least)
        if ingested.get("begins", {}).get(ITEMS):
            said = "Only new and changed rows of the catalogue were read; the other items stay listed."
            return skipped(NAME, said, least)
        if before is None:
            return skipped(NAME, "The table served now was made without a catalogue.", least)
        try:
            then, now = (_listed(settings.warehouse, version) for version in (before, versions.items))
        except (RecsysError, DeltaError, OSError, pl.exceptions.PolarsError) as error:
            said = f"The catalogue of the table served now cannot be read: {first_line(error)}."
            return skipped(NAME, said, least)
        return check_listed(then, now, least, days)

    return unless_off(NAME, settings.gate.min_listed, make)


def _listed(root: str, version: int) -> pl.Series:
    """Ids of the items that a version of the catalogue lists."""
    table = scan(root, ITEMS, version)
    if LISTED in table.collect_schema():
        table = table.filter(LISTED)
    return table.select(ITEM_ID).collect(engine="streaming")[ITEM_ID]
