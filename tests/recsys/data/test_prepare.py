from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import prepare as module
from recsys.data.filters import counting, k_core
from recsys.data.prepare import Dataset, prepare
from recsys.data.split_strategies import split_sequences
from recsys.data.splits import Split
from recsys.data.vocabulary import Vocabulary, fit_vocabulary
from recsys.errors import InputError, RecsysError
from recsys.ingestion.ingest import ingest
from recsys.settings import FilterSettings, Settings
from recsys.settings.read import parse_settings


def settings(folder: Path, **sections: Any) -> Settings:
    return parse_settings(
        {
            "name": "n",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "model": {"text": False},
        }
        | sections
    )


def prepared(folder: Path, rows: list[tuple[str, str, int]], **sections: Any) -> Dataset:
    lines = ["user_id,item_id,timestamp", *(f"{u},{i},{t}" for u, i, t in rows)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    configured = settings(folder, **sections)
    return prepare(configured, ingest(configured).versions)


LOG = [
    ("ann", "a", 1_000_000_000),
    ("ann", "b", 1_000_000_001),
    ("ann", "c", 1_000_000_002),
    ("ann", "d", 1_000_000_003),
    ("bob", "b", 1_000_000_000),
    ("bob", "a", 1_000_000_009),
    ("bob", "z", 1_000_000_010),
]


def test_users_without_enough_events_are_counted_with_the_reason(tmp_path: Path) -> None:
    """Cy has one event; dee's only one is taken back, so that nothing of hers is left without any filter, too."""
    log = [*LOG, ("cy", "a", 1_000_000_000), ("dee", "a", 1_000_000_000)]
    dataset = prepared(tmp_path, log, filter={"min_user_interactions": 3})
    assert dataset.report["left_out"] == {"users": 2, "by": ["filter.min_user_interactions = 3"]}
    (tmp_path / "v").mkdir()
    lines = [*(f"{u},{i},{t}," for u, i, t in log), "dee,a,1000000001,x"]
    (tmp_path / "v" / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,back", *lines]) + "\n")
    source = {"source": "log.csv", "withdraw": [{"column": "back", "missing": False}]}
    configured = settings(tmp_path / "v", interactions=source)
    left = prepare(configured, ingest(configured).versions).report
    assert left["left_out"] == {"users": 1, "by": ["withdrawals"]}
    assert (left["users"], left["withdrawals"]["events"]) == (3, 1)


def histories(dataset: Dataset) -> dict[str, list[str]]:
    part = dataset.split.serving
    return {
        user: dataset.vocabulary.decode(part.history(row)).to_list() for row, user in enumerate(part.users.to_list())
    }


def test_codes_come_from_training_rows_only(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, LOG)
    # training: ann a b, bob b; the held-out c, d, a(bob), z: only a is known
    assert dataset.vocabulary.items.to_list() == ["a", "b"]
    assert dataset.split.test.targets.tolist() == [0, 0]
    assert dataset.split.validation.targets.tolist() == [0, 1]
    assert dataset.report["unknown_test_items"] == 2
    assert dataset.trained_items().tolist() == [False, True, True]


def test_a_split_that_leaks_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(*arguments: Any) -> Split:
        split = split_sequences(*arguments)
        return replace(split, train=split.serving)

    with monkeypatch.context() as planted:
        planted.setattr(module, "split_sequences", leaky)
        with pytest.raises(RecsysError, match=r"^Leak: the user at place 1 of . trains on 4 events"):
            prepared(tmp_path, LOG)

    def knows_everything(training: pl.Series, catalogue: pl.Series | None) -> Vocabulary:
        return fit_vocabulary(training, pl.Series(["z"]))

    monkeypatch.setattr(module, "fit_vocabulary", knows_everything)
    with pytest.raises(RecsysError, match=r"^Leak: the vocabulary holds 1 items"):
        prepared(tmp_path, LOG)


def core(pairs: list[tuple[Any, Any]], users: int, items: int) -> list[tuple[Any, Any]]:
    """The pairs of user and item that the k-core leaves, by user."""
    pairs = sorted(pairs)
    codes = {item: code for code, item in enumerate(sorted({item for _, item in pairs}), start=1)}
    owners = [user for user, _ in pairs]
    offsets = np.array([0, *(n for n in range(1, len(pairs)) if owners[n] != owners[n - 1]), len(pairs)])
    left = k_core(np.array([codes[item] for _, item in pairs], dtype=np.int32), offsets, users, items)
    return [pair for pair, stays in zip(pairs, left, strict=True) if stays]


def test_what_the_core_removes_can_leave_others_with_too_little() -> None:
    """Without x, which one user has, ann has two events; without ann, item c has one; without it, bob has two."""
    pairs = [("ann", "a"), ("ann", "c"), ("ann", "x"), ("bob", "a"), ("bob", "b"), ("bob", "c")]
    pairs += [(user, item) for user in ("cy", "dee") for item in ("a", "b", "d")]
    assert sorted({user for user, _ in core(pairs, 3, 2)}) == ["cy", "dee"]


def test_the_catalogue_brings_the_items_that_training_lacks(tmp_path: Path) -> None:
    catalogue = [
        {"item_id": "z", "title": "Z &amp; co", "tags": ["x", "y"], "brand": "acme"},
        {"item_id": "a", "title": "A", "tags": [], "brand": None},
        {"item_id": "new", "title": None, "tags": None, "brand": "acme|beta"},
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, catalogue)))
    dataset = prepared(
        tmp_path,
        LOG,
        items={
            "source": "items.jsonl",
            "text": ["title"],
            "categorical": {"tags": {}, "brand": {"separator": "|"}},
        },
    )
    assert dataset.vocabulary.items.to_list() == ["a", "b", "new", "z"]
    assert dataset.catalogue["item_id"].to_list() == ["a", "b", "new", "z"]
    assert dataset.catalogue["tags"].to_list() == [[], [], [], ["x", "y"]]
    assert dataset.catalogue["brand"].to_list() == [[], [], ["acme", "beta"], ["acme"]]
    assert "Z & co" in dataset.catalogue["sentence"][3]
    assert dataset.report["items_without_training"] == 2
    assert dataset.split.test.targets.tolist() == [0, 4]  # d is nowhere, z is in the catalogue


