"""The guard against leaks: whether a split lets training see what it is measured on.

A training that is handed something else than the split's parts is found by `evaluation.leaks`.

Shapes: U users, Q questions, V items.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, Split, moment
from recsys.errors import RecsysError


def check_no_leak(split: Split) -> None:
    """Fail the run when the split lets training see what it is measured on.

    Both: history and target of every question are the beginning of the user's whole history, so no history holds its
    target or a later event, and no question is asked twice. Time split: no training event at or after the training
    cut, no validation target at or after the test cut, no test target before it; the training history of a validation
    user is the history of the question, or nothing. Leave-one-out: every training history is the beginning of the same
    user's validation and test histories, and stops two events (or baskets) before the end. Where baskets are steps, no
    history holds an event of its target's basket.

    Raises
    ------
    RecsysError
        A leak; says at which place the first offending user stands: an id would get into logs.
    """
    _check_questions("validation", split.validation, split.serving)
    _check_questions("test", split.test, split.serving)
    if split.newcomers is not None:
        _check_questions("new users'", split.newcomers, split.serving)
    if split.test_from is not None and split.validation_from is not None:
        _check_times(split, split.test_from, split.validation_from)
        _check_training_by_time(split)
        return
    asked_for = split.test.histories.lengths + _step_lengths(split.test)
    if (asked_for != split.serving.lengths[_places(split.test.histories.users, split.serving)]).any():
        raise RecsysError("Leak: a test target is not its user's last event, as leave-one-out has it.")
    same = _places(split.test.histories.users, split.validation.histories)
    between = _step_lengths(split.validation)[same]
    for name, asked, further in (("validation", split.validation, 0), ("test", split.test, between)):
        histories = asked.histories
        train = split.train.select(_places(histories.users, split.train))
        leaked = np.flatnonzero(train.lengths + further != histories.lengths)
        if not len(leaked):  # as long as they should be: are they the same events?
            starts = histories.offsets[:-1]
            prefix = histories.crop(np.arange(len(histories)), starts, starts + train.lengths)
            leaked = np.searchsorted(prefix.offsets, np.flatnonzero(train.items != prefix.items), side="right") - 1
        if len(leaked):
            user = int(leaked[0])
            raise RecsysError(
                f"Leak: {_user(user, histories)} trains on {train.lengths[user]} events but the {name} history "
                f"has {histories.lengths[user]}; training must be its beginning and stop two events before the end."
            )


def _check_times(split: Split, test_from: int, validation_from: int) -> None:
    """Check every event against its cut-off."""
    for name, part, cut in (
        ("training", split.train, validation_from),
        ("validation history", split.validation.histories, validation_from),
    ):
        assert part.times is not None
        late = np.flatnonzero(part.times >= cut)
        if len(late):
            user = int(np.searchsorted(part.offsets, late[0], side="right") - 1)
            raise RecsysError(
                f"Leak: {len(late)} {name} events lie at or after the cut-off {moment(cut)} "
                f"(first: {_user(user, part)}, at {moment(int(part.times[late[0]]))})."
            )
    for name, asked, after in (
        ("validation", split.validation, False),
        ("test", split.test, True),
        ("new users'", split.newcomers, True),
    ):
        if asked is None:
            continue
        assert asked.times is not None
        wrong = np.flatnonzero((asked.times >= test_from) != after)
        if len(wrong):
            where = "before" if after else "at or after"
            raise RecsysError(
                f"Leak: {len(wrong)} {name} targets lie {where} the cut-off {moment(test_from)} "
                f"(first: {_user(int(wrong[0]), asked.histories)}, at {moment(int(asked.times[wrong[0]]))})."
            )


def _check_training_by_time(split: Split) -> None:
    """Check that training histories begin what is known of their users, and hold nothing that validation asks for."""
    train = split.train
    users = _places(train.users, split.serving)
    foreign = (users < 0) | (split.serving.lengths[users] < train.lengths)
    if not foreign.any():
        starts = split.serving.offsets[users]
        other = split.serving.crop(users, starts, starts + train.lengths).items != train.items
        foreign[np.searchsorted(train.offsets, np.flatnonzero(other), side="right") - 1] = True
    if foreign.any():
        user = _user(int(np.flatnonzero(foreign)[0]), train)
        raise RecsysError(f"Leak: the training history of {user} is not the beginning of the user's history.")
    trained = _places(split.validation.histories.users, split.train)  # -1: the user does not train
    both = np.flatnonzero(trained >= 0)
    lengths = split.train.lengths[trained[both]]
    longer = both[lengths > split.validation.histories.lengths[both]]
    if split.validation_by == "users":
        longer = both
    if len(longer):
        row = int(longer[0])
        user, events = _user(row, split.validation.histories), split.train.lengths[trained[row]]
        rule = "validation users must not train" if split.validation_by == "users" else "training must stop before"
        raise RecsysError(
            f"Leak: {user} trains on {events} events and validation asks for the one after "
            f"{split.validation.histories.lengths[row]}; {rule}."
        )


def _check_questions(name: str, asked: HeldOut, serving: Sequences) -> None:
    """Each user's history, then the target, begin what is known of the user: nothing is left out or stands twice."""
    histories, users = asked.histories, _places(asked.histories.users, serving)
    starts, lengths = serving.offsets[users], histories.lengths
    wrong = (users < 0) | (serving.lengths[users] <= lengths)
    if not wrong.any():
        wrong = serving.items[starts + lengths] != asked.targets
        other = serving.crop(users, starts, starts + lengths).items != histories.items
        wrong[np.searchsorted(histories.offsets, np.flatnonzero(other), side="right") - 1] = True
    if wrong.any():
        user = _user(int(np.flatnonzero(wrong)[0]), histories)
        raise RecsysError(
            f"Leak: the {name} history of {user} and the item that is asked for are not the beginning of the "
            "user's history."
        )
    order = np.lexsort((lengths, users))
    again = np.flatnonzero((np.diff(users[order]) == 0) & (np.diff(lengths[order]) == 0))
    if len(again):
        user = _user(int(order[again[0]]), histories)
        raise RecsysError(f"Leak guard: the {name} part asks {user} the same question twice.")
    if asked.others is not None and asked.times is not None and histories.times is not None:
        owner = np.repeat(np.arange(len(histories)), lengths)
        late = np.flatnonzero(histories.times >= asked.times[owner])
        if len(late):
            raise RecsysError(
                f"Leak: the {name} history of {_user(int(owner[late[0]]), histories)} holds an event of the "
                f"basket that is asked for, of {moment(int(histories.times[late[0]]))}."
            )


def _user(place: int, part: Sequences) -> str:
    return f"the user at place {place + 1} of {len(part)}"


def _step_lengths(asked: HeldOut) -> np.ndarray:
    """Return int64 [Q], the events of the step that a question asks for: 1, or a basket's."""
    return np.ones(len(asked), dtype=np.int64) + (0 if asked.others is None else asked.others.lengths)


def _places(users: pl.Series, among: Sequences) -> np.ndarray:
    """Return where some users stand among others, int64 [Q]; -1: nowhere."""
    places = among.users.alias("user").to_frame().with_row_index("place")
    found = users.alias("user").to_frame().join(places, on="user", how="left", maintain_order="left")
    return found["place"].cast(pl.Int64).fill_null(-1).to_numpy()


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
