"""The click study's own parts: its measure, its split, and the rows that each arm gives to a value."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash

from recsys.features.hashing import hash_values, lookup_rows
from recsys.features.multiplexed import FeatureBatch


@pytest.fixture
def clicks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the study."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return lambda name: importlib.import_module(f"clicks.{name}")


def batch(count: int = 200) -> FeatureBatch:
    """Random values of the study's larger feature set, one or two in each bag."""
    generator = torch.Generator().manual_seed(0)
    hashes = torch.from_numpy(hash_values(range(500)))
    lengths = torch.randint(1, 3, (3 * count,), generator=generator)
    return FeatureBatch(
        values=hashes[torch.randint(0, 60, (count, 9), generator=generator)],
        bags=hashes[torch.randint(0, 40, (int(lengths.sum()),), generator=generator)],
        offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
    )


def test_the_area_is_the_share_of_pairs_in_order(clicks: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 12, (300,), generator=generator).float()  # many ties
    labels = torch.randint(0, 2, (300,), generator=generator).float()
    positive, negative = scores[labels > 0][:, None], scores[labels == 0][None, :]
    pairs = (positive > negative).double() + 0.5 * (positive == negative).double()
    assert clicks("model").area(scores, labels) == pytest.approx(float(pairs.mean()))


def test_the_split_is_eighty_ten_ten_without_overlap(clicks: Any) -> None:
    parts = clicks("data").split(1003, 42, 1.0)
    assert [len(part) for part in parts] == [802, 100, 101]
    assert torch.cat(parts).sort().values.tolist() == list(range(1003))


def test_without_collisions_every_value_has_a_row_of_its_own(clicks: Any) -> None:
    data = clicks("data")
    mapped, rows = data.rows_of(data.Job(data="ml-1m-extra", arm="collisionless"), batch())
    columns = list(data.columns_of(mapped, data.FEATURES["ml-1m-extra"]))
    values = list(data.columns_of(batch(), data.FEATURES["ml-1m-extra"]))
    used = [set(column.tolist()) for _, column in columns]
    assert [len(of) for of in used] == [len(hashes.unique()) for _, hashes in values]
    assert sum(map(len, used)) == len(set.union(*used)) == rows


def test_hashed_features_share_no_row_and_the_budget(clicks: Any) -> None:
    data = clicks("data")
    full = data.rows_of(data.Job(data="ml-1m-extra", arm="collisionless"), batch())[1]
    mapped, rows = data.rows_of(data.Job(data="ml-1m-extra", arm="hashed", budget=0.5), batch())
    assert abs(rows - full / 2) < 8  # rounding of each feature
    used = [set(column.tolist()) for _, column in data.columns_of(mapped, data.FEATURES["ml-1m-extra"])]
    assert sum(map(len, used)) == len(set.union(*used)) <= rows


@pytest.mark.parametrize("arm", ["multiplexed", "hashed"])
def test_each_seed_draws_its_own_hash_functions(clicks: Any, arm: str) -> None:
    data = clicks("data")
    one, other = (data.rows_of(data.Job(data="ml-1m-extra", arm=arm, seed=seed), batch())[0] for seed in (0, 1))
    assert (one.values != other.values).float().mean() > 0.5


def test_the_published_draw_is_xxhash_of_column_and_value_for_every_seed(clicks: Any) -> None:
    data, known = clicks("data"), batch()
    base = FeatureBatch(values=known.values[:, :6], bags=known.bags[:0], offsets=known.offsets[:1])
    texts = {f.name: dict(zip(hash_values(range(60)).tolist(), map(str, range(60)), strict=True)) for f in data.BASE}
    jobs = [data.Job(data="ml-1m", arm="hashed", published_draw=True, seed=seed) for seed in (0, 1)]
    one, other = (data.rows_of(job, base, texts)[0].values for job in jobs)
    assert torch.equal(one, other)
    used = [set(column.tolist()) for column in one.T]
    assert sum(map(len, used)) == len(set.union(*used))  # tables of their own
    first = len(base.values[:, 0].unique())  # the users' table comes first and has its share of the rows
    own = round(13_653 * first / sum(len(column.unique()) for column in base.values.T))
    text = texts["user"][int(base.values[0, 0])]
    assert one[0, 0] == xxhash.xxh32_intdigest(f"user_id:{text}".encode()) % own


def test_the_published_draw_gives_both_genders_rows_of_their_own(clicks: Any) -> None:
    hashes = torch.from_numpy(hash_values(["F", "M"]))
    texts = dict(zip(hashes.tolist(), ["F", "M"], strict=True))
    assert sorted(clicks("published_draw").published_rows(hashes, "gender", texts, 2).flatten().tolist()) == [0, 1]


@pytest.mark.parametrize("lookups", [1, 2])
def test_multiplexed_rows_are_those_of_the_layer(clicks: Any, lookups: int) -> None:
    data = clicks("data")
    job = data.Job(data="ml-1m-extra", arm="multiplexed", lookups=lookups)
    mapped, rows = data.rows_of(job, batch())
    expected = lookup_rows(batch().values[:, 1], "movie, draw 0", lookups, rows)
    assert torch.equal(mapped.values[:, lookups : 2 * lookups], expected)
    for place, name in enumerate(("genres", "directors", "cast")):
        for row in (0, 57, 199):
            start, stop = batch().offsets[place * 200 + row : place * 200 + row + 2].tolist()
            wanted = lookup_rows(batch().bags[start:stop], f"{name}, draw 0", lookups, rows)
            for lookup in range(lookups):
                bag = (place * lookups + lookup) * 200 + row
                found = mapped.bags[mapped.offsets[bag] : mapped.offsets[bag + 1]]
                assert torch.equal(found, wanted[:, lookup])
