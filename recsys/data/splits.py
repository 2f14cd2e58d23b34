"""What is held out: the last items of every user, or everything after a moment; and the guard against leaks.

Leave-one-out lets other users' future into training (peers do the same, and the report says so); the time split does
not. Evaluation asks for the *next* item: one target a user, the first event after the history.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from recsys.config import SplitSettings
from recsys.data.sequences import Sequences
from recsys.errors import InputError, RecsysError


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class HeldOut:
    """Histories, and the item that came next.

    `targets` int32 [U]: the item's code; 0 stands for an item that the vocabulary does not know, always a miss.
    `times` int64 [U]: the target's time in microseconds; None in a log without time.
    """

    histories: Sequences
    targets: np.ndarray
    times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Split:
    """Training histories, the two held-out sets, and every user's whole history for serving."""

    train: Sequences
    validation: HeldOut
    test: HeldOut
    serving: Sequences
    test_from: int | None = None  # time split: microseconds since the epoch
    validation_from: int | None = None


def split_sequences(sequences: Sequences, settings: SplitSettings) -> Split:
    """Split by the configured strategy.

    Raises
    ------
    InputError
        A time split of a log without time, a cut-off that leaves one side empty, no user with three events.
    """
    if settings.strategy == "leave-one-out":
        if sequences.lengths.max() < 3:
            raise InputError(
                f"None of the {len(sequences)} users has three interactions, which split.strategy = "
                '"leave-one-out" needs to hold out two; give longer histories, or use strategy = "time".'
            )
        return leave_one_out(sequences)
    if sequences.times is None:
        raise InputError(
            'split.strategy = "time" needs a timestamp in every interaction and this log has none; '
            'name the column in interactions.columns or use strategy = "leave-one-out".'
        )
    test_from, validation_from = cut_offs(sequences.times, settings)
    return time_split(sequences, validation_from=validation_from, test_from=test_from)


def leave_one_out(sequences: Sequences) -> Split:
    """The last item is the test target, the one before it the validation target, the rest trains.

    Users with fewer than three events train only. The test history holds the validation item.
    """
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    everyone = np.arange(len(sequences))
    long = np.flatnonzero(sequences.lengths >= 3)
    return Split(
        train=sequences.crop(everyone, starts, np.where(sequences.lengths >= 3, ends - 2, ends)),
        validation=_held_out(sequences, long, ends[long] - 2),
        test=_held_out(sequences, long, ends[long] - 1),
        serving=sequences,
    )


def time_split(sequences: Sequences, *, validation_from: int, test_from: int) -> Split:
    """Events before `validation_from` train; the first event at or after a cut-off is that part's target.

    Times in microseconds since the epoch. Events at the same moment fall on the same side. A user needs at least one
    event before a cut-off to be asked for the next one; the validation target must lie before `test_from`.
    """
    assert sequences.times is not None
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    first_validation = starts + _count_before(sequences, validation_from)
    first_test = starts + _count_before(sequences, test_from)
    trained = np.flatnonzero(first_validation > starts)
    asked_validation = np.flatnonzero((first_validation > starts) & (first_validation < first_test))
    asked_test = np.flatnonzero((first_test > starts) & (first_test < ends))
    for name, users, cut in (
        ("training", trained, validation_from),
        ("validation", asked_validation, validation_from),
        ("test", asked_test, test_from),
    ):
        if not len(users):
            raise InputError(
                f"The time split leaves no user for {name} (cut-off {_iso(cut)}, the log runs from "
                f"{_iso(int(sequences.times.min()))} to {_iso(int(sequences.times.max()))}); move the cut-offs."
            )
    return Split(
        train=sequences.crop(trained, starts[trained], first_validation[trained]),
        validation=_held_out(sequences, asked_validation, first_validation[asked_validation]),
        test=_held_out(sequences, asked_test, first_test[asked_test]),
        serving=sequences,
        test_from=test_from,
        validation_from=validation_from,
    )