def test_ties_keep_the_order_of_the_log(tmp_path: Path) -> None:
    rows = [("u", item, 1_000_000_000) for item in "dacb"]
    dataset = prepared(tmp_path, rows)
    assert dataset.vocabulary.items.to_list() == ["d", "a"]
    assert dataset.report["tied_share"] == 1.0


def test_history_is_in_time_order_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    keep = {"items": {"source": "items.csv"}}
    (tmp_path / "items.csv").write_text("item_id\na\nb\nc\nd\nz\n")
    forwards = histories(prepared(tmp_path, LOG, **keep))
    assert forwards == {"ann": ["a", "b", "c", "d"], "bob": ["b", "a", "z"]}
    elsewhere = tmp_path / "reversed"
    elsewhere.mkdir()
    (elsewhere / "items.csv").write_text("item_id\na\nb\nc\nd\nz\n")
    assert histories(prepared(elsewhere, LOG[::-1], **keep)) == forwards


def test_the_digest_follows_the_data(tmp_path: Path) -> None:
    digests = []
    for name, rows in (("one", LOG), ("two", LOG), ("three", LOG[:-1])):
        folder = tmp_path / name
        folder.mkdir()
        digests.append(prepared(folder, rows).digest)
    assert digests[0] == digests[1] != digests[2]


def test_nothing_left_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="min_user_interactions = 50"):
        prepared(tmp_path, LOG, filter={"min_user_interactions": 50})


def frame(pairs: list[tuple[int, int]]) -> pl.LazyFrame:
    return pl.DataFrame(
        {
            "user_id": [u for u, _ in pairs],
            "item_id": [i for _, i in pairs],
            "timestamp": pl.Series(range(len(pairs))).cast(pl.Datetime("us", "UTC")),
            "event": ["view" if n % 2 else "buy" for n in range(len(pairs))],
            "weight": [float(n) for n in range(len(pairs))],
            "position": range(len(pairs)),
        },
        schema_overrides={"user_id": pl.Int64, "item_id": pl.Int64, "position": pl.Int64},
    ).lazy()


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_the_k_core_is_the_largest_set_that_satisfies_both_sides(
    pairs: list[tuple[int, int]], users: int, items: int
) -> None:
    kept = core(pairs, users, items) if pairs else []
    expected = list(pairs)
    while True:  # remove one offending row at a time: the order must not matter
        offending = [
            row
            for row in expected
            if sum(row[0] == other[0] for other in expected) < users
            or sum(row[1] == other[1] for other in expected) < items
        ]
        if not offending:
            break
        expected.remove(offending[0])
    assert kept == sorted(expected)


def test_filters_by_event_weight_and_repeats() -> None:
    pairs = [(1, 1), (1, 2), (1, 1), (2, 1)]

    def kept(**changes: Any) -> list[int]:
        return sorted(counting(frame(pairs), FilterSettings(**changes)).collect()["position"].to_list())

    assert kept() == [0, 1, 2, 3]
    assert kept(events=("buy",)) == [0, 2]
    assert kept(min_weight=2.0) == [2, 3]
    assert kept(repeats="first") == [0, 1, 3]
    assert kept(repeats="last") == [1, 2, 3]
    assert kept(repeats="last", events=("buy",)) == [2]


def test_codes_fit_the_arrays(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, LOG)
    for part in (dataset.split.train, dataset.split.serving, dataset.split.test.histories):
        assert part.items.dtype == np.int32
        assert part.items.min() >= 1 and part.items.max() <= dataset.vocabulary.size


def test_values_of_a_category_have_no_blanks(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,genre\na,x||y\nb, x | y\nc,|\nd,\n")
    dataset = prepared(tmp_path, LOG, items={"source": "items.csv", "categorical": {"genre": {"separator": "|"}}})
    values = dict(dataset.catalogue.select("item_id", "genre").rows())
    assert values == {"a": ["x", "y"], "b": ["x", "y"], "c": [], "d": []}


def test_histories_too_short_to_hold_out_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="None of the 2 users has three interactions"):
        prepared(tmp_path, [("ann", "a", 1), ("bob", "b", 2), ("bob", "a", 3)])


def test_a_time_split_of_one_moment_is_said(tmp_path: Path) -> None:
    rows = [(user, item, 1_000_000_000) for user in ("ann", "bob") for item in "abcd"]
    with pytest.raises(InputError, match=r"split\.test_fraction = 0\.1 cannot divide the log"):
        prepared(tmp_path, rows, split={"strategy": "time"})
