"""The split by time: a log of five users by hand, properties of any log, and planted leaks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import time_split as module
from recsys.data.leak_guard import check_no_leak
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, Split
from recsys.data.time_split import time_split
from recsys.errors import InputError, RecsysError
from recsys.settings import SplitSettings
from recsys.settings.split import Target, Validation

TARGETS, VALIDATIONS = get_args(Target), get_args(Validation)
VALIDATION_FROM, TEST_FROM = 20, 30
# (time, item) of five users
LOG = {
    "early": [(1, 1), (2, 2), (3, 3)],  # nothing after any cut
    "long": [(5, 1), (15, 2), (22, 3), (25, 4), (30, 5), (31, 6), (40, 7)],
    "new": [(33, 2), (34, 9)],  # nothing before the test cut
    "one": [(10, 3), (30, 1)],  # one event before the cut
    "tied": [(19, 4), (20, 1), (20, 2), (30, 3), (30, 8)],  # events at the cuts themselves
}


def sequences(log: dict[str, list[tuple[int, int]]]) -> Sequences:
    events = [event for user in sorted(log) for event in log[user]]
    return Sequences(
        users=pl.Series("user_id", sorted(log), dtype=pl.String),
        items=np.array([item for _, item in events], dtype=np.int32),
        offsets=np.cumsum([0, *(len(log[user]) for user in sorted(log))]).astype(np.int64),
        times=np.array([time for time, _ in events], dtype=np.int64),
    )


def split_of(log: dict[str, list[tuple[int, int]]], seed: int = 0, **keys: Any) -> Split:
    settings = SplitSettings(strategy="time", **keys)
    return time_split(sequences(log), settings, validation_from=VALIDATION_FROM, test_from=TEST_FROM, seed=seed)


def histories(part: Sequences) -> dict[str, list[int]]:
    return {user: part.history(row).tolist() for row, user in enumerate(part.users.to_list())}


def questions(asked: HeldOut | None) -> list[tuple[str, list[int], int]]:
    assert asked is not None
    return [
        (user, asked.histories.history(row).tolist(), int(asked.targets[row]))
        for row, user in enumerate(asked.histories.users.to_list())
    ]


TRAIN = {
    "time": {"early": [1, 2, 3], "long": [1, 2], "one": [3], "tied": [4]},
    "last-event": {"early": [1, 2], "long": [1, 2, 3], "one": [3], "tied": [4, 1]},
}
VALIDATION = {
    "time": [("long", [1, 2], 3), ("tied", [4], 1)],
    "last-event": [("early", [1, 2], 3), ("long", [1, 2, 3], 4), ("tied", [4, 1], 2)],
}
TEST = {
    "first": [("long", [1, 2, 3, 4], 5), ("one", [3], 1), ("tied", [4, 1, 2], 3)],
    "last": [("long", [1, 2, 3, 4, 5, 6], 7), ("one", [3], 1), ("tied", [4, 1, 2, 3], 8)],
    "successive": [
        ("long", [1, 2, 3, 4], 5),
        ("long", [1, 2, 3, 4, 5], 6),
        ("long", [1, 2, 3, 4, 5, 6], 7),
        ("one", [3], 1),
        ("tied", [4, 1, 2], 3),
        ("tied", [4, 1, 2, 3], 8),
    ],
}
APART = {
    "first": [("new", [], 2)],
    "last": [("new", [2], 9)],
    "successive": [("new", [], 2), ("new", [2], 9)],
}


@pytest.mark.parametrize(("target", "validation"), list(product(TARGETS, VALIDATIONS)))
def test_five_users_by_hand(target: str, validation: str) -> None:
    share = {"validation_users": 0.7} if validation == "users" else {}
    split = split_of(LOG, target=target, validation=validation, **share)
    check_no_leak(split)
    if validation == "users":  # two of the three users with two events before the cut
        asked = [user for user, _, _ in questions(split.validation)]
        assert len(asked) == 2 and set(asked) < {"early", "long", "tied"}
        assert questions(split.validation) == [one for one in VALIDATION["last-event"] if one[0] in asked]
        whole = {"early": [1, 2, 3], "long": [1, 2, 3, 4], "one": [3], "tied": [4, 1, 2]}
        assert histories(split.train) == {user: own for user, own in whole.items() if user not in asked}
    else:
        assert histories(split.train) == TRAIN[validation]
        assert questions(split.validation) == VALIDATION[validation]
    if target == "random":
        asked_for = questions(split.test)
        assert [user for user, _, _ in asked_for] == ["long", "one", "tied"]
        assert all(one in TEST["successive"] for one in asked_for)
        assert all(one in APART["successive"] for one in questions(split.newcomers))
    else:
        assert questions(split.test) == TEST[target]
        assert questions(split.newcomers) == APART[target]
    assert split.users_without_history == 1
    assert histories(split.serving) == {user: [item for _, item in own] for user, own in LOG.items()}
    # items 5, 6, 7 and 8 have no event before the cut
    assert split.cold_targets == sum(item in (5, 6, 7, 8) for _, _, item in questions(split.test))


def test_new_users_from_their_second_event_stand_among_the_others() -> None:
    split = split_of(LOG, target="successive", new_users="from-second-event")
    check_no_leak(split)
    assert questions(split.test) == sorted([*TEST["successive"], ("new", [2], 9)])
    assert split.newcomers is None and split.users_without_history == 1
    assert questions(split_of(LOG, new_users="from-second-event").test) == sorted([*TEST["first"], ("new", [2], 9)])


def test_cold_items_are_dropped_only_where_that_is_asked_for() -> None:
    kept, dropped = (split_of(LOG, target="successive", cold_items=how) for how in ("keep", "drop"))
    assert questions(dropped.test) == [one for one in questions(kept.test) if one[2] not in (5, 6, 7, 8)]
    assert questions(dropped.newcomers) == [("new", [], 2)]
    assert (kept.cold_targets, dropped.cold_targets) == (4, 4)
    check_no_leak(dropped)


def test_baskets_are_asked_for_one_after_the_other() -> None:
    split = split_of(LOG, target="successive", same_time="basket", validation="last-event")
    check_no_leak(split)
    asked = [one for one in questions(split.test) if one[0] == "tied"]
    assert asked == [("tied", [4, 1, 2], 3)]  # 3 and 8 came together
    assert split.test.others is not None and histories(split.test.others.select(np.array([4]))) == {"tied": [8]}
    assert ("tied", [4], 1) in questions(split.validation)  # 1 and 2, too


def test_the_seed_draws_targets_and_validation_users() -> None:
    log = {f"u{n:02}": [(t, t) for t in range(10, 40)] for n in range(40)}
    keys = {"target": "random", "validation": "users", "validation_users": 0.5}
    one, again, other = (split_of(log, seed, **keys) for seed in (0, 0, 1))
    assert questions(one.test) == questions(again.test) != questions(other.test)
    assert questions(one.validation) == questions(again.validation) != questions(other.validation)
    assert len(one.validation) == len(one.train) == 20
    drawn = Counter(target for _, _, target in questions(one.test))
    assert len(drawn) > 5 and set(drawn) <= set(range(30, 40))
    # training and validation do not depend on the target
    first = split_of(log, 0, **keys | {"target": "first"})
    assert histories(first.train) == histories(one.train)
    assert questions(first.validation) == questions(one.validation)


def test_more_events_than_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Successive questions repeat their user's history: what grows with the square of its length is counted first."""
    monkeypatch.setattr(module, "MOST", 23)
    assert len(split_of(LOG, target="successive").test) == 6
    monkeypatch.setattr(module, "MOST", 22)
    with pytest.raises(InputError, match=r"asks 6 questions, whose histories hold 23 events .* \"last\" or \"random\""):
        split_of(LOG, target="successive")


