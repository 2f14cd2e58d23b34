"""Split by time: what lies before a moment trains, and users are asked for events after it.

The terms are those of "Time to Split" (arXiv 2507.16289) and of RePlay's splitters. A user's events after the cut are
asked for by `split.target`: the first, the last, one drawn by the seed, or each in turn (successive), always with all
of the user's earlier events in the history. Validation is by time, by each user's last event before the cut, or by
users who do not train at all.

Shapes: U users, N events, S steps (an event each, or a basket each), Q questions.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import numpy as np

from recsys.data.baskets import Steps
from recsys.data.sequences import Sequences, Slices, counted
from recsys.data.splits import HeldOut, Split, held_out_of, moment
from recsys.errors import InputError
from recsys.settings import SplitSettings

MOST: Final = 500_000_000  # events in the histories of all questions together: 6 GB
# what the seed draws, apart from each other
_TARGETS, _VALIDATION_USERS = 1, 2


def time_split(
    sequences: Sequences,
    settings: SplitSettings,
    *,
    test_from: int,
    validation_from: int | None = None,
    seed: int = 0,
) -> Split:
    """Split at `test_from`; times in microseconds since the epoch. Events at the same moment fall on the same side.

    Parameters
    ----------
    settings
        Targets, validation, the treatment of new users and of cold items, and whether baskets are steps. Training and
        validation do not depend on the target.
    validation_from
        Cut-off of a validation by time: the user's first event at or after it, and before `test_from`, is asked for.
    seed
        Decides what `settings` lets be drawn.

    Raises
    ------
    InputError
        The cut-offs leave no user for a part, or the histories of all questions do not fit into memory.
    """
    assert sequences.times is not None
    steps = Steps(sequences, baskets=settings.same_time == "basket")
    # each user's steps: from `first`, after the cut from `cut`, to `end`; int64 [U]
    first, end = steps.of(sequences.offsets[:-1]), steps.of(sequences.offsets[1:])
    cut = steps.of(sequences.offsets[:-1] + _count_before(sequences, test_from))
    known = cut > first
    if settings.validation == "time":
        assert validation_from is not None
        middle = steps.of(sequences.offsets[:-1] + _count_before(sequences, validation_from))
    else:
        validation_from, middle = test_from, cut

    def asked(users: np.ndarray, targets: np.ndarray) -> HeldOut:
        events = int((steps.places(targets) - sequences.offsets[users]).sum())
        if events > MOST:
            raise InputError(
                f'split.target = "{settings.target}" asks {len(users):,} questions, whose histories hold {events:,} '
                f'events together, and {MOST:,} is the most; set split.target = "last" or "random", or move '
                "split.test_from."
            )
        ends = steps.places(targets + 1) if settings.same_time == "basket" else None
        return held_out_of(sequences, users, steps.places(targets), ends)

    train_ends, validation_users, validation_targets = _before_the_cut(first, middle, cut, settings, seed)
    trained = np.flatnonzero(train_ends > first)
    among = settings.new_users == "from-second-event"
    begin = np.where(known, cut, first + 1 if among else end)
    test = asked(*_targets(begin, end, settings.target, seed))
    newcomers = None if among else asked(*_targets(np.where(known, end, first), end, settings.target, seed))
    seen = np.zeros(int(sequences.items.max(initial=0)) + 1, dtype=bool)
    for _, block in sequences.blocks():
        assert block.times is not None
        seen[block.items[block.times < test_from]] = True
    cold = ~seen[test.targets]
    if settings.cold_items == "drop":
        test = test.select(np.flatnonzero(~cold))
        newcomers = None if newcomers is None else newcomers.select(np.flatnonzero(seen[newcomers.targets]))
    split = Split(
        train=Slices.of(sequences, trained, sequences.offsets[trained], steps.places(train_ends[trained])),
        validation=asked(validation_users, validation_targets),
        test=test,
        serving=sequences,
        test_from=test_from,
        validation_from=validation_from,
        validation_by=settings.validation,
        newcomers=newcomers,
        users_without_history=int((~known & (end > first)).sum()),
        cold_targets=int(cold.sum()),
    )
    _check_parts(split, sequences.times)
    return split


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
        before = ordered[: np.searchsorted(ordered, test_from)]
        if not len(before):
            raise InputError(
                f"split.test_from = {moment(test_from)} lies before every interaction (the first is of "
                f"{moment(int(ordered[0]))}); move it."
            )
        validation_from = int(before[min(int(len(before) * (1 - validation / (1 - test))), len(before) - 1)])
    return test_from, validation_from


def _before_the_cut(
    first: np.ndarray, middle: np.ndarray, cut: np.ndarray, settings: SplitSettings, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide the steps before the test cut between training and validation.

    Parameters
    ----------
    first, middle, cut
        int64 [U]: each user's first step, first step after the training cut, and first step after the test cut.

    Returns
    -------
    train_ends
        int64 [U]: the step at which training ends; `first` for users who do not train.
    users, targets
        int64 [Q]: who is asked by validation, ascending, and for which step.
    """
    if settings.validation == "time":
        users = np.flatnonzero((middle > first) & (middle < cut))
        return middle, users, middle[users]
    users = _drawn(np.flatnonzero(cut - first >= 2), settings.validation_share, seed)
    train_ends = cut.copy()
    train_ends[users] = cut[users] - 1 if settings.validation == "last-event" else first[users]
    return train_ends, users, cut[users] - 1


def _targets(begin: np.ndarray, end: np.ndarray, target: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (users, steps), int64 [Q] each: which of the user's steps from `begin` to `end` [U] are asked for."""
    users = np.flatnonzero(end > begin)
    if target == "first":
        return users, begin[users]
    if target == "last":
        return users, end[users] - 1
    if target == "random":
        drawn = np.random.default_rng((seed, _TARGETS)).random(len(begin))  # one a user, whoever is asked
        return users, begin[users] + (drawn[users] * (end - begin)[users]).astype(np.int64)
    counts = (end - begin)[users]
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(users, counts), np.repeat(begin[users], counts) + place


def _drawn(users: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return a share of these users, at least one, ascending."""
    order = np.random.default_rng((seed, _VALIDATION_USERS)).permutation(len(users))
    return users[np.sort(order[: max(1, round(share * len(users)))])]


def _count_before(sequences: Sequences, cut: int) -> np.ndarray:
    """Return int64 [U], the events of each user before a moment."""
    counts = np.zeros(len(sequences), dtype=np.int64)
    for part, block in sequences.blocks():
        assert block.times is not None
        counts[part] = counted(block.times < cut, block.offsets)
    return counts


def _check_parts(split: Split, times: np.ndarray) -> None:
    for name, part, cut in (
        ("training", split.train, split.validation_from),
        ("validation", split.validation, split.validation_from),
        ("test", split.test, split.test_from),
    ):
        assert cut is not None
        if not len(part):
            raise InputError(
                f"The time split leaves no user for {name} (cut-off {moment(cut)}, the log runs from "
                f"{moment(int(times.min()))} to {moment(int(times.max()))}); move the cut-offs."
            )
