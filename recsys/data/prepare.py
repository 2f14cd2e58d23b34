"""From the warehouse's tables to what models and reports read: filtered, coded, split and checked for leaks.

A pure function of (settings, table versions): every step calls it instead of passing frames around. In a night the
first call prepares and the others get the same data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import (
    EVENT,
    INTERACTIONS,
    ITEM_ID,
    ITEMS,
    POSITION,
    SENTENCE,
    TIMESTAMP,
    TITLE,
    USER_ID,
    USERS,
    WEIGHT,
    WITHDRAWAL,
)
from recsys.data.attributes import attribute_values, need_attributes
from recsys.data.baskets import in_drawn_order
from recsys.data.context import event_context
from recsys.data.leak_guard import check_no_leak, check_vocabulary
from recsys.data.sequences import Sequences, from_sorted_frame
from recsys.data.split_strategies import split_sequences
from recsys.data.splits import HeldOut, Split, moment, repeated_share
from recsys.data.vocabulary import Vocabulary, fit_vocabulary
from recsys.data.withdrawals import Withdrawals, without_withdrawn
from recsys.errors import InputError
from recsys.features.sentences import sentences
from recsys.settings import FilterSettings, ItemSettings, Settings, SplitSettings
from recsys.storage.once import once
from recsys.storage.warehouse import TableVersions, scan


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A prepared data set.

    Attributes
    ----------
    vocabulary
        V items: those of the training rows in their order, then the catalogue's others by id.
    split
        Training histories, held-out sets, and everything for serving; items as codes, with the declared attributes of
        users and the context of events.
    catalogue
        V rows, row `i` belongs to code `i + 1`: `item_id`, `title` and `sentence` (null without text), and a column
        for each declared attribute (data/attributes.py).
    report
        Counts for the run's report.
    digest
        sha256 (hex) of histories and vocabulary: the data a model was trained on.
    """

    vocabulary: Vocabulary
    split: Split
    catalogue: pl.DataFrame
    report: dict[str, Any]
    digest: str

    def trained_items(self) -> np.ndarray:
        """bool [V + 1]: items with at least one training interaction."""
        return np.bincount(self.split.train.items, minlength=self.vocabulary.size + 1) > 0


DATASET: Final = "dataset"  # the kind under which a night keeps it


def prepare(settings: Settings, versions: TableVersions) -> Dataset:
    """Read the tables at these versions and prepare them, once in a night; nobody may write into the arrays.

    Raises
    ------
    InputError
        Nothing is left after filtering, the split leaves a part empty, or the tables lack what is declared of them.
    RecsysError
        The leak guard found held-out events in training.
    """
    return once(DATASET, (settings.digest(), settings.warehouse, versions), lambda: _prepared(settings, versions))


@dataclass(frozen=True, kw_only=True, eq=False)
class Log:
    """The events that count, before any of them is held out.

    Attributes
    ----------
    histories
        Of all users; an item's code is its place among `ids`, from 1.
    ids
        Distinct item ids, in the order of the histories' first events of them.
    items
        The catalogue's rows of items that may be candidates, by id; None where there is no catalogue.
    withdrawals
        Rows that took back events.
    users_before
        Users of the table, also those of whom no event counts.
    """

    histories: Sequences
    ids: pl.Series
    items: pl.DataFrame | None
    withdrawals: Withdrawals
    users_before: int