logs = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), min_size=1, max_size=8).map(sorted),
    min_size=1,
)


@given(
    logs,
    st.sampled_from(TARGETS),
    st.sampled_from(VALIDATIONS),
    st.sampled_from(["order", "basket"]),
    st.sampled_from(["apart", "from-second-event"]),
    st.integers(0, 3),
)
def test_every_event_has_one_role_at_most(
    log: dict[str, list[tuple[int, int]]], target: str, validation: str, same_time: str, new_users: str, seed: int
) -> None:
    """It trains, is asked for by validation, by test, or by the part of new users; all else is history alone."""
    keys = {"target": target, "validation": validation, "same_time": same_time, "new_users": new_users}
    try:
        split = split_of(log, seed, **keys)
    except InputError:
        return  # a part is empty, and that is said
    check_no_leak(split)
    events = {user: log[user] for user in sorted(log)}
    roles: Counter[tuple[str, int]] = Counter()
    for user, own in histories(split.train).items():
        roles.update((user, place) for place in range(len(own)))
        assert all(time < TEST_FROM for time, _ in events[user][: len(own)])
    for asked in (split.validation, split.test, split.newcomers):
        for user, history, item in questions(asked) if asked is not None else ():
            roles[user, len(history)] += 1
            assert [one for _, one in events[user][: len(history)]] == history
            assert events[user][len(history)][1] == item
            assert (events[user][len(history)][0] < TEST_FROM) == (asked is split.validation)
    assert set(roles.values()) <= {1}
    late = {user for user, own in events.items() if own[-1][0] >= TEST_FROM}
    new = {user for user in late if events[user][0][0] >= TEST_FROM}
    assert split.users_without_history == len(new)
    asked_users = {user for user, _, _ in questions(split.test)}
    assert late - new <= asked_users <= late
    if target != "successive":
        assert len(split.test) == len(asked_users)


