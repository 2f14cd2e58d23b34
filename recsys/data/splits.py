"""What is held out: the last items of every user, or everything after a moment; and the guard against leaks.

Leave-one-out lets other users' future into training (peers do the same, and the report says so); the time split does
not. Evaluation asks for the *next* item: one target a user, the first event after the history. Where baskets are steps,
the rest of the target's basket is kept apart; see data/baskets.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from recsys.data.baskets import basket_starts
from recsys.data.sequences import Sequences
from recsys.errors import InputError, RecsysError
from recsys.settings import SplitSettings


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class HeldOut:
    """Histories, and the item that came next.

    `targets` int32 [U]: the item's code; 0 stands for an item that the vocabulary does not know, always a miss.
    `times` int64 [U]: the target's time in microseconds; None in a log without time.
    `others`: what else the target's basket holds, for the same users; None where baskets are not told.
    """

    histories: Sequences
    targets: np.ndarray
    times: np.ndarray | None = None
    others: Sequences | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, users: np.ndarray) -> HeldOut:
        """The questions of some users (int indices), in the order given."""
        return HeldOut(
            histories=self.histories.select(users),
            targets=self.targets[users],
            times=None if self.times is None else self.times[users],
            others=None if self.others is None else self.others.select(users),
        )

    def rest(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return items not ranked against the targets of users `start` to `stop`: row and code, int64 [R]."""
        if self.others is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        part = self.others.select(np.arange(start, stop))
        rows = np.repeat(np.arange(stop - start), part.lengths)
        other = (part.items != self.targets[start + rows]) & (part.items > 0)  # bought and viewed, at once
        return rows[other], part.items[other].astype(np.int64)


def some_users(held_out: HeldOut, count: int | None, seed: int) -> HeldOut:
    """So many users of a held-out set, drawn by the seed; None: all."""
    if count is None or count >= len(held_out):
        return held_out
    return held_out.select(np.sort(np.random.default_rng((seed, 0)).permutation(len(held_out))[:count]))


def drawn_users(held_out: HeldOut, count: int, rng: np.random.Generator) -> HeldOut:
    """At most so many users of a held-out set, drawn at random, in their order."""
    if count >= len(held_out):
        return held_out
    return held_out.select(np.sort(rng.choice(len(held_out), size=count, replace=False)))


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
    baskets = settings.same_time == "basket"
    if settings.strategy == "leave-one-out":
        split = leave_one_out(sequences, baskets=baskets)
        if not len(split.test):
            what = "baskets (interactions at different times)" if baskets else "interactions"
            raise InputError(
                f"None of the {len(sequences)} users has three {what}, which split.strategy = "
                '"leave-one-out" needs to hold out two; give longer histories, or use strategy = "time".'
            )
        return split
    if sequences.times is None:
        raise InputError(
            'split.strategy = "time" needs a timestamp in every interaction and this log has none; '
            'name the column in interactions.columns or use strategy = "leave-one-out".'
        )
    test_from, validation_from = cut_offs(sequences.times, settings)
    return time_split(sequences, validation_from=validation_from, test_from=test_from, baskets=baskets)


def leave_one_out(sequences: Sequences, *, baskets: bool = False) -> Split:
    """The last item is the test target, the one before it the validation target, the rest trains.

    Users with fewer than three events train only. The test history holds the validation item. With `baskets` all of
    this is said of baskets, and a basket's target is its first item.
    """
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    everyone = np.arange(len(sequences))
    steps = basket_starts(sequences) if baskets else np.arange(len(sequences.items))
    after = np.searchsorted(steps, ends)  # [U] the first step of the next user
    long = np.flatnonzero(after - np.searchsorted(steps, starts) >= 3)
    last, before = steps[after[long] - 1], steps[after[long] - 2]
    train_ends = ends.copy()
    train_ends[long] = before
    return Split(
        train=sequences.crop(everyone, starts, train_ends),
        validation=_held_out(sequences, long, before, last if baskets else None),
        test=_held_out(sequences, long, last, ends[long] if baskets else None),
        serving=sequences,
    )


def time_split(sequences: Sequences, *, validation_from: int, test_from: int, baskets: bool = False) -> Split:
    """Events before `validation_from` train; the first event at or after a cut-off is that part's target.

    Times in microseconds since the epoch. Events at the same moment fall on the same side. A user needs at least one
    event before a cut-off to be asked for the next one; the validation target must lie before `test_from`. With
    `baskets` the rest of the target's basket is kept apart.
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
                f"The time split leaves no user for {name} (cut-off {moment(cut)}, the log runs from "
                f"{moment(int(sequences.times.min()))} to {moment(int(sequences.times.max()))}); move the cut-offs."
            )
    targets_validation, targets_test = first_validation[asked_validation], first_test[asked_test]
    steps = np.append(basket_starts(sequences), len(sequences.items)) if baskets else None

    def basket_ends(targets: np.ndarray) -> np.ndarray | None:
        return None if steps is None else steps[np.searchsorted(steps, targets, side="right")]

    return Split(
        train=sequences.crop(trained, starts[trained], first_validation[trained]),
        validation=_held_out(sequences, asked_validation, targets_validation, basket_ends(targets_validation)),
        test=_held_out(sequences, asked_test, targets_test, basket_ends(targets_test)),
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

    def configured(when: datetime | None) -> int | None:
        return None if when is None else round(when.timestamp() * 1_000_000)

    test_from = configured(settings.test_from)
    if test_from is None:
        test_from = quantile(1 - test)
        if test_from == ordered[0]:
            raise InputError(
                f"split.test_fraction = {test:g} cannot divide the log: nearly all of it is of {moment(test_from)}; "
                'set split.test_from, or use split.strategy = "leave-one-out".'
            )
    validation_from = configured(settings.validation_from)
    if validation_from is None:
        before = ordered[ordered < test_from]
        if not len(before):
            raise InputError(
                f"split.test_from = {moment(test_from)} lies before every interaction (the first is of "
                f"{moment(int(ordered[0]))}); move it."
            )
        validation_from = int(before[min(int(len(before) * (1 - validation / (1 - test))), len(before) - 1)])
    return test_from, validation_from


def repeated_share(part: HeldOut) -> float:
    """Share of the targets that the user's history holds already; no list without seen items can hold them."""
    owner = np.repeat(np.arange(len(part)), part.histories.lengths)
    hits = part.histories.items == part.targets[owner]
    return float((np.bincount(owner[hits], minlength=len(part)) > 0).mean()) if len(part) else 0.0


