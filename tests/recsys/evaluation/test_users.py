from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut
from recsys.errors import InputError
from recsys.evaluation.metrics import MISS
from recsys.evaluation.users import (
    UserValues,
    forget,
    from_parquet,
    local_path,
    to_parquet,
    user_values,
    write_file,
)
from recsys.forgetting.sought import Sought

ABOUT = {"name": "shop", "bundle": "shop-01", "served": "model", "exclude_seen": True, "mlflow_run": "abc"}


def values(users: list[str] | list[int] = ["ann", "bob", "cyd"]) -> UserValues:  # noqa: B006 - is not changed
    held_out = HeldOut(
        histories=Sequences(
            users=pl.Series("user_id", users),
            items=np.ones(len(users), dtype=np.int32),
            offsets=np.arange(len(users) + 1, dtype=np.int64),
        ),
        targets=np.array([2, 0, 1], dtype=np.int32),
    )
    keys = pl.DataFrame({"history_length": ["1", "1", "2-3"], "item:genres": [["a"], None, ["a", "b"]]})
    catalogue = pl.DataFrame({"item_id": ["i1", "i2"]})
    frame = user_values(held_out, np.array([3, MISS, 11]), keys, catalogue, 10)
    return UserValues(frame=frame, about=ABOUT)


def test_a_row_a_user() -> None:
    assert values().frame.to_dict(as_series=False) == {
        "user_id": ["ann", "bob", "cyd"],
        "target": ["i2", None, "i1"],
        "rank": [3, None, 11],
        "hit_at_10": [1, 0, 0],
        "ndcg_at_10": [0.5, 0.0, 0.0],
        "history_length": ["1", "1", "2-3"],
        "item:genres": [["a"], None, ["a", "b"]],
    }
    assert values().ranks().tolist() == [3, MISS, 11]


def test_a_file_holds_everything() -> None:
    found = from_parquet(to_parquet(values()), "here")
    assert found.frame.equals(values().frame)
    assert found.about == ABOUT


@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense", b"a,b\n1,2\n"])
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"users\.parquet holds no values per user"):
        from_parquet(content, "users.parquet")


def test_the_digest_is_of_users_and_targets_alone() -> None:
    one = values()
    turned = UserValues(frame=one.frame.reverse().with_columns(rank=pl.lit(1)), about={})
    assert turned.digest() == one.digest()
    for change in ({"user_id": ["ann", "bob", "dan"]}, {"target": ["i2", None, "i2"]}, {"target": ["i2", "i1", "i1"]}):
        other = one.frame.with_columns(**{name: pl.Series(new) for name, new in change.items()})
        assert UserValues(frame=other, about={}).digest() != one.digest()
    assert UserValues(frame=one.frame.head(2), about={}).digest() != one.digest()


@pytest.mark.parametrize(("users", "gone"), [(["ann", "bob", "cyd"], "bob"), ([7, 8, 9], "8")])
def test_forgotten_users_leave_the_files(tmp_path: Path, users: list[str] | list[int], gone: str) -> None:
    path = local_path(tmp_path, "elsewhere/shop-01")
    write_file(path, to_parquet(values(users)))
    assert path == tmp_path / "evaluations" / "shop-01.parquet"
    assert forget(tmp_path, Sought(users=frozenset(["nobody"]))) == 0
    assert forget(tmp_path, Sought(users=frozenset([gone]))) == 1
    left = from_parquet(path.read_bytes(), "here")
    assert left.frame["user_id"].to_list() == [users[0], users[2]]
    assert left.about == ABOUT
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert forget(tmp_path / "nowhere", Sought(users=frozenset([gone]))) == 0