def leak(split: Split, part: str, user: str, history: list[int], item: int, time: int) -> Split:
    """The split with one question more, or for "train" with another training history."""
    if part == "train":
        rows = {**histories(split.train), user: [*history, item]}
        times = {
            one: [when for when, _ in LOG[one]][: len(own)] if one != user else [*range(1, len(history) + 1), time]
            for one, own in rows.items()
        }
        return replace(
            split, train=sequences({one: list(zip(times[one], own, strict=True)) for one, own in rows.items()})
        )
    asked: HeldOut = getattr(split, part)
    kept = {row: one for row, one in enumerate(questions(asked)) if one[0] != user}
    own = asked.select(np.array(list(kept), dtype=np.int64))
    more = sequences({user: [(n, code) for n, code in enumerate(history)]})
    assert own.times is not None and own.histories.times is not None and more.times is not None
    joined = HeldOut(
        histories=Sequences(
            users=pl.concat([own.histories.users, more.users]),
            items=np.concatenate([own.histories.items, more.items]),
            offsets=np.concatenate([own.histories.offsets, own.histories.offsets[-1] + more.offsets[1:]]),
            times=np.concatenate([own.histories.times, more.times]),
        ),
        targets=np.append(own.targets, np.int32(item)),
        times=np.append(own.times, time),
    )
    return replace(split, **{part: joined})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("validation", VALIDATIONS)
def test_planted_leaks_are_caught_whatever_the_split(target: str, validation: str) -> None:
    split = split_of(LOG, target=target, validation=validation)
    check_no_leak(split)
    user, own, _ = questions(split.validation)[0]
    before = LOG[user][len(own)]
    beginning = "are not the beginning of the user's history"
    planted = [
        (leak(split, "train", "long", [1, 2, 3, 4], 5, 30), "Leak: 1 training events lie at or after"),
        (leak(split, "train", user, own, before[1], before[0]), "Leak: "),  # the event that validation asks for
        (leak(split, "train", "one", [], 9, 10), "is not the beginning of the user's history"),
        (leak(split, "validation", "long", [1, 2, 3, 4], 5, 30), "Leak: "),  # a test event, asked by validation
        (leak(split, "test", "long", [1, 2, 3], 4, 25), "test targets lie before the cut-off"),
        (leak(split, "test", "long", [1, 2, 3, 4, 5], 5, 30), beginning),  # the target stands in its history
        (leak(split, "test", "long", [1, 2, 3, 4, 6], 5, 30), beginning),  # or a later event
        (leak(split, "test", "long", [1, 2, 4], 5, 30), beginning),  # an event is left out
    ]
    for broken, message in planted:
        with pytest.raises(RecsysError, match=message):
            check_no_leak(broken)
    twice = split.test.select(np.array([*range(len(split.test)), 0]))
    with pytest.raises(RecsysError, match="the same question twice"):
        check_no_leak(replace(split, test=twice))
    with pytest.raises(RecsysError, match="new users' targets lie before the cut-off"):
        check_no_leak(leak(split, "newcomers", "one", [], 3, 10))


def test_the_guard_finds_a_validation_user_who_trains() -> None:
    split = split_of(LOG, validation="users")
    everyone = split_of(LOG, validation="last-event")
    with pytest.raises(RecsysError, match=r"Leak: the user at place .* validation users must not train"):
        check_no_leak(replace(split, train=everyone.train))


def test_an_event_that_validation_asks_for_must_not_train() -> None:
    split = split_of(LOG, validation="last-event")
    whole = split_of(LOG, validation="last-event", validation_users=0.1)  # the others train with all their events
    with pytest.raises(RecsysError, match=r"Leak: the user at place .* trains on .* training must stop before"):
        check_no_leak(replace(split, train=whole.train))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"strategy": "leave-one-out", "target": "last"}, "target = 'last' needs strategy"),
        ({"strategy": "leave-one-out", "cold_items": "drop"}, "cold_items = 'drop' needs strategy"),
        ({"validation_users": 0.2}, 'validation_users = 0.2 needs validation = "last-event" or "users"'),
        ({"validation": "users", "validation_users": 1.0}, "leaves no user for training"),
        ({"validation": "users", "validation_from": "2020-01-01T00:00:00Z"}, 'needs validation = "time"'),
    ],
)
def test_keys_that_nothing_would_read_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitSettings(**{"strategy": "time", **keys})
