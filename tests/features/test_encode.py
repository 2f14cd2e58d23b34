from __future__ import annotations

import json
import subprocess
import sys
from datetime import date

import numpy as np
import polars as pl
import pytest
import torch

from recsys.features.declaration import Feature
from recsys.features.encode import FeatureEncoder, hash_lists
from recsys.features.hashing import MISSING, cross_hashes, hash_values

FEATURES = (
    Feature(name="brand", lookups=2),
    Feature(name="tags", kind="multi"),
    Feature(name="price", kind="numeric", buckets=4),
    Feature(name="brand x price", kind="crossed", of=("brand", "price")),
    Feature(name="sizes", kind="multi"),
)
FRAME = pl.DataFrame(
    {
        "brand": ["opi", None, "opi", "essie"],
        "tags": [["a", "b"], [], None, ["b"]],
        "price": [1.0, 2.0, None, 4.0],
        "sizes": [[1], [2, 3], [3], [1]],
    }
)


def test_columns_and_bags_by_hand() -> None:
    batch = FeatureEncoder.fit(FEATURES, FRAME).encode(FRAME)
    assert len(batch) == 4
    assert batch.values[:, 0].tolist() == hash_values(["opi", None, "opi", "essie"]).tolist()
    assert batch.values[:, 1].tolist() == hash_values([0, 1, None, 2]).tolist()  # buckets; a null has its own
    assert torch.equal(batch.values[:, 2], cross_hashes([batch.values[:, 0], batch.values[:, 1]]))
    assert batch.bags.tolist() == hash_values(["a", "b", None, None, "b", 1, 2, 3, 3, 1]).tolist()
    assert batch.offsets.tolist() == [0, 2, 3, 4, 5, 6, 8, 9, 10]
    assert batch.bags[2] == hash_values([MISSING])[0]


def test_a_batch_of_some_rows() -> None:
    encoder = FeatureEncoder.fit(FEATURES, FRAME)
    rows = torch.tensor([3, 0, 3, 1])
    taken, expected = encoder.encode(FRAME).take(rows), encoder.encode(FRAME[rows.tolist()])
    for name in ("values", "bags", "offsets"):
        assert torch.equal(getattr(taken, name), getattr(expected, name))
    single = FeatureEncoder.fit(FEATURES[:1], FRAME)
    assert torch.equal(single.encode(FRAME).take(rows).values, single.encode(FRAME[rows.tolist()]).values)


def test_held_out_rows_do_not_move_the_buckets() -> None:
    rng = np.random.default_rng(0)
    prices = rng.lognormal(size=1000)
    price = (Feature(name="price", kind="numeric", buckets=16),)

    def edges(held_out: np.ndarray) -> list[float]:
        frame = pl.DataFrame({"price": np.concatenate([prices, held_out]), "training": [True] * 1000 + [False] * 200})
        encoder = FeatureEncoder.fit(price, frame.filter("training"))
        assert len(encoder.encode(frame)) == 1200
        return encoder.buckets["price"].edges.tolist()

    assert edges(rng.lognormal(size=200)) == edges(np.full(200, 1e9))


def test_types_that_have_one_text_everywhere() -> None:
    feature = (Feature(name="v"),)
    for values in (pl.Series([1, None]), pl.Series(["1", None]), pl.Series(["1", None], dtype=pl.Categorical)):
        frame = values.alias("v").to_frame()
        assert (
            FeatureEncoder.fit(feature, frame).encode(frame).values[:, 0].tolist() == hash_values(["1", None]).tolist()
        )
    for odd in (pl.Series([True, None]), pl.Series([date(2014, 7, 1), None])):
        frame = odd.alias("v").to_frame()
        assert len(FeatureEncoder.fit(feature, frame).encode(frame).values.unique()) == 2


def test_another_process_encodes_the_same_after_json() -> None:
    encoder = FeatureEncoder.fit(FEATURES, FRAME)
    code = (
        "import json, sys; import polars as pl; from recsys.features.encode import FeatureEncoder;"
        "given = json.load(sys.stdin);"
        "batch = FeatureEncoder.from_dict(given['encoder']).encode(pl.read_json(given['frame'].encode()));"
        "print(batch.values.tolist(), batch.bags.tolist(), batch.offsets.tolist())"
    )
    given = json.dumps({"encoder": encoder.to_dict(), "frame": FRAME.write_json()})
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, check=True)
    batch = encoder.encode(FRAME)
    assert done.stdout.strip() == f"{batch.values.tolist()} {batch.bags.tolist()} {batch.offsets.tolist()}"


def test_lists_of_any_emptiness() -> None:
    for values in ([[], None], [None], [[None]], [["a"], []]):
        hashes, offsets = hash_lists(pl.Series(values, dtype=pl.List(pl.String)))
        assert offsets.tolist() == list(range(len(values) + 1))
        assert len(hashes) == len(values)
    hashes, offsets = hash_lists(pl.Series([], dtype=pl.List(pl.String)))
    assert len(hashes) == 0 and offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (Feature(name="brnd"), "the data lack the unknown feature 'brnd'; did you mean 'brand'?"),
        (Feature(name="tags"), "'tags' is declared 'single' and its column holds lists; declare it \"multi\""),
        (Feature(name="tags", kind="numeric"), "'tags' is declared 'numeric' and its column holds lists"),
        (Feature(name="brand", kind="multi"), "'brand' is declared multi-valued and its column is of type String"),
        (Feature(name="brand", kind="numeric"), "'brand' is declared numeric and its column is of type String"),
        (Feature(name="price"), "'price' is declared single-valued and its column is of type Float64"),
        (Feature(name="empty", kind="numeric"), "numeric feature 'empty' is null in every training row"),
    ],
)
def test_a_column_of_another_kind_names_the_feature(feature: Feature, message: str) -> None:
    frame = FRAME.with_columns(empty=pl.lit(None))
    with pytest.raises(ValueError, match=message):
        FeatureEncoder.fit([feature], frame)


def test_encoding_checks_the_columns_again() -> None:
    encoder = FeatureEncoder.fit(FEATURES, FRAME)
    with pytest.raises(ValueError, match="lack the unknown feature 'sizes'"):
        encoder.encode(FRAME.drop("sizes"))
    damaged = encoder.to_dict() | {"edges": {}}
    with pytest.raises(ValueError, match="feature 'price' and its fitted buckets disagree"):
        FeatureEncoder.from_dict(damaged)