def check_no_leak(split: Split) -> None:
    """Fail the run when the split lets training see what it is measured on.

    Both: history and target of every question are the beginning of the user's whole history. Time split: no training
    event at or after the validation cut, no history event at or after its target's cut. Leave-one-out: every training
    history is the beginning of the same user's validation and test histories, and stops two events (or baskets) before
    the end. Where baskets are steps, no history holds an event of its target's basket.

    A training that is handed something else is found by `evaluation.leaks`.

    Raises
    ------
    RecsysError
        A leak; names the first offending user.
    """
    _check_questions("validation", split.validation, split.serving)
    _check_questions("test", split.test, split.serving)
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
                    f"Leak: {len(late)} {name} events lie at or after the cut-off {moment(cut)} "
                    f"(first: user {part.users[user]!r} at {moment(int(part.times[late[0]]))})."
                )
        return
    asked_for = split.test.histories.lengths + _step_lengths(split.test)
    if (asked_for != split.serving.lengths[_places(split.test, split.serving)]).any():
        raise RecsysError("Leak: a test target is not its user's last event, as leave-one-out has it.")
    same = _places(split.test, split.validation.histories)
    between = _step_lengths(split.validation)[same]
    for name, asked, further in (("validation", split.validation, 0), ("test", split.test, between)):
        histories = asked.histories
        train = split.train.select(_places(asked, split.train))
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


def _check_questions(name: str, asked: HeldOut, serving: Sequences) -> None:
    """Each user's history, then the target, begin what is known of the user: nothing is left out or stands twice."""
    histories, users = asked.histories, _places(asked, serving)
    starts, lengths = serving.offsets[users], histories.lengths
    wrong = serving.lengths[users] <= lengths
    if not wrong.any():
        wrong = serving.items[starts + lengths] != asked.targets
        other = serving.crop(users, starts, starts + lengths).items != histories.items
        wrong[np.searchsorted(histories.offsets, np.flatnonzero(other), side="right") - 1] = True
    if wrong.any():
        user = histories.users[int(np.flatnonzero(wrong)[0])]
        raise RecsysError(
            f"Leak: the {name} history of user {user!r} and the item that is asked for are not the beginning of the "
            "user's history."
        )
    if asked.others is not None and asked.times is not None and histories.times is not None:
        owner = np.repeat(np.arange(len(histories)), lengths)
        late = np.flatnonzero(histories.times >= asked.times[owner])
        if len(late):
            raise RecsysError(
                f"Leak: the {name} history of user {histories.users[int(owner[late[0]])]!r} holds an event of the "
                f"basket that is asked for, of {moment(int(histories.times[late[0]]))}."
            )


def _step_lengths(asked: HeldOut) -> np.ndarray:
    """int64 [U] events of the step that a question asks for: 1, or a basket's."""
    return np.ones(len(asked), dtype=np.int64) + (0 if asked.others is None else asked.others.lengths)


def _places(asked: HeldOut, among: Sequences) -> np.ndarray:
    """int64 [U]: where the users of a held-out set stand among others."""
    places = among.users.alias("user").to_frame().with_row_index("place")
    users = asked.histories.users.alias("user").to_frame()
    return users.join(places, on="user", how="left", maintain_order="left")["place"].cast(pl.Int64).to_numpy()


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


def _held_out(
    sequences: Sequences, users: np.ndarray, target_index: np.ndarray, basket_ends: np.ndarray | None = None
) -> HeldOut:
    """Questions of some users; `basket_ends` int64 [U] where the targets' baskets end, if they are told."""
    return HeldOut(
        histories=sequences.crop(users, sequences.offsets[users], target_index),
        targets=sequences.items[target_index],
        times=None if sequences.times is None else sequences.times[target_index],
        others=None if basket_ends is None else sequences.crop(users, target_index + 1, basket_ends),
    )


def _count_before(sequences: Sequences, cut: int) -> np.ndarray:
    """int64 [U] events of each user before a moment."""
    assert sequences.times is not None
    before = np.concatenate([[0], np.cumsum(sequences.times < cut)])
    return before[sequences.offsets[1:]] - before[sequences.offsets[:-1]]


def moment(microseconds: int) -> str:
    """Microseconds since the epoch as people write a time, in UTC."""
    return datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC).isoformat()
