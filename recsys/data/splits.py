"""Held-out sets: histories and the item that came next; leave-one-out, which holds out the last items of every user.

Leave-one-out lets other users' future into training (peers do the same, and the report says so); the split by time
(data/time_split.py) does not. A question is a row: one history, one target. Leave-one-out asks each user once, a split
by time with successive targets asks a user several times. Where baskets are steps, the rest of the target's basket is
kept apart; see data/baskets.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from recsys.data.baskets import Steps
from recsys.data.sequences import Sequences, Slices


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class HeldOut:
    """Questions: histories, and the item that came next. A user may stand in several rows.

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
    """Training histories, the held-out sets, and every user's whole history for serving.

    The other attributes are those of a split by time.

    Attributes
    ----------
    test_from, validation_from
        Microseconds since the epoch: no event at or after `test_from` is validated on, and none at or after
        `validation_from` trains. They are equal unless validation is by time.
    validation_by
        `split.validation`.
    newcomers
        Questions of users without an event before `test_from`, some with an empty history; None where these users are
        among the test users.
    users_without_history
        How many users these are.
    cold_targets
        Test questions whose item no event before `test_from` has; dropped ones count.
    """

    train: Sequences
    validation: HeldOut
    test: HeldOut
    serving: Sequences
    test_from: int | None = None
    validation_from: int | None = None
    validation_by: str | None = None
    newcomers: HeldOut | None = None
    users_without_history: int = 0
    cold_targets: int = 0


def leave_one_out(sequences: Sequences, *, baskets: bool = False) -> Split:
    """The last item is the test target, the one before it the validation target, the rest trains.

    Users with fewer than three events train only. The test history holds the validation item. With `baskets` all of
    this is said of baskets, and a basket's target is its first item.
    """
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    steps = Steps(sequences, baskets=baskets)
    after = steps.of(ends)  # [U] the first step of the next user
    long = np.flatnonzero(after - steps.of(starts) >= 3)
    last, before = steps.places(after[long] - 1), steps.places(after[long] - 2)
    train_ends = ends.copy()
    train_ends[long] = before
    return Split(
        train=Slices.of(sequences, np.arange(len(sequences)), starts, train_ends),
        validation=held_out_of(sequences, long, before, last if baskets else None),
        test=held_out_of(sequences, long, last, ends[long] if baskets else None),
        serving=sequences,
    )


def repeated_share(part: HeldOut) -> float:
    """Share of the targets that the user's history holds already; no list without seen items can hold them."""
    repeated = 0
    for rows, block in part.histories.blocks():
        owner = np.repeat(np.arange(len(block)), block.lengths)
        hits = block.items == part.targets[rows][owner]
        repeated += int((np.bincount(owner[hits], minlength=len(block)) > 0).sum())
    return repeated / len(part) if len(part) else 0.0


def held_out_of(
    sequences: Sequences, users: np.ndarray, target_index: np.ndarray, basket_ends: np.ndarray | None = None
) -> HeldOut:
    """Questions of some users; `basket_ends` int64 [U] where the targets' baskets end, if they are told."""
    return HeldOut(
        histories=Slices.of(sequences, users, sequences.offsets[users], target_index),
        targets=sequences.items[target_index],
        times=None if sequences.times is None else sequences.times[target_index],
        others=None if basket_ends is None else Slices.of(sequences, users, target_index + 1, basket_ends),
    )


def moment(microseconds: int) -> str:
    """Microseconds since the epoch as people write a time, in UTC."""
    return datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC).isoformat()
