from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.leak_guard import check_no_leak, check_vocabulary
from recsys.data.sequences import Sequences, from_sorted_frame, joined, to_frame
from recsys.data.split_strategies import split_sequences
from recsys.data.splits import HeldOut, leave_one_out, repeated_share
from recsys.data.time_split import cut_offs, time_split
from recsys.errors import InputError, RecsysError
from recsys.settings import SplitSettings

BY_TIME = SplitSettings(strategy="time")


def sequences(histories: list[list[int]], times: list[list[int]] | None = None) -> Sequences:
    return Sequences(
        users=pl.Series("user_id", [f"u{i}" for i in range(len(histories))]),
        items=np.array([item for history in histories for item in history], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, histories)]),
        times=None if times is None else np.array([t for user in times for t in user], dtype=np.int64),
    )


def as_lists(part: Sequences) -> list[list[int]]:
    return [part.history(user).tolist() for user in range(len(part))]


histories = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=8)


@pytest.mark.parametrize("users", [0, 2])
def test_joined_histories_keep_what_a_part_without_events_cannot_know(users: int) -> None:
    known = replace(
        sequences([[1, 2], [3]], [[5, 6], [7]]),
        context=pl.DataFrame({"event": ["buy", "view", "buy"]}),
        attributes=pl.DataFrame({"segment": ["x", "y"]}),
    )
    empty = replace(sequences([[]] * users), users=pl.Series("user_id", ["a", "v"][:users], dtype=pl.String))
    if users:
        empty = replace(empty, attributes=pl.DataFrame({"segment": ["z", "z"]}))
    whole = joined([known, empty])
    assert whole.users.to_list() == (["a", "u0", "u1", "v"] if users else ["u0", "u1"])
    assert whole.times is not None and whole.times.tolist() == [5, 6, 7]
    assert whole.context is not None and whole.context["event"].to_list() == ["buy", "view", "buy"]
    assert whole.attributes is not None
    assert whole.attributes["segment"].to_list() == (["z", "x", "y", "z"] if users else ["x", "y"])


def test_joined_histories_leave_out_what_a_part_with_events_does_not_know() -> None:
    whole = joined([sequences([[1]], [[5]]), replace(sequences([[2]]), users=pl.Series("user_id", ["v"]))])
    assert whole.times is None and as_lists(whole) == [[1], [2]]


def test_from_sorted_frame() -> None:
    frame = pl.DataFrame({"user_id": ["a", "a", "b"], "timestamp": pl.Series([1, 5, 2]).cast(pl.Datetime("us", "UTC"))})
    built = from_sorted_frame(frame, np.array([4, 2, 4]))
    assert built.users.to_list() == ["a", "b"]
    assert as_lists(built) == [[4, 2], [4]]
    assert built.times is not None and built.times.tolist() == [1, 5, 2]
    assert to_frame(built).rows() == [("a", 4), ("a", 2), ("b", 4)]
    assert (
        from_sorted_frame(frame.with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC"))), built.items).times
        is None
    )


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Sequences(users=pl.Series(["a"]), items=np.array([1, 2], dtype=np.int32), offsets=np.array([0, 1]))


@given(histories, st.data())
def test_select_takes_the_histories_asked_for(all_of: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(all_of) - 1), max_size=6))
    picked = sequences(all_of, all_of).select(np.array(chosen, dtype=np.int64))
    assert as_lists(picked) == [all_of[user] for user in chosen]
    assert picked.times is not None and picked.times.tolist() == picked.items.tolist()


def test_leave_one_out_by_hand() -> None:
    split = leave_one_out(sequences([[1, 2, 3, 4], [5, 6], [7, 8, 9]]))
    assert as_lists(split.train) == [[1, 2], [5, 6], [7]]
    assert as_lists(split.validation.histories) == [[1, 2], [7]]
    assert split.validation.targets.tolist() == [3, 8]
    assert as_lists(split.test.histories) == [[1, 2, 3], [7, 8]]
    assert split.test.targets.tolist() == [4, 9]
    assert split.test.histories.users.to_list() == ["u0", "u2"]
    check_no_leak(split)


@given(histories)
def test_leave_one_out_never_leaks_and_loses_nothing(all_of: list[list[int]]) -> None:
    split = leave_one_out(sequences(all_of))
    check_no_leak(split)
    by_user = dict(zip(split.test.histories.users, range(len(split.test)), strict=True))
    for user, history in enumerate(all_of):
        train = split.train.history(user).tolist()
        if len(history) < 3:
            assert train == history and f"u{user}" not in by_user
        else:
            row = by_user[f"u{user}"]
            rest = [int(split.validation.targets[row]), int(split.test.targets[row])]
            assert train + rest == history


