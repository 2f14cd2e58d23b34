"""A bundle that answers, for Python: polars frames in, polars frames out."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl

from recsys.columns import CANDIDATE_SOURCE, ITEM_ID, PADDING, RANK, SCORE, TITLE, USER_ID
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.serving.batches import candidate_batches
from recsys.serving.recommender import BundleRecommender, open_bundle
from recsys.settings import RetrieveSettings

_LOGGER: Final = logging.getLogger("recsys")

Histories = pl.DataFrame | pl.LazyFrame | Iterable[Iterable[Any]]


class Model:
    """A trained model with its item ids, index and blend.

    Attributes
    ----------
    served
        What answers the command, the candidate table and MLflow's model, too.
    """

    def __init__(self, served: BundleRecommender) -> None:
        self.served = served

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a bundle's folder; every file is compared with its hash."""
        return cls(open_bundle(path))

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.served.bundle.path

    @property
    def items(self) -> pl.DataFrame:
        """The catalogue that it knows: `item_id`, `title`, ..."""
        return self.served.bundle.catalogue

    def recommend(self, histories: Histories, k: int = 10, *, exclude_seen: bool = True) -> pl.DataFrame:
        """The k best items after each history.

        Parameters
        ----------
        histories
            Lists of raw item ids, oldest first; or a frame with `user_id` and `item_id`, one row an event, each user's
            oldest first.
        k
            Items a history; fewer where the catalogue has no more.
        exclude_seen
            Leave out the history's own items.

        Returns
        -------
        DataFrame
            `user_id` (the list's place, from 0, where lists were given), `rank` (from 1), `item_id`, `title`, `score`,
            `source`. Histories in the order given. One without any known item has no row.

        Raises
        ------
        InputError
            The frame lacks a column, or k is below 1.
        """
        if not isinstance(k, int) or k < 1:
            raise InputError(f"k = {k!r} must be a number of items, at least 1.")
        given = self._sequences(histories)
        settings = RetrieveSettings(k=k, exclude_seen=exclude_seen)
        known = given.select(np.flatnonzero(given.lengths > 0))
        frames = [batch.rows for batch in candidate_batches(self.served, known, settings)]
        title = pl.col(TITLE) if TITLE in self.items.columns else pl.lit(None, pl.String).alias(TITLE)
        titles = self.items.select(ITEM_ID, title)
        columns = (USER_ID, RANK, ITEM_ID, TITLE, SCORE, CANDIDATE_SOURCE)
        if not frames:
            item, nothing = titles.schema[ITEM_ID], pl.Series([], dtype=pl.Null)
            types = (given.users.dtype, pl.Int32(), item, pl.String(), pl.Float32(), pl.String())
            return pl.DataFrame({name: nothing.cast(kind) for name, kind in zip(columns, types, strict=True)})
        return pl.concat(frames).join(titles, on=ITEM_ID, how="left", maintain_order="left").select(*columns)

    def similar(self, item: Any, k: int = 10) -> pl.DataFrame:
        """The k items whose vectors are nearest by cosine: `rank`, `item_id`, `title`, `score`.

        Raises
        ------
        InputError
            An unknown item, or one without a vector.
        """
        return pl.DataFrame(self.served.similar(item, k))

    def encode(self, histories: Histories) -> np.ndarray:
        """float32 [U, D]: a vector for each history; its dot product with a row of `vectors` is the model's score."""
        return self.served.encode(self._sequences(histories))

    @property
    def vectors(self) -> np.ndarray:
        """float32 [V, D]: a vector for each row of `items`."""
        return self.served.bundle.vectors[1:]

    def _sequences(self, histories: Histories) -> Sequences:
        """Histories by item code; items that the bundle does not know are left out."""
        if isinstance(histories, pl.LazyFrame):
            histories = histories.collect()
        if isinstance(histories, pl.DataFrame):
            missing = [name for name in (USER_ID, ITEM_ID) if name not in histories.columns]
            if missing:
                raise InputError(
                    f"The frame of histories has no column {' and no '.join(map(repr, missing))}, only "
                    f"{', '.join(histories.columns)}; rename its columns."
                )
            grouped = histories.group_by(USER_ID, maintain_order=True).agg(pl.col(ITEM_ID))
            users, lists = grouped[USER_ID], grouped[ITEM_ID].to_list()
        else:
            lists = [_history(history) for history in histories]
            users = pl.Series(USER_ID, range(len(lists)), dtype=pl.Int64)
        flat = pl.Series(ITEM_ID, [_written(item) for items in lists for item in items], dtype=pl.String)
        codes = self.served.bundle.vocabulary.encode(flat)
        offsets = np.concatenate([[0], np.cumsum([len(items) for items in lists])]).astype(np.int64)
        if unknown := int((codes == PADDING).sum()):
            _LOGGER.warning(
                "%d of %d items of the histories are unknown to the bundle and left out.", unknown, len(codes)
            )
        whole = Sequences(users=users, items=codes, offsets=offsets)
        return whole.keep(codes > 0)


def _history(items: Any) -> list[Any]:
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise InputError(f"{items!r} is no history; give a list of item ids a user, such as [['a', 'b'], ['c']].")
    return list(items)


def _written(item: Any) -> str | None:
    """An id as the vocabulary writes it: 1.0 is 1."""
    if item is None:
        return None
    return str(int(item)) if isinstance(item, float) and item.is_integer() else str(item)
