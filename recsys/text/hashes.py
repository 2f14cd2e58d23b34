"""The key of a text's vector: what the words are, not whose they are."""

from __future__ import annotations

import hashlib

import polars as pl

from recsys.columns import CONTENT_HASH, SENTENCE


def hashed(sentences: pl.Series) -> pl.DataFrame:
    """Distinct sentences that say something, in order of first appearance, with the sha256 of each."""
    distinct = sentences.drop_nulls().unique(maintain_order=True)
    distinct = distinct.filter(distinct != "")
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in distinct]
    return pl.DataFrame({SENTENCE: distinct, CONTENT_HASH: pl.Series(hashes, dtype=pl.String)})
