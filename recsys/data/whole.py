"""All events as training data, for the bundle that is served: nothing is held out, and nothing can be measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID
from recsys.data.catalogue import align_catalogue
from recsys.data.log import read_log
from recsys.data.prepare import Dataset, digest_of, few_users
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, Split
from recsys.data.vocabulary import Vocabulary
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions


def whole_dataset(settings: Settings, versions: TableVersions, known: Vocabulary) -> Dataset:
    """Prepare the tables at these versions with every event in the training part.

    Parameters
    ----------
    known
        The measured bundle's. Its codes stay; items that only held-out or newer events have come behind them, and then
        the rare ones that `filter.rare_items` lets be placed by their content.

    Returns
    -------
    Dataset
        Validation and test ask nothing. `train.users` applies, as it does to what was measured.

    Raises
    ------
    InputError
        Nothing is left after filtering, or the tables lack what is declared of them.
    """
    log = read_log(settings, versions)
    vocabulary = known.grow(log.ids)
    items = log.items
    if items is not None and log.rare is not None and settings.filter.rare_items == "by-content":
        items = pl.concat([items, log.rare])
    if items is not None:
        vocabulary = vocabulary.grow(items[ITEM_ID])
    recode = np.concatenate([[0], vocabulary.encode(log.ids)]).astype(np.int32)
    histories = replace(log.histories, items=recode[log.histories.items])
    split = Split(train=histories, validation=_nothing(histories), test=_nothing(histories), serving=histories)
    dataset = Dataset(
        vocabulary=vocabulary,
        split=split,
        catalogue=align_catalogue(vocabulary, items, settings.items, settings.text.attribute_words),
        report={
            "users": len(histories),
            "items": vocabulary.size,
            "new_items": vocabulary.size - known.size,
            "training_interactions": len(histories.items),
        },
        digest=digest_of(split, vocabulary),
    )
    return few_users(dataset, settings.train.users, settings.seed)


def in_codes_of(dataset: Dataset, known: Vocabulary) -> Dataset:
    """Cut a data set down to the vocabulary that it grew from: events of other items are left out."""
    if dataset.vocabulary.size == known.size:
        return dataset
    train = dataset.split.train
    split = replace(dataset.split, train=train.keep(train.items <= known.size))
    return replace(dataset, vocabulary=known, split=split, catalogue=dataset.catalogue.head(known.size))


def _nothing(histories: Sequences) -> HeldOut:
    """Return a held-out part without a question."""
    return HeldOut(
        histories=histories.select(np.arange(0)),
        targets=np.zeros(0, dtype=np.int32),
        times=None if histories.times is None else np.zeros(0, dtype=np.int64),
    )
