from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets import synthetic
from recsys.datasets.synthetic import END, NEW_FROM, START, Generated, demo_settings, generate
from recsys.datasets.synthetic_words import brand_names, leaves
from recsys.settings.read import load_settings


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("shop"), seed=0)


@pytest.fixture(scope="module")
def log(shop: Generated) -> pl.DataFrame:
    """First event of every user with every item, in order."""
    frame = pl.read_csv(shop.interactions, try_parse_dates=True)
    return frame.sort("user_id", "timestamp").unique(["user_id", "item_id"], keep="first", maintain_order=True)


@pytest.fixture(scope="module")
def items(shop: Generated) -> pl.DataFrame:
    return pl.read_ndjson(shop.items)


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    bytes_of = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        made = generate(tmp_path / name, seed=seed, users=200, items=300)
        bytes_of[name] = (made.interactions.read_bytes(), made.items.read_bytes())
    assert bytes_of["a"] == bytes_of["b"]
    assert bytes_of["a"][0] != bytes_of["c"][0]
    assert bytes_of["a"][1] != bytes_of["c"][1]


def test_files_have_the_promised_columns_and_sizes(log: pl.DataFrame, items: pl.DataFrame, shop: Generated) -> None:
    raw = pl.read_csv(shop.interactions)
    assert raw.columns == ["user_id", "item_id", "timestamp", "event"]
    assert set(raw["event"]) == {"view", "purchase"}
    assert raw["timestamp"].str.contains(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$").all()
    assert raw["timestamp"].is_sorted()
    assert raw["user_id"].n_unique() == 4000
    assert len(items) == 1000
    assert items.columns == ["item_id", "title", "brand", "category", "price"]
    assert set(raw["item_id"]) <= set(items["item_id"])
    lengths = log.group_by("user_id").len()["len"]
    assert 20 < lengths.mean() < 30  # type: ignore[operator]
    assert lengths.min() >= 4  # type: ignore[operator]
    assert START <= log["timestamp"].min() < log["timestamp"].max() <= END  # type: ignore[operator]


def test_titles_are_unique_and_say_brand_and_category(items: pl.DataFrame) -> None:
    assert items["title"].n_unique() == len(items)
    assert items.select(pl.col("title").str.contains(pl.col("brand"), literal=True).all()).item()
    words = {leaf.path: [*leaf.nouns, *leaf.series] for leaf in leaves()}
    for title, path in items.select("title", "category").iter_rows():
        low = title.lower()
        assert any(word.lower() in low for word in words[tuple(path)]), (title, path)


def test_a_brand_stays_in_its_department(items: pl.DataFrame) -> None:
    departments = items.group_by("brand").agg(pl.col("category").list.first().n_unique())
    assert (departments["category"] == 1).all()
    assert len(departments) > 50


def test_a_purchase_follows_a_view_of_the_same_item(shop: Generated) -> None:
    raw = pl.read_csv(shop.interactions, try_parse_dates=True)
    view, bought = (raw.filter(pl.col("event") == event) for event in ("view", "purchase"))
    both = bought.join(view, on=["user_id", "item_id"], suffix="_view")
    assert len(both) == len(bought) > 0.1 * len(view)
    assert ((both["timestamp"] - both["timestamp_view"]).is_between(timedelta(0), timedelta(minutes=30))).all()


def test_popularity_has_a_long_tail(log: pl.DataFrame) -> None:
    counts = np.sort(log.group_by("item_id").len()["len"].to_numpy())[::-1]
    assert counts[: len(counts) // 100].sum() > 0.08 * counts.sum()  # one item in a hundred
    assert counts[: len(counts) // 5].sum() > 0.5 * counts.sum()
    assert (counts[len(counts) // 2 :] > 0).all()
    slope = np.polyfit(np.log(np.arange(1, 501)), np.log(counts[:500]), 1)[0]
    assert -1.2 < slope < -0.5


def test_a_successor_follows_far_above_chance(shop: Generated, log: pl.DataFrame) -> None:
    successors = shop.catalogue.successors()
    assert len(successors) > 200
    followed = in_order = both = 0
    histories = log.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    steps = sum(len(history) - 1 for history in histories)
    popularity = dict(log.group_by("item_id").len().iter_rows())
    by_chance = 0.0
    for history in histories:
        place = {item: i for i, item in enumerate(history)}
        followed += sum(successors.get(a) == b for a, b in pairwise(history))
        by_chance += sum(popularity.get(successors[a], 0) for a in history if a in successors) / len(log)
        for first, second in successors.items():
            if first in place and second in place:
                both += 1
                in_order += place[first] < place[second]
    assert followed > 30 * by_chance
    assert followed > 0.05 * steps
    assert in_order > 0.8 * both


def test_a_follow_up_shares_brand_and_leaf_and_names_its_product(shop: Generated) -> None:
    catalogue = shop.catalogue
    of = {item: i for i, item in enumerate(catalogue.item_ids)}
    for first, second in catalogue.successors().items():
        a, b = of[first], of[second]
        assert catalogue.brands[a] == catalogue.brands[b]
        assert catalogue.categories[a] == catalogue.categories[b]
        if catalogue.categories[a][0] not in ("Books", "Film and TV", "Games"):
            assert catalogue.titles[b].split(" for ")[1] == catalogue.titles[a].split(" for ")[-1]


def test_interests_drift(shop: Generated, log: pl.DataFrame) -> None:
    """The leaf of the next event is often the same, and less and less often so further on."""
    leaf = dict(zip(shop.catalogue.item_ids, shop.catalogue.leaf.tolist(), strict=True))
    codes = log["item_id"].replace_strict(leaf, return_dtype=pl.Int64).to_numpy()
    user = log["user_id"].rank("dense").to_numpy()

    def same(distance: int) -> float:
        together = user[distance:] == user[:-distance]
        return float((codes[distance:] == codes[:-distance])[together].mean())

    shares = np.bincount(codes) / len(codes)
    by_chance = float((shares**2).sum())
    assert same(1) > 5 * by_chance
    assert same(1) > 1.3 * same(8) > 1.3 * 1.1 * same(25)


def test_users_are_loyal_to_brands(log: pl.DataFrame, items: pl.DataFrame) -> None:
    """Events of one user in two leaves of a department share the brand more often than chance has it."""
    told = log.join(items, on="item_id", maintain_order="left").select(
        "user_id", "brand", department=pl.col("category").list.first(), leaf=pl.col("category").list.last()
    )

    def same_brand(frame: pl.DataFrame) -> float:
        def pairs(*keys: str) -> float:
            return float((frame.group_by("user_id", *keys).len()["len"].cast(pl.Float64) ** 2).sum())

        same = pairs("department", "brand") - pairs("department", "leaf", "brand")
        return same / (pairs("department") - pairs("department", "leaf"))

    # a leaf holds few items of one brand: later on a user has them all, so each leaf's first two events are looked at
    told = told.filter(pl.int_range(pl.len()).over("user_id", "leaf") < 2)
    shuffled = told.with_columns(pl.col("user_id").shuffle(seed=0).over("leaf"))
    assert same_brand(told) > 1.3 * same_brand(shuffled) > 0


def test_new_items_appear_only_near_the_end(shop: Generated, log: pl.DataFrame) -> None:
    new = shop.catalogue.new_items()
    assert len(new) == round(synthetic.NEW_SHARE * 1000)
    border = START + NEW_FROM * (END - START) - timedelta(days=4)
    first = log.group_by("item_id").agg(pl.col("timestamp").min())
    of_new = first.filter(pl.col("item_id").is_in(list(new)))["timestamp"]
    assert of_new.min() >= border  # type: ignore[operator]
    others = first.filter(~pl.col("item_id").is_in(list(new)))["timestamp"]
    assert (others < border).to_numpy().mean() > 0.95
    targets = log.group_by("user_id", maintain_order=True).last()["item_id"]
    assert 0.03 < targets.is_in(list(new)).to_numpy().mean() < 0.2
    seldom = log.group_by("item_id").len().filter(pl.col("item_id").is_in(list(new)) & (pl.col("len") <= 5))
    assert len(seldom) > 20


def test_transition_counts_beat_popularity_by_far(log: pl.DataFrame, shop: Generated) -> None:
    """Leave-one-out NDCG@10, seen items removed: row-normalised counts of pairs within four steps."""
    place = {item: i for i, item in enumerate(shop.catalogue.item_ids)}
    codes = log["item_id"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
    user = log["user_id"].rank("dense").to_numpy() - 1
    ends = np.flatnonzero(np.append(np.diff(user) > 0, True))
    trained = np.ones(len(codes), dtype=bool)
    trained[ends] = trained[ends - 1] = False
    size = len(place)
    counts = np.zeros((size, size))
    for distance in range(1, 5):
        together = (user[distance:] == user[:-distance]) & trained[distance:]
        np.add.at(counts, (codes[:-distance][together], codes[distance:][together]), 1 / distance)
    counts /= np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
    popularity = np.bincount(codes[trained], minlength=size)
    starts = np.append(0, ends[:-1] + 1)

    def ndcg(scores_of: object) -> float:
        total = 0.0
        for start, end in zip(starts, ends, strict=True):
            history, target = codes[start:end], codes[end]
            scores = scores_of(history).astype(float)  # type: ignore[operator]
            scores[history] = -1.0
            rank = int((scores > scores[target]).sum() + (scores[:target] == scores[target]).sum())
            total += 1 / np.log2(rank + 2) if rank < 10 else 0.0
        return total / len(ends)

    def transitions(history: np.ndarray) -> np.ndarray:
        recent = history[-10:][::-1]
        return 0.7 ** np.arange(len(recent)) @ counts[recent]

    assert ndcg(transitions) > 4 * ndcg(lambda _: popularity) > 0


def test_size_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="items = 10 must lie between"):
        generate(tmp_path, items=10)


def test_large_and_small_catalogues_keep_their_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for size in (4 * len(leaves()), 4000):
        catalogue = synthetic.make_catalogue(rng, size)
        assert len(catalogue.item_ids) == len(set(catalogue.titles)) == size
        follower = catalogue.successor[catalogue.successor >= 0]
        assert len(np.unique(follower)) == len(follower)


def test_brands_are_many_and_distinct() -> None:
    assert len(set(brand_names())) == len(brand_names()) == 512


def test_the_demo_configuration_is_the_one_in_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    assert demo_settings("demo") == load_settings("configs/demo.toml")


def test_no_event_lies_in_the_future(log: pl.DataFrame) -> None:
    assert log["timestamp"].max() <= END  # type: ignore[operator]
