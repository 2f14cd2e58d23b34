"""Attributes of items and users, in the order of the vocabulary and of the histories."""

from __future__ import annotations

import polars as pl

from recsys.columns import ITEM_ID, ITEMS, SENTENCE, TITLE, USER_ID, USERS
from recsys.data.attributes import attribute_values
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.features.sentences import sentences
from recsys.ingestion.declared_attributes import need_attributes
from recsys.settings import ItemSettings, Settings
from recsys.storage.warehouse import TableVersions, scan


def align_catalogue(
    vocabulary: Vocabulary, items: pl.DataFrame | None, settings: ItemSettings | None, words: int | None = None
) -> pl.DataFrame:
    """The catalogue's rows in the vocabulary's order; items that it does not list have nulls.

    Parameters
    ----------
    words
        Of one attribute in the sentence, at most.

    Returns
    -------
    DataFrame
        `item_id`, `title` (String), `sentence` (String), and a column for each declared attribute.

    Raises
    ------
    InputError
        The catalogue lacks an attribute, or a numeric one has no numbers.
    """
    ids = pl.DataFrame({ITEM_ID: vocabulary.items})
    if items is None or settings is None:
        return ids.with_columns(pl.lit(None, pl.String).alias(TITLE), pl.lit(None, pl.String).alias(SENTENCE))
    need_attributes(ITEMS, settings, items.columns)
    rows = ids.join(items, on=ITEM_ID, how="left", maintain_order="left")
    title = pl.lit(None, pl.String)
    sentence = pl.Series(SENTENCE, [None] * len(rows), dtype=pl.String)
    if settings.text:
        title = _as_text(rows.schema[settings.text[0]], settings.text[0])
        sentence = sentences(rows, settings.text, words=words).alias(SENTENCE)
    prepared = rows.select(ITEM_ID, title.alias(TITLE), sentence)
    return prepared.hstack(attribute_values(ITEMS, settings, rows).get_columns())


def attributes_of(users: pl.Series, settings: Settings, versions: TableVersions) -> pl.DataFrame | None:
    """The declared attributes of these users, a row each; nulls where the table does not list one.

    Raises
    ------
    InputError
        The warehouse has no table of users although one is declared, or it lacks an attribute.
    """
    declared = settings.users
    if declared is None or not (declared.categorical or declared.numeric):
        return None
    if versions.users is None:
        raise InputError(
            f"users.source is declared and the warehouse {settings.warehouse} has no table {USERS!r}; run "
            "`recsys ingest` first."
        )
    table = scan(settings.warehouse, USERS, versions.users).collect()
    need_attributes(USERS, declared, table.columns)
    rows = users.alias(USER_ID).to_frame().join(table, on=USER_ID, how="left", maintain_order="left")
    return attribute_values(USERS, declared, rows)


def _as_text(dtype: pl.DataType, name: str) -> pl.Expr:
    column = pl.col(name)
    return column.cast(pl.List(pl.String)).list.join(", ") if dtype == pl.List else column.cast(pl.String)
