"""The one place for names: columns, tables, metrics. Nothing else in the project spells them out."""

from __future__ import annotations

from typing import Final

# --- interactions -----------------------------------------------------------------------------------------------
USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
TIMESTAMP: Final = "timestamp"  # Datetime("us", "UTC"); null in a log that has no time
EVENT: Final = "event"  # what the user did ("view", "purchase"); the empty string where the log does not say
WITHDRAWAL: Final = "__withdrawal"  # the event that takes back an earlier one of the same user and item
WEIGHT: Final = "weight"  # a rating, a count; null where the log does not say
POSITION: Final = "position"  # the row's place in the log, ascending; breaks ties in time, orders a log without time

# --- quarantine -------------------------------------------------------------------------------------------------
TABLE: Final = "table"
SOURCE: Final = "source"
LINE: Final = "line"
REASON: Final = "reason"
RAW: Final = "raw"
REJECTED_AT: Final = "rejected_at"

# --- forgotten users --------------------------------------------------------------------------------------------
SALT: Final = "salt"
DIGEST: Final = "digest"  # sha256 (hex) of salt and user id; of items and dates see recsys.forgetting.forgotten
FORGOTTEN_AT: Final = "forgotten_at"

# --- items ------------------------------------------------------------------------------------------------------
LISTED: Final = "__listed"  # whether the newest reading of the catalogue held the item; older tables lack the column

# --- prepared catalogue ------------------------------------------------------------------------------------------
TITLE: Final = "title"  # what people see of an item
SENTENCE: Final = "sentence"  # what the text encoder reads of it

# --- item vectors -----------------------------------------------------------------------------------------------
ENCODER: Final = "encoder"
CONTENT_HASH: Final = "content_hash"
VECTOR: Final = "vector"

# --- candidates -------------------------------------------------------------------------------------------------
RUN: Final = "run"
RANK: Final = "rank"
SCORE: Final = "score"
CANDIDATE_SOURCE: Final = "source"  # who proposed it: "vector", "vector+transitions", ...
BUNDLE: Final = "bundle"
INDEX: Final = "index"
AS_OF: Final = "as_of"
INTERACTIONS_VERSION: Final = "interactions_version"
ITEMS_VERSION: Final = "items_version"

# --- tables of the warehouse (folders of one root) ----------------------------------------------------------------
INTERACTIONS: Final = "interactions"
ITEMS: Final = "items"
USERS: Final = "users"
QUARANTINE: Final = "quarantine"
ITEM_VECTORS: Final = "item_vectors"
CANDIDATES: Final = "candidates"  # of the first configuration; those of another name: "candidates-NAME"
FORGOTTEN: Final = "forgotten"

PADDING: Final = 0  # the code that stands for no item, in every array of codes


def metric_name(metric: str, k: int, part: str | None = None) -> str:
    """Name of a metric as MLflow accepts it: letters, digits, `_` and `/` only.

    >>> metric_name("ndcg", 10, "test")
    'test/ndcg_at_10'
    >>> metric_name("hr", 5)
    'hr_at_5'
    """
    name = f"{metric}_at_{k}"
    return f"{part}/{name}" if part else name