def read_log(settings: Settings, versions: TableVersions) -> Log:
    """Read and filter the tables at these versions.

    Raises
    ------
    InputError
        Nothing is left after filtering, or the tables lack what is declared of them.
    """
    log = scan(settings.warehouse, INTERACTIONS, versions.interactions)
    standing, withdrawals = standing_events(log, settings.filter)
    kept = filter_interactions(standing, settings.filter, settings.model.event_context)
    frame = kept.collect(engine="streaming").sort(USER_ID, TIMESTAMP, POSITION)
    if settings.split.same_time == "basket":
        frame = in_drawn_order(frame, settings.seed)
    if frame.is_empty():
        raise InputError(
            "No interaction is left after [filter]: min_user_interactions = "
            f"{settings.filter.min_user_interactions}, min_item_interactions = "
            f"{settings.filter.min_item_interactions}, events = {settings.filter.events}; loosen them."
        )
    everyone = log.filter(pl.col(EVENT) != WITHDRAWAL).select(pl.col(USER_ID).n_unique())
    users_before = int(everyone.collect(engine="streaming").item())
    items = None
    if settings.items is not None and versions.items is not None:
        items = scan(settings.warehouse, ITEMS, versions.items).collect().sort(ITEM_ID)
        # items that the filter removed for having too few interactions are no candidates either;
        # items that nobody has touched yet are
        touched = log.select(ITEM_ID).unique().collect()[ITEM_ID]
        removed = touched.filter(~touched.is_in(frame[ITEM_ID].unique().implode()))
        items = items.filter(~pl.col(ITEM_ID).is_in(removed.implode()))

    every_id = frame[ITEM_ID].unique(maintain_order=True)
    raw = from_sorted_frame(frame, Vocabulary(every_id).encode(frame[ITEM_ID]))
    raw = replace(
        raw,
        context=event_context(frame, settings.model.event_context),
        attributes=attributes_of(raw.users, settings, versions),
    )
    return Log(histories=raw, ids=every_id, items=items, withdrawals=withdrawals, users_before=users_before)


def _prepared(settings: Settings, versions: TableVersions) -> Dataset:
    log = read_log(settings, versions)
    raw, every_id, items = log.histories, log.ids, log.items
    split = split_sequences(raw, settings.split, settings.seed)
    check_no_leak(split)
    vocabulary = fit_vocabulary(
        every_id.gather(split.train.items.astype(np.int64) - 1), None if items is None else items[ITEM_ID]
    )
    recode = np.concatenate([[0], vocabulary.encode(every_id)]).astype(np.int32)  # [distinct + 1]
    split = _recode(split, recode)
    check_vocabulary(
        np.isin(np.arange(1, vocabulary.size + 1), split.train.items),
        np.zeros(vocabulary.size, dtype=bool)
        if items is None
        else vocabulary.items.is_in(items[ITEM_ID].implode()).to_numpy(),
    )
    lengths = split.serving.lengths
    return Dataset(
        vocabulary=vocabulary,
        split=split,
        catalogue=align_catalogue(vocabulary, items, settings.items, settings.text.attribute_words),
        report={
            "users": len(split.serving),
            "items": vocabulary.size,
            "interactions": len(raw.items),
            "training_interactions": len(split.train.items),
            "items_without_training": int(vocabulary.size - len(np.unique(split.train.items))),
            "validation_users": len(split.validation),
            "test_users": split.test.histories.users.n_unique(),
            "test_questions": len(split.test),
            "unknown_test_items": int((split.test.targets == 0).sum()),
            "history_length_median": float(np.median(lengths)),
            "history_length_max": int(lengths.max()),
            "tied_share": _tied_share(split.serving),
            "repeated_targets": repeated_share(split.test),
            "split": settings.split.strategy,
            **_by_time(split, settings.split),
            "same_time": settings.split.same_time,
            "withdrawals": asdict(log.withdrawals),
            "left_out": {
                "users": log.users_before - len(split.serving),
                "by": _leaving_out(settings.filter, log.withdrawals),
            },
        },
        digest=digest_of(split, vocabulary),
    )


def _leaving_out(settings: FilterSettings, withdrawals: Withdrawals) -> list[str]:
    """Whatever can leave users without an event that counts."""
    said = [f"filter.{name} = {value!r}" for name, value in settings.model_dump(exclude_defaults=True).items()]
    return [*said, "withdrawals"] if withdrawals.events else said


