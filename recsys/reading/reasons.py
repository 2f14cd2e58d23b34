"""Why a row is not read: what readers and contracts say of it, and the columns in which they say it."""

from __future__ import annotations

from typing import Final

import polars as pl

from recsys.columns import ITEM_ID, TIMESTAMP, USER_ID

FILE_LINE: Final = "__line"  # what readers add to a file's own columns
FILE_RAW: Final = "__raw"
DEFECT: Final = "__defect"

BAD_BYTES: Final = "bytes that are not the declared encoding"
WRONG_FIELDS: Final = "wrong number of fields"
OPEN_QUOTE: Final = "a quote that is not closed"
HEADER_AGAIN: Final = "the header line again"
NO_RECORD: Final = "not a JSON object"
NESTED: Final = "a list or an object where one value belongs"
INEXACT_ID: Final = "an id in a float too large to hold every integer"
MISSING: Final = {name: f"missing {name}" for name in (USER_ID, ITEM_ID, TIMESTAMP)}
NOT_INTEGER: Final = {name: f"{name} is not an integer, as the table's are" for name in (USER_ID, ITEM_ID)}
WEIGHT_TYPE: Final = "weight is not a number"
BAD_TIME: Final = "unparsable time"
NAIVE_TIME: Final = "time without a zone"
SKIPPED_TIME: Final = "time that the zone's clock skips"
FUTURE_TIME: Final = "time in the future"

REASONS: Final = pl.Enum(
    [
        BAD_BYTES,
        WRONG_FIELDS,
        OPEN_QUOTE,
        HEADER_AGAIN,
        NO_RECORD,
        NESTED,
        INEXACT_ID,
        *MISSING.values(),
        *NOT_INTEGER.values(),
        WEIGHT_TYPE,
        BAD_TIME,
        NAIVE_TIME,
        SKIPPED_TIME,
        FUTURE_TIME,
    ]
)


def first_reason(*rules: tuple[pl.Expr, str]) -> pl.Expr:
    """The reason of the first rule (condition, reason) that a row meets; null where it meets none."""
    return pl.coalesce(*(pl.when(condition).then(pl.lit(reason, dtype=REASONS)) for condition, reason in rules))


def no_reason() -> pl.Expr:
    """A column of rows that are all in order."""
    return pl.lit(None, dtype=REASONS)
