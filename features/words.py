"""Word vectors of item sentences: tf-idf without counts inside a sentence.

Language models place "red nail lacquer" near "pink nail polish". Shared rare words, such as the name of a brand or a
product line, mark items of the very same kind. Both together rank better than either.

Source of the weight: K. Spärck Jones, "A statistical interpretation of term specificity", Journal of Documentation 28.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from scipy import sparse

COMMON: Final = 0.5  # words in more than this share of the sentences carry no information, such as attribute names


def word_table(sentences: pl.Series) -> sparse.csr_array:
    """Return unit word vectors, float32 [n, W], of n sentences. A null or empty sentence is an empty row.

    A word is a run of letters, digits and underscores in any script, in lower case. Words of a single sentence
    match nothing and are left out, as are words of more than half of all sentences.
    """
    said = pl.DataFrame({"row": pl.int_range(len(sentences), eager=True), "word": sentences.cast(pl.String)})
    said = (
        said.with_columns(pl.col("word").str.to_lowercase().str.extract_all(r"\w+"))
        .explode("word")
        .drop_nulls()
        .unique(maintain_order=True)
    )
    used = said.group_by("word", maintain_order=True).len("items")
    filled = said["row"].n_unique()
    used = used.filter((pl.col("items") > 1) & (pl.col("items") <= max(COMMON * filled, 1))).with_row_index("column")
    used = used.with_columns((filled / pl.col("items")).log().alias("weight"))
    entries = said.join(used, on="word", how="inner", maintain_order="left")
    rows, columns, weights = (entries[name].to_numpy() for name in ("row", "column", "weight"))
    lengths = np.sqrt(np.bincount(rows, weights=weights**2, minlength=len(sentences)))
    values = (weights / lengths[rows]).astype(np.float32)
    return sparse.csr_array((values, (rows, columns)), shape=(len(sentences), len(used)))
