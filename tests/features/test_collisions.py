from __future__ import annotations

import polars as pl
import pytest
import torch

from recsys.features.collisions import (
    angle,
    expected_confused,
    overlap,
    projections,
    suggest,
    table_use,
    unseen_lookups,
)
from recsys.features.declaration import Feature
from recsys.features.encode import FeatureEncoder
from recsys.features.hashing import PADDING, hash_values, lookup_rows


def hashes(prefix: str, count: int) -> torch.Tensor:
    return torch.from_numpy(hash_values(f"{prefix}{i}" for i in range(count)))


def test_collisions_by_counting_pairs() -> None:
    values = {"a": hashes("a", 30), "b": hashes("b", 9)}
    lookups, rows = {"a": 2, "b": 1}, 40
    use = table_use(
        {"a": torch.cat([values["a"], values["a"], torch.tensor([PADDING])]), "b": values["b"]}, lookups, rows
    )
    cells = [
        (name, c, int(row))
        for name in values
        for of in lookup_rows(values[name], name, lookups[name], rows)
        for c, row in enumerate(of.tolist())
    ]
    for entry in use.features:
        own = [cell for cell in cells if cell[0] == entry.feature]
        assert entry.values == len(values[entry.feature])
        assert entry.rows == len({row for _, _, row in own})
        assert entry.intra == sum(own.count(cell) > 1 for cell in own)
        assert entry.inter == sum(any(o[2] == cell[2] and o[:2] != cell[:2] for o in cells) for cell in own)
    assert use.used == len({row for _, _, row in cells})
    assert use.used_share == use.used / 40


def test_expectations_are_what_chance_gives() -> None:
    rows, trials = 500, 60
    total = {name: [0.0, 0.0] for name in ("rows", "intra", "inter", "confused")}
    for trial in range(trials):
        use = table_use({"a": hashes(f"{trial}a", 400), "b": hashes(f"{trial}b", 100)}, {"a": 1, "b": 2}, rows)
        for name, sums in total.items():
            for entry in use.features:
                sums[0] += getattr(entry, name)
                sums[1] += getattr(entry, f"{name}_expected")
    for counted, expected in total.values():
        assert counted == pytest.approx(expected, rel=0.02)


def test_confused_values_share_every_row() -> None:
    one, two = (table_use({"id": hashes("i", 300)}, {"id": k}, 20).features[0] for k in (1, 2))
    assert one.confused == one.intra == 300
    assert 60 < two.confused < 240 and two.confused_expected == pytest.approx(300 * (1 - (1 - 1 / 400) ** 299))
    assert expected_confused(1_000_000, 4, 10**6) == pytest.approx(10**6 * 10**6 / 10**24)  # no rounding to zero
    assert expected_confused(1, 1, 10) == 0 and expected_confused(5, 2, 1) == 5


def test_suggestions_spend_the_memory_and_separate_ids() -> None:
    values = {"item_id": 10_000, "brand": 500}
    generous, tight = (suggest(values, memory, 64, ids=["item_id"]) for memory in (20_000_000, 300_000))
    for memory, found in ((20_000_000, generous), (300_000, tight)):
        assert memory - 4 * found.width < found.bytes <= memory
        assert found.width * found.lookups["item_id"] == 64
        assert found.confused_expected["item_id"] < 1
    assert generous.lookups["item_id"] == 2  # an output is never looked up once
    assert tight.lookups["item_id"] == 4
    only = suggest({"brand": 500}, 200_000_000, 64)
    assert only.lookups == {"brand": 1} and only.width == 64
    with pytest.raises(ValueError, match="100 bytes hold not one row of 32 weights"):
        suggest(values, 100, 64, ids=["item_id"])


def test_unseen_values_are_counted_by_lookups() -> None:
    features = (Feature(name="brand", lookups=2), Feature(name="tags", kind="multi", lookups=3))
    training = pl.DataFrame({"brand": ["a", "b", None], "tags": [["x", "y"], [], ["x"]]})
    later = pl.DataFrame({"brand": ["a", "c", "c", None], "tags": [["z", "x"], ["z", "w", "y"], None, ["y"]]})
    encoder = FeatureEncoder.fit(features, training)
    counted = unseen_lookups(features, encoder.encode(training), encoder.encode(later))
    assert counted == {"brand": 2 * 2, "tags": 3 * 3}


def test_overlap_of_projections() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(64, 30, generator=generator), torch.randn(48, 30, generator=generator)
    assert overlap(left, right) == pytest.approx(30**-0.5, rel=0.1)  # independent ones
    first = torch.zeros(5, 4)
    first[:, 0] = 1
    second = first.roll(1, 1)
    assert overlap(first, second) == 0 and overlap(first, -3 * first) == pytest.approx(1)
    parts = projections(torch.arange(12.0).view(2, 6), {"a": slice(0, 2), "b": slice(2, 6)})
    assert parts["b"].tolist() == [[2, 3, 4, 5], [8, 9, 10, 11]]


def test_angles() -> None:
    assert angle(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])) == pytest.approx(45)
    assert angle(torch.tensor([1.0, 0.0]), torch.tensor([-2.0, 0.0])) == pytest.approx(0, abs=0.1)
    assert angle(torch.tensor([0.0, 3.0]), torch.tensor([2.0, 0.0])) == pytest.approx(90)
