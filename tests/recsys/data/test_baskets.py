"""Baskets as steps: never divided, without an order, and held out whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.bundles.bundle import read_bundle
from recsys.columns import ITEM_ID, POSITION, TIMESTAMP, USER_ID
from recsys.data.baskets import basket_starts, in_drawn_order
from recsys.data.leak_guard import check_no_leak
from recsys.data.left_out import histories_of
from recsys.data.prepare import prepare
from recsys.data.sequences import Sequences
from recsys.data.split_strategies import split_sequences
from recsys.data.splits import HeldOut, Split, leave_one_out
from recsys.data.time_split import time_split
from recsys.errors import InputError, RecsysError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.metrics import MISS
from recsys.evaluation.ranking import rank_targets
from recsys.ingestion.ingest import ingest
from recsys.models.sequential.next_basket import NextBasket
from recsys.night.fit import fit
from recsys.settings import Settings, SplitSettings
from recsys.settings.read import parse_settings
from recsys.storage import warehouse
from tests.recsys.opened import queries_of

# a user's baskets: (time, items)
Baskets = list[tuple[int, list[int]]]
HAND: list[Baskets] = [
    [(10, [1, 2]), (20, [3, 4, 5]), (30, [6, 7])],
    [(10, [1]), (25, [2])],
    [(5, [8]), (10, [2, 8]), (20, [1]), (40, [9, 1, 3])],
]


def sequences(users: list[Baskets]) -> Sequences:
    events = [[(time, item) for time, items in baskets for item in items] for baskets in users]
    flat = [event for own in events for event in own]
    return Sequences(
        users=pl.Series(USER_ID, [f"u{place}" for place in range(len(users))], dtype=pl.String),
        items=np.array([item for _, item in flat], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, events)]).astype(np.int64),
        times=np.array([time for time, _ in flat], dtype=np.int64),
    )


def lists(of: Sequences | None) -> list[list[int]]:
    assert of is not None
    return [of.history(user).tolist() for user in range(len(of))]


def test_the_last_two_baskets_are_held_out_whole() -> None:
    split = leave_one_out(sequences(HAND), baskets=True)
    assert lists(split.train) == [[1, 2], [1, 2], [8, 2, 8]]  # two baskets train only
    assert lists(split.validation.histories) == [[1, 2], [8, 2, 8]]
    assert split.validation.targets.tolist() == [3, 1]
    assert lists(split.validation.others) == [[4, 5], []]
    assert lists(split.test.histories) == [[1, 2, 3, 4, 5], [8, 2, 8, 1]]
    assert split.test.targets.tolist() == [6, 9]
    assert lists(split.test.others) == [[7], [1, 3]]
    check_no_leak(split)


def test_a_time_split_keeps_the_rest_of_the_basket_apart() -> None:
    split = time_split(
        sequences(HAND), SplitSettings(strategy="time", same_time="basket"), validation_from=15, test_from=25
    )
    assert (split.validation.targets.tolist(), lists(split.validation.others)) == ([3, 1], [[4, 5], []])
    assert (split.test.targets.tolist(), lists(split.test.others)) == ([6, 2, 9], [[7], [], [1, 3]])
    check_no_leak(split)


items = st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True)
users = st.lists(
    st.lists(items, min_size=1, max_size=6).map(lambda own: [(10 * (n + 1), basket) for n, basket in enumerate(own)]),
    min_size=1,
    max_size=6,
)


@given(users)
def test_no_basket_is_divided_and_nothing_is_lost(all_of: list[Baskets]) -> None:
    split = leave_one_out(sequences(all_of), baskets=True)
    check_no_leak(split)
    rows = {user: row for row, user in enumerate(split.test.histories.users)}
    for place, baskets in enumerate(all_of):
        flat = [basket for _, basket in baskets]
        if len(baskets) < 3:
            assert f"u{place}" not in rows
            assert split.train.history(place).tolist() == list(chain(*flat))
            continue
        row = rows[f"u{place}"]
        assert split.train.history(place).tolist() == list(chain(*flat[:-2]))
        assert lists(split.validation.histories)[row] == list(chain(*flat[:-2]))
        assert [split.validation.targets[row], *lists(split.validation.others)[row]] == flat[-2]
        assert lists(split.test.histories)[row] == list(chain(*flat[:-1]))
        assert [split.test.targets[row], *lists(split.test.others)[row]] == flat[-1]


def _moved(held_out: HeldOut) -> HeldOut:
    """A held-out set whose first question has the first of its basket in the history and asks for the second."""
    whole = sequences(HAND[:1])
    at = len(held_out.histories.history(0)) + 1
    first = np.array([0])
    return HeldOut(
        histories=whole.crop(first, first, np.array([at])),
        targets=whole.items[[at]],
        times=None if whole.times is None else whole.times[[at]],
        others=whole.crop(first, np.array([at + 1]), np.array([5 if at < 5 else 7])),
    )


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_guard_sees_a_divided_basket(part: str) -> None:
    split = leave_one_out(sequences(HAND[:1]), baskets=True)
    broken: Split = replace(split, **{part: _moved(getattr(split, part))})
    with pytest.raises(
        RecsysError, match=rf"Leak: the {part} history of the user at place 1 of .* holds an event of the basket"
    ):
        check_no_leak(broken)


def test_the_guard_sees_a_training_that_reaches_into_the_held_out_baskets() -> None:
    split = leave_one_out(sequences(HAND[:1]), baskets=True)
    by_events = leave_one_out(sequences(HAND[:1]))
    with pytest.raises(RecsysError, match=r"Leak: the user at place 1 of 1 trains on 5 .* validation history has 2"):
        check_no_leak(replace(split, train=by_events.train))


def test_a_log_without_three_baskets_is_refused() -> None:
    data = sequences([[(1, [1, 2, 3, 4])], [(1, [1]), (2, [2, 3])]])
    split_sequences(data, SplitSettings())
    with pytest.raises(InputError, match="None of the 2 users has three baskets"):
        split_sequences(data, SplitSettings(same_time="basket"))


# --- the order inside a basket --------------------------------------------------------------------------------


def log(rows: list[tuple[int, str, int]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema={USER_ID: pl.Int64, ITEM_ID: pl.String, TIMESTAMP: pl.Int64}, orient="row")
    return frame.with_columns(pl.col(TIMESTAMP).cast(pl.Datetime("us", "UTC")), pl.int_range(pl.len()).alias(POSITION))


rows_of_a_log = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from("abcdefgh"), st.integers(1, 3)), unique=True, max_size=30
)


@given(rows_of_a_log, st.randoms(), st.integers(0, 5))
def test_the_order_of_the_file_says_nothing(rows: list[tuple[int, str, int]], random: object, seed: int) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    columns = (USER_ID, ITEM_ID, TIMESTAMP)
    found = in_drawn_order(log(rows), seed).select(columns)
    assert found.equals(in_drawn_order(log(shuffled), seed).select(columns))
    assert found.select(USER_ID, TIMESTAMP).equals(found.select(USER_ID, TIMESTAMP).sort(USER_ID, TIMESTAMP))
    fewer = found.filter(pl.col(ITEM_ID) != "a")  # tomorrow's row more changes the order of no others
    assert in_drawn_order(log([row for row in rows if row[1] != "a"]), seed).select(columns).equals(fewer)


def test_every_item_of_a_basket_is_the_first_about_as_often() -> None:
    names = [f"item{n}" for n in range(5)]
    frame = log([(1, name, time) for time in range(1, 4001) for name in names])
    first = in_drawn_order(frame, 0).group_by(TIMESTAMP, maintain_order=True).first()[ITEM_ID]
    shares = first.value_counts(sort=True)["count"].to_numpy() / 4000
    assert np.abs(shares - 0.2).max() < 0.03
    other = in_drawn_order(frame, 1).group_by(TIMESTAMP, maintain_order=True).first()[ITEM_ID]
    assert abs((first == other).mean() - 0.2) < 0.03


def test_baskets_need_times() -> None:
    with pytest.raises(InputError, match="needs a timestamp in every interaction and this log has none"):
        in_drawn_order(log([(1, "a", 1)]).with_columns(pl.lit(None).cast(pl.Datetime("us", "UTC")).alias(TIMESTAMP)), 0)


def test_basket_starts_by_hand() -> None:
    assert basket_starts(sequences(HAND)).tolist() == [0, 2, 5, 7, 8, 9, 10, 12, 13]
    two = sequences([[(1, [1])], [(1, [2, 3])]])
    assert basket_starts(two).tolist() == [0, 1]  # two users at one time


def prepared(root: Path, *lines: str) -> tuple[Settings, Split]:
    (root / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"{line}\n" for line in lines))
    settings = parse_settings(
        {
            "name": "shop",
            "data_root": str(root),
            "warehouse": str(root / "warehouse"),
            "interactions": {"source": "log.csv"},
            "split": {"same_time": "basket"},
        }
    )
    ingest(settings, now=datetime(2024, 6, 1, tzinfo=UTC))
    return settings, prepare(settings, warehouse.current_versions(settings.warehouse)).split


def test_prepare_recodes_what_is_kept_apart(tmp_path: Path) -> None:
    lines = [
        f"{user},{item},{time}" for user in (1, 2) for time, of in ((1, "ab"), (2, "cd"), (3, "xa")) for item in of
    ]
    _, split = prepared(tmp_path, *lines)
    assert split.test.others is not None
    held = {(int(t), *map(int, o)) for t, o in zip(split.test.targets, lists(split.test.others), strict=True)}
    # "x" is in no training history: as a target it is code 0, as another item of the basket it is left out
    assert held <= {(0, 1), (0, 2), (1,), (2,)}


# --- ranking ----------------------------------------------------------------------------------------------------


def test_histories_that_are_read_alone_have_the_drawn_order_too(tmp_path: Path) -> None:
    times = [(user, basket, item) for user in range(3) for basket in range(3) for item in range(9)]
    settings, _ = prepared(tmp_path, *(f"u{user},{item},{1_700_000_000 + basket}" for user, basket, item in times))
    versions = warehouse.current_versions(settings.warehouse)
    dataset = prepare(settings, versions)
    some = pl.Series(USER_ID, ["u0", "u2"])
    alone = histories_of(settings, versions, dataset.vocabulary, some).histories
    assert lists(alone) == [dataset.split.serving.history(user).tolist() for user in (0, 2)]


def test_the_rest_of_the_basket_is_not_ranked_against_the_target() -> None:
    split = leave_one_out(sequences(HAND), baskets=True)
    scores = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0.5], dtype=np.float32)  # item 9 the least
    allowed = np.ones(10, dtype=bool)

    def block(start: int, stop: int) -> np.ndarray:
        return np.tile(scores, (stop - start, 1))

    ranking = rank_targets(block, split.test, allowed, exclude_seen=True, top_k=3)
    # user u0 has had 1 to 5 and bought 6 and 7: 8 alone is ranked above 6; u2 had 1, 2, 8 and bought 9, 1, 3
    assert ranking.ranks.tolist() == [2, 5]
    assert ranking.top.tolist() == [[8, 7, 6], [7, 6, 5]]  # what would be served does not know the basket
    twice = replace(split.test, targets=np.array([6, 1], dtype=np.int32))  # bought and viewed at once
    assert rank_targets(block, twice, allowed, exclude_seen=False).ranks.tolist() == [2, 7]
    assert rank_targets(block, twice, allowed, exclude_seen=True).ranks.tolist() == [2, MISS]


# --- what training asks ---------------------------------------------------------------------------------------


@given(users, st.integers(0, 9))
def test_an_event_asks_for_an_item_of_the_next_basket(all_of: list[Baskets], seed: int) -> None:
    histories = sequences(all_of)
    labels = NextBasket(histories).labels(np.random.default_rng(seed))
    assert labels[0] == 0 and len(labels) == len(histories.items) + 1
    event = 0
    for baskets in all_of:
        for place, (_, basket) in enumerate(baskets):
            for _ in basket:
                event += 1
                if place + 1 < len(baskets):
                    assert labels[event] in baskets[place + 1][1]
                else:
                    assert labels[event] == 0


def test_every_item_of_the_next_basket_is_drawn_alike_and_windows_without_a_question_are_left_out() -> None:
    baskets = NextBasket(sequences([[(1, [1, 2]), (2, [3, 4, 5])], [(7, [1, 2])]]))
    drawn = np.array([baskets.labels(np.random.default_rng(seed))[1:3] for seed in range(1500)]).ravel()
    assert np.abs(np.bincount(drawn, minlength=6)[3:] / len(drawn) - 1 / 3).max() < 0.04
    asking = baskets.ask(np.array([0, 2, 5]), np.array([2, 5, 7]))
    assert asking.tolist() == [True, False, False]


def shop_of_rings(root: Path, objective: str) -> Settings:
    """120 users buy three things at a time, the next three of a ring of ten baskets each time."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(120):
        start, length = int(rng.integers(10)), int(rng.integers(3, 7))
        for n in range(length):
            group = (start + n) % 10
            lines += [f"{user},i{group}{item},{1_600_000_000 + 100 * n}" for item in rng.permutation(3)]
    (root / "log.csv").write_text("\n".join(lines) + "\n")
    return parse_settings(
        {
            "name": "rings",
            "data_root": str(root),
            "warehouse": str(root / "warehouse"),
            "interactions": {"source": "log.csv"},
            "split": {"same_time": "basket"},
            "model": {"dimensions": 16, "max_length": 10, "text": False, "objective": objective, "id_dropout": 0.0},
            "train": {"epochs": 12, "batch_size": 16, "evaluate_every": 4, "learning_rate": 0.01},
            "evaluate": {"exclude_seen": False},
            "blend": {"kind": "always", "text": False},
        }
    )


def test_a_model_learns_what_the_next_basket_holds(tmp_path: Path) -> None:
    settings = shop_of_rings(tmp_path, "next-item")
    versions = ingest(settings, now=datetime(2024, 6, 1, tzinfo=UTC)).versions
    report = fit(settings, versions)
    bundle = read_bundle(report.bundle)
    right = []
    for group in range(10):
        codes = bundle.vocabulary.encode_text([f"i{group}{item}" for item in range(3)])
        scores = queries_of(bundle, codes, np.array([0, 3])) @ bundle.vectors.T
        scores[:, 0] = -np.inf
        best = bundle.vocabulary.items.gather(np.argsort(-scores[0])[:3] - 1)
        right += [name[1] == str((group + 1) % 10) for name in best]
    assert np.mean(right) > 0.9  # trained event by event it says the rest of this basket first
    measured = evaluate(settings, versions, report.bundle)
    assert measured.report["protocol"]["same_time"] == "basket"
    # whichever of the three is asked for, the other two are not ranked against it
    assert measured.baselines["model"]["test/hr_at_5"] > 0.95
    assert measured.metrics["test/hr_at_5"] > 0.95