def cut_offs(times: np.ndarray, settings: SplitSettings) -> tuple[int, int]:
    """(test_from, validation_from) in microseconds: the configured moments, or quantiles of the events' times.

    The realised shares are approximate because events of one moment stay on one side.
    """
    test, validation = settings.test_fraction, settings.validation_fraction
    ordered = np.sort(times)

    def quantile(share: float) -> int:
        return int(ordered[min(int(len(ordered) * share), len(ordered) - 1)])

    def configured(moment: datetime | None) -> int | None:
        return None if moment is None else round(moment.timestamp() * 1_000_000)

    test_from = configured(settings.test_from)
    if test_from is None:
        test_from = quantile(1 - test)
        if test_from == ordered[0]:
            raise InputError(
                f"split.test_fraction = {test:g} cannot divide the log: nearly all of it is of {_iso(test_from)}; "
                'set split.test_from, or use split.strategy = "leave-one-out".'
            )
    validation_from = configured(settings.validation_from)
    if validation_from is None:
        before = ordered[ordered < test_from]
        if not len(before):
            raise InputError(
                f"split.test_from = {_iso(test_from)} lies before every interaction (the first is of "
                f"{_iso(int(ordered[0]))}); move it."
            )
        validation_from = int(before[min(int(len(before) * (1 - validation / (1 - test))), len(before) - 1)])
    return test_from, validation_from


def repeated_share(part: HeldOut) -> float:
    """Share of the targets that the user's history holds already; no list without seen items can hold them."""
    owner = np.repeat(np.arange(len(part)), part.histories.lengths)
    hits = part.histories.items == part.targets[owner]
    return float((np.bincount(owner[hits], minlength=len(part)) > 0).mean()) if len(part) else 0.0


def check_no_leak(split: Split) -> None:
    """Fail the run when training saw what it is measured on.

    Time split: no training event at or after the validation cut, no history event at or after its target's cut.
    Leave-one-out: every training history is the beginning of the same user's validation and test histories.

    Raises
    ------
    RecsysError
        A leak; names the first offending user.
    """
    if split.validation_from is not None and split.test_from is not None:
        for name, part, cut in (
            ("training", split.train, split.validation_from),
            ("validation history", split.validation.histories, split.validation_from),
            ("test history", split.test.histories, split.test_from),
        ):
            assert part.times is not None
            late = np.flatnonzero(part.times >= cut)
            if len(late):
                user = int(np.searchsorted(part.offsets, late[0], side="right") - 1)
                raise RecsysError(
                    f"Leak: {len(late)} {name} events lie at or after the cut-off {_iso(cut)} "
                    f"(first: user {part.users[user]!r} at {_iso(int(part.times[late[0]]))})."
                )
        return
    places = split.train.users.alias("user").to_frame().with_row_index("place")
    for name, asked, further in (("validation", split.validation, 0), ("test", split.test, 1)):
        histories = asked.histories
        users = histories.users.alias("user").to_frame()
        train = split.train.select(users.join(places, on="user", how="left", maintain_order="left")["place"].to_numpy())
        leaked = np.flatnonzero(train.lengths + further != histories.lengths)
        if not len(leaked):  # as long as they should be: are they the same events?
            starts = histories.offsets[:-1]
            prefix = histories.crop(np.arange(len(histories)), starts, starts + train.lengths)
            leaked = np.searchsorted(prefix.offsets, np.flatnonzero(train.items != prefix.items), side="right") - 1
        if len(leaked):
            user = int(leaked[0])
            raise RecsysError(
                f"Leak: user {histories.users[user]!r} trains on {train.lengths[user]} events but the {name} history "
                f"has {histories.lengths[user]}; training must be its beginning and stop two events before the end."
            )


def check_vocabulary(trained: np.ndarray, in_catalogue: np.ndarray) -> None:
    """Fail the run when the vocabulary knows an item from held-out rows alone.

    Parameters
    ----------
    trained, in_catalogue
        bool [V], one for each item: it has a training event, the catalogue lists it.

    Raises
    ------
    RecsysError
        A leak; says how many items, and the first one's code.
    """
    leaked = np.flatnonzero(~trained & ~in_catalogue)
    if len(leaked):
        raise RecsysError(
            f"Leak: the vocabulary holds {len(leaked)} items that neither a training event nor the catalogue has "
            f"(first: code {leaked[0] + 1})."
        )


def _held_out(sequences: Sequences, users: np.ndarray, target_index: np.ndarray) -> HeldOut:
    return HeldOut(
        histories=sequences.crop(users, sequences.offsets[users], target_index),
        targets=sequences.items[target_index],
        times=None if sequences.times is None else sequences.times[target_index],
    )


def _count_before(sequences: Sequences, moment: int) -> np.ndarray:
    """int64 [U] events of each user before a moment."""
    assert sequences.times is not None
    before = np.concatenate([[0], np.cumsum(sequences.times < moment)])
    return before[sequences.offsets[1:]] - before[sequences.offsets[:-1]]


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC).isoformat()