def few_users(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The data set with a share of its training users, at least one, drawn by the seed; all of the held-out ones.

    A smaller share is a part of a larger one.
    """
    if share == 1:
        return dataset
    train = dataset.split.train
    drawn = np.random.default_rng((seed, 0)).permutation(len(train))
    kept = train.select(np.sort(drawn[: max(1, round(share * len(train)))]))
    return replace(dataset, split=replace(dataset.split, train=kept))


def standing_events(log: pl.LazyFrame, settings: FilterSettings) -> tuple[pl.LazyFrame, Withdrawals]:
    """The events that count by `filter.events` and were not taken back, and what was taken back."""
    # what does not count cannot be taken back
    counting = log if settings.events is None else log.filter(pl.col(EVENT).is_in([*settings.events, WITHDRAWAL]))
    return without_withdrawn(counting)


def filter_interactions(log: pl.LazyFrame, settings: FilterSettings, context: Collection[str] = ()) -> pl.LazyFrame:
    """Events, weights, repeats, then the iterative k-core: rows until every user and item has enough of them.

    Columns that the `context` of events needs stay.
    """
    return k_core(counting(log, settings, context), settings.min_user_interactions, settings.min_item_interactions)


def counting(log: pl.LazyFrame, settings: FilterSettings, context: Collection[str] = ()) -> pl.LazyFrame:
    """The rows that [filter] lets through one by one, however few their user or item has."""
    if settings.events is not None:
        log = log.filter(pl.col(EVENT).is_in(settings.events))
    if settings.min_weight is not None:
        log = log.filter(pl.col(WEIGHT) >= settings.min_weight)
    log = log.select(USER_ID, ITEM_ID, TIMESTAMP, POSITION, *(name for name in (EVENT, WEIGHT) if name in context))
    if settings.repeats != "keep":
        log = log.sort(USER_ID, TIMESTAMP, POSITION).unique(
            [USER_ID, ITEM_ID], keep=settings.repeats, maintain_order=True
        )
    return log


def k_core(log: pl.LazyFrame, min_user: int, min_item: int) -> pl.LazyFrame:
    """Drop users and items with too few rows until none is left that has too few."""
    if min_user <= 1 and min_item <= 1:
        return log
    frame = log.collect(engine="streaming")
    while True:
        rows = len(frame)
        frame = frame.filter(pl.len().over(ITEM_ID) >= min_item).filter(pl.len().over(USER_ID) >= min_user)
        if len(frame) == rows:
            return frame.lazy()


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


def _recode(split: Split, recode: np.ndarray) -> Split:
    """Codes of distinct ids to codes of the vocabulary. Items that the vocabulary lacks leave the histories."""

    def sequences(part: Sequences) -> Sequences:
        codes = recode[part.items]
        known = codes > 0
        recoded = replace(part, items=codes)
        return recoded if known.all() else recoded.keep(known)

    def held_out(part: HeldOut) -> HeldOut:
        return replace(
            part,
            histories=sequences(part.histories),
            targets=recode[part.targets],
            others=None if part.others is None else sequences(part.others),
        )

    return replace(
        split,
        train=sequences(split.train),
        validation=held_out(split.validation),
        test=held_out(split.test),
        newcomers=None if split.newcomers is None else held_out(split.newcomers),
        serving=sequences(split.serving),
    )


def _tied_share(sequences: Sequences) -> float | None:
    """Share of events that stand at the same moment as a neighbour of the same user; None without time."""
    if sequences.times is None:
        return None
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)
    same = (np.diff(sequences.times) == 0) & (np.diff(owner) == 0)
    tied = np.concatenate([[False], same]) | np.concatenate([same, [False]])
    return float(tied.mean())


def _by_time(split: Split, settings: SplitSettings) -> dict[str, Any]:
    """Describe a split by time for the report; nothing of another one."""
    if split.test_from is None or split.validation_from is None:
        return {}
    newcomers = split.newcomers
    return {
        "test_from": moment(split.test_from),
        "training_until": moment(split.validation_from),
        "target": settings.target,
        "validation": settings.validation,
        "users_without_history": split.users_without_history,
        "questions_apart": 0 if newcomers is None else len(newcomers),
        "cold_test_targets": split.cold_targets,
        "cold_items": settings.cold_items,
    }


def digest_of(split: Split, vocabulary: Vocabulary) -> str:
    """Return the sha256 (hex) of histories and vocabulary."""
    digest = hashlib.sha256(vocabulary.digest.encode())
    for part in (split.train, split.serving):
        digest.update(part.items.tobytes())
        digest.update(part.offsets.tobytes())
    digest.update("\n".join(split.serving.users.cast(pl.String).to_list()).encode())
    return digest.hexdigest()