def test_time_split_by_hand_keeps_a_moment_on_one_side() -> None:
    data = sequences([[1, 2, 3, 4], [5, 6], [7, 8]], [[10, 20, 20, 30], [20, 30], [5, 31]])
    split = time_split(data, BY_TIME, validation_from=20, test_from=30)
    assert as_lists(split.train) == [[1], [7]]
    assert (as_lists(split.validation.histories), split.validation.targets.tolist()) == ([[1]], [2])
    assert as_lists(split.test.histories) == [[1, 2, 3], [5], [7]]
    assert split.test.targets.tolist() == [4, 6, 8]
    assert split.test.times is not None and split.test.times.tolist() == [30, 30, 31]
    check_no_leak(split)


@given(
    st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=6), min_size=1, max_size=10),
    st.integers(1, 99),
    st.integers(1, 50),
)
def test_time_split_never_leaks(times: list[list[int]], validation_from: int, gap: int) -> None:
    times = [sorted(user) for user in times]
    data = sequences([[1] * len(user) for user in times], times)
    try:
        split = time_split(data, BY_TIME, validation_from=validation_from, test_from=validation_from + gap)
    except InputError:
        return  # one side is empty, and that is said
    check_no_leak(split)
    assert split.train.times is not None and split.train.times.max() < validation_from
    assert split.test.times is not None and split.test.times.min() >= validation_from + gap
    assert split.validation.times is not None and split.validation.times.max() < validation_from + gap


def test_the_guard_finds_a_planted_leak() -> None:
    timed = time_split(sequences([[1, 2, 3]], [[1, 2, 3]]), BY_TIME, validation_from=2, test_from=3)
    with pytest.raises(RecsysError, match=r"Leak: 1 training events.*place 1 of 1"):
        check_no_leak(replace(timed, train=sequences([[1, 2]], [[1, 2]])))
    counted = leave_one_out(sequences([[1, 2, 3, 4]]))
    with pytest.raises(RecsysError, match="Leak: the user at place 1 of 1 trains on 3"):
        check_no_leak(replace(counted, train=sequences([[1, 2, 3]])))
    two = leave_one_out(sequences([[1, 2, 3, 4], [5, 6, 7, 8]]))
    with pytest.raises(RecsysError, match=r"Leak: the user at place 2 of 2 trains on 2 .* must be its beginning"):
        check_no_leak(replace(two, train=sequences([[1, 2], [5, 8]])))  # as long, but the held-out item
    check_vocabulary(np.array([True, False]), np.array([False, True]))
    with pytest.raises(RecsysError, match=r"Leak: the vocabulary holds 1 items .*code 2"):
        check_vocabulary(np.array([True, False]), np.array([True, False]))


def held(histories: list[list[int]], targets: list[int]) -> HeldOut:
    return HeldOut(histories=sequences(histories), targets=np.array(targets, dtype=np.int32))


def test_the_guard_compares_questions_with_what_is_known_of_the_user() -> None:
    """Train, validation and test that agree with each other can still be another user's, or leave an event out."""
    split = leave_one_out(sequences([[1, 2, 3, 4], [5, 6, 7, 8]]))
    beginning = "are not the beginning of the user's history"
    for asked in (
        held([[1, 2], [5, 6]], [3, 8]),  # an event is left out
        held([[1, 2], [6, 6]], [3, 7]),
        held([[1, 2], [5, 6, 7, 8]], [3, 9]),  # beyond the end
    ):
        with pytest.raises(RecsysError, match=rf"Leak: the validation history of the user at place \d .* {beginning}"):
            check_no_leak(replace(split, validation=asked))
    with pytest.raises(RecsysError, match=rf"Leak: the test history of the user at place 1 .* {beginning}"):
        check_no_leak(replace(split, test=held([[1, 2, 4], [5, 6, 7]], [4, 8])))
    early = replace(split, test=split.validation)
    with pytest.raises(RecsysError, match="Leak: a test target is not its user's last event"):
        check_no_leak(early)


def test_fractions_become_cut_offs() -> None:
    test_from, validation_from = cut_offs(np.arange(100), SplitSettings(strategy="time"))
    assert (test_from, validation_from) == (90, 80)


def test_configured_cut_offs_win() -> None:
    moment = datetime(2020, 1, 2, tzinfo=UTC)
    settings = SplitSettings(strategy="time", test_from=moment, validation_from=datetime(2020, 1, 1, tzinfo=UTC))
    assert cut_offs(np.arange(3), settings)[0] == round(moment.timestamp() * 1e6)


def test_a_time_split_needs_time() -> None:
    with pytest.raises(InputError, match=r"interactions\.columns"):
        split_sequences(sequences([[1, 2]]), SplitSettings(strategy="time"))


def test_an_empty_side_is_said() -> None:
    with pytest.raises(InputError, match="no user for test"):
        time_split(sequences([[1, 2]], [[1, 2]]), BY_TIME, validation_from=2, test_from=50)


@given(histories)
def test_repeated_targets_by_counting(all_of: list[list[int]]) -> None:
    test = leave_one_out(sequences(all_of)).test
    expected = [target in as_lists(test.histories)[user] for user, target in enumerate(test.targets.tolist())]
    assert repeated_share(test) == pytest.approx(float(np.mean(expected)) if expected else 0.0)
