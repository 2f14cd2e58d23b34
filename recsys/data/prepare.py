"""From the warehouse's tables to what models and reports read: filtered, coded, split and checked for leaks.

A pure function of (settings, table versions): every step calls it instead of passing frames around. The first call
writes the data set to this machine's disk, and every other one, in whatever process, maps the files into memory.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS, PADDING, USERS
from recsys.data.catalogue import align_catalogue
from recsys.data.leak_guard import check_no_leak, check_vocabulary
from recsys.data.log import LOG, home_of, log_key, read_log
from recsys.data.mapped import FRAME, read_frame, write_frame
from recsys.data.sequences import AT_ONCE, Sequences, event_counts, first_codes
from recsys.data.split_files import read_split, write_split
from recsys.data.split_strategies import split_sequences
from recsys.data.splits import Split, moment, repeated_share
from recsys.data.vocabulary import Vocabulary, fit_vocabulary
from recsys.data.withdrawals import Withdrawals
from recsys.settings import FilterSettings, Settings, SplitSettings
from recsys.storage.artefacts import obtain
from recsys.storage.identity import identity
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
        return event_counts(self.split.train.items, self.vocabulary.size) > 0


DATASET: Final = "dataset"  # the kind under which a night keeps it


def prepare(settings: Settings, versions: TableVersions) -> Dataset:
    """The tables at these versions, prepared; nobody may write into the arrays.

    Raises
    ------
    InputError
        Nothing is left after filtering, the split leaves a part empty, the tables lack what is declared of them, or
        memory or disk does not suffice.
    RecsysError
        The leak guard found held-out events in training.
    """
    return once(DATASET, (settings.digest(), settings.warehouse, versions), lambda: _obtain(settings, versions))


def _obtain(settings: Settings, versions: TableVersions) -> Dataset:
    """The data set from this machine's disk, made where it is not there."""
    for table, version in _tables(settings, versions):
        scan(settings.warehouse, table, version)  # says whether it is damaged
    parts = [
        log_key(settings, versions),
        [identity(settings.warehouse, table, version) for table, version in _tables(settings, versions)],
        settings.split.model_dump(mode="json"),
        settings.seed,
        settings.items and settings.items.model_dump(mode="json"),
        settings.users and settings.users.model_dump(mode="json"),
        settings.text.attribute_words,
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    write = partial(_write, settings=settings, versions=versions)
    return obtain(home_of(settings.warehouse), DATASET, key, write, _read)


def _tables(settings: Settings, versions: TableVersions) -> list[tuple[str, int]]:
    """The tables that a data set is made of, and their versions."""
    found = [
        (INTERACTIONS, versions.interactions),
        (ITEMS, None if settings.items is None else versions.items),
        (USERS, None if settings.users is None else versions.users),
    ]
    return [(table, version) for table, version in found if version is not None]


def _read(folder: Path, facts: Any) -> Dataset:
    """Map a data set's files into memory."""
    return Dataset(
        vocabulary=Vocabulary(read_frame(folder / f"vocabulary{FRAME}")[ITEM_ID]),
        split=read_split(folder, facts["split"]),
        catalogue=read_frame(folder / f"catalogue{FRAME}"),
        report=dict(facts["report"]),
        digest=facts["digest"],
    )


def _write(folder: Path, settings: Settings, versions: TableVersions) -> dict[str, Any]:
    """Split, code and check the log; fill the folder of an artefact."""
    log = read_log(settings, versions)
    raw, items = log.histories, log.items
    split = split_sequences(raw, settings.split, settings.seed)
    check_no_leak(split)
    order = first_codes((block.items for _, block in split.train.blocks()), len(log.ids))
    vocabulary = fit_vocabulary(log.ids.gather(order - 1), None if items is None else items[ITEM_ID])
    recode = np.concatenate([[PADDING], vocabulary.encode(log.ids)]).astype(np.int32)  # [distinct + 1]
    plain = write_split(folder, split, recode, log.folder / LOG)
    split = read_split(folder, plain)
    trained = event_counts(split.train.items, vocabulary.size)[1:] > 0
    check_vocabulary(
        trained,
        np.zeros(vocabulary.size, dtype=bool)
        if items is None
        else vocabulary.items.is_in(items[ITEM_ID].implode()).to_numpy(),
    )
    write_frame(folder / f"vocabulary{FRAME}", vocabulary.items.alias(ITEM_ID).to_frame())
    catalogue = align_catalogue(vocabulary, items, settings.items, settings.text.attribute_words)
    write_frame(folder / f"catalogue{FRAME}", catalogue)
    lengths = split.serving.lengths
    report = {
        "users": len(split.serving),
        "items": vocabulary.size,
        "interactions": len(raw.items),
        "training_interactions": len(split.train.items),
        "items_without_training": int((~trained).sum()),
        "validation_users": len(split.validation),
        "test_users": split.test.histories.users.n_unique(),
        "test_questions": len(split.test),
        "unknown_test_items": int((split.test.targets == PADDING).sum()),
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
    }
    return {"report": report, "digest": digest_of(split, vocabulary), "split": plain}


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
    kept = train.select(drawn_share(len(train), share, seed))
    return replace(dataset, split=replace(dataset.split, train=kept))


def drawn_share(users: int, share: float, seed: int) -> np.ndarray:
    """A share of so many users, at least one, drawn by the seed: their places, int64 ascending."""
    drawn = np.random.default_rng((seed, 0)).permutation(users)
    return np.sort(drawn[: max(1, round(share * users))])


def _tied_share(sequences: Sequences) -> float | None:
    """Share of events that stand at the same moment as a neighbour of the same user; None without time."""
    if sequences.times is None:
        return None
    tied = 0
    for _, block in sequences.blocks():
        assert block.times is not None
        owner = np.repeat(np.arange(len(block)), block.lengths)
        same = (np.diff(block.times) == 0) & (np.diff(owner) == 0)
        tied += int((np.concatenate([[False], same]) | np.concatenate([same, [False]])).sum())
    return tied / len(sequences.items)


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
        digest.update(np.ascontiguousarray(part.items).data)
        digest.update(np.ascontiguousarray(part.offsets).data)
    users = split.serving.users.cast(pl.String)
    for start in range(0, len(users), AT_ONCE):
        digest.update(("\n" * (start > 0) + "\n".join(users[start : start + AT_ONCE].to_list())).encode())
    return digest.hexdigest()
