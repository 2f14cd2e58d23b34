"""A shop that the project generates itself: the data set of `recsys demo`, of examples and of tests.

The structure is real enough that models differ on it, and every part of it is known:

- interests are leaves of the category tree; a user follows two at a time and drifts to neighbouring ones;
- series are bought in order, and refills or accessories follow the product they belong to;
- users are loyal to brands; popularity has a long tail (Zipf), inside a category and across categories;
- some items are released near the end of the time range, so that only their text says what they are;
- a share of the events is noise, and some views are followed by a purchase of the same item.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from recsys.columns import EVENT, ITEM_ID, TIMESTAMP, USER_ID
from recsys.datasets.synthetic_words import FIRST_NAMES, LAST_NAMES, Leaf, brand_names, leaves
from recsys.settings import Settings
from recsys.settings.read import parse_settings

START: Final = datetime(2023, 1, 1, tzinfo=UTC)
END: Final = datetime(2024, 12, 31, tzinfo=UTC)
NEW_FROM: Final = 0.90  # (share of the time range) new items are released after this
NEW_SHARE: Final = 0.08  # of the catalogue

MAX_EVENTS: Final = 80  # distinct items of one user
FOLLOW: Final = 0.20  # chance that a started series or product is continued at the next event
DRIFT: Final = 0.10  # chance an event that the main interest moves to a neighbouring leaf
SECOND: Final = 0.30  # chance that an event serves the second interest
NOISE: Final = 0.10  # chance that an event is drawn from the whole shop by popularity
LOYALTY: Final = 25.0  # how many times likelier the favourite brand's items are
LAUNCH: Final = 10.0  # how many times likelier an item is in the weeks after its release
ZIPF_ITEMS: Final = 1.1  # exponents of popularity, inside a leaf and across leaves
ZIPF_LEAVES: Final = 1.0
PURCHASE: Final = 0.2  # chance that a view is followed by a purchase of the item
HOUR: Final = 3600  # seconds; two items of one user lie at least this far apart


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """The shop's items, V of them, with the truth behind the events."""

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    brands: tuple[str, ...]
    categories: tuple[tuple[str, str, str], ...]  # department, group, leaf
    prices: np.ndarray  # float [V]
    leaf: np.ndarray  # int [V], index into the leaves
    successor: np.ndarray  # int [V], the item that is bought next: the following volume, the refill; -1: none
    weight: np.ndarray  # float [V], how likely an item is to be found inside its leaf
    released: np.ndarray  # float [V], share of the time range; 0 for what was there from the start

    def successors(self) -> dict[str, str]:
        """Item id to the id of the item that follows it."""
        pairs = np.flatnonzero(self.successor >= 0)
        return {self.item_ids[i]: self.item_ids[self.successor[i]] for i in pairs}

    def new_items(self) -> frozenset[str]:
        """Ids of the items that are released near the end."""
        return frozenset(self.item_ids[i] for i in np.flatnonzero(self.released > 0))


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Paths of the files, and what is true about them."""

    interactions: Path
    items: Path
    catalogue: Catalogue


def generate(folder: str | Path, *, seed: int = 0, users: int = 4000, items: int = 1000) -> Generated:
    """Write `interactions.csv` and `items.jsonl` into a folder; the same seed gives the same bytes.

    Parameters
    ----------
    folder
        Created when missing.
    users, items
        How many; histories have 5 to 80 distinct items, about 24 on average.

    Returns
    -------
    Generated
        `interactions.csv`: `user_id`, `item_id`, `timestamp` (ISO 8601, UTC), `event` ("view" or "purchase"),
        in the order of time. `items.jsonl`: `item_id`, `title`, `brand`, `category` (path, outermost first),
        `price`.
    """
    rng = np.random.default_rng(seed)
    catalogue = make_catalogue(rng, items)
    events = simulate(catalogue, rng, users)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    interactions_path, items_path = folder / "interactions.csv", folder / "items.jsonl"
    events.write_csv(interactions_path, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    pl.DataFrame(
        {
            ITEM_ID: catalogue.item_ids,
            "title": catalogue.titles,
            "brand": catalogue.brands,
            "category": [list(path) for path in catalogue.categories],
            "price": catalogue.prices,
        }
    ).sort(ITEM_ID).write_ndjson(items_path)
    return Generated(interactions=interactions_path, items=items_path, catalogue=catalogue)


def make_catalogue(rng: np.random.Generator, items: int) -> Catalogue:
    """Items of every leaf: products with their follow-ups, series with their parts."""
    tree = leaves()
    if not 4 * len(tree) <= items <= 90 * len(tree):
        raise ValueError(f"items = {items} must lie between {4 * len(tree)} and {90 * len(tree)}")
    pools = _brand_pools(rng, tree)
    titles: list[str] = []
    brands: list[str] = []
    leaf_of: list[int] = []
    successor: list[int] = []
    for index, leaf in enumerate(tree):
        size = items // len(tree) + (index < items % len(tree))
        pool = pools[leaf.path[0]]
        chains = _series(rng, leaf, pool) if leaf.series else _goods(rng, leaf, pool)
        room = size
        for chain, brand in chains:
            chain = chain[:room]
            successor += [len(titles) + place + 1 for place in range(len(chain) - 1)] + [-1]
            titles += chain
            brands += [brand] * len(chain)
            room -= len(chain)
            if not room:
                break
        leaf_of += [index] * (size - room)
    count = len(titles)
    leaf_array, next_item = np.array(leaf_of), np.array(successor)
    # a later part of a chain is rarely where somebody starts
    weight = _ranks(rng, leaf_array) ** -ZIPF_ITEMS
    weight[next_item[next_item >= 0]] *= 0.1
    numbers = rng.permutation(count) + 1
    # only ends of chains are new, so that nothing follows an item before it exists
    ends = np.flatnonzero(next_item < 0)
    new = rng.choice(ends, size=round(NEW_SHARE * count), replace=False)
    released = np.zeros(count)
    released[new] = rng.uniform(NEW_FROM, 0.985, len(new))
    level = rng.uniform(2.0, 5.0, len(tree))[leaf_array]
    return Catalogue(
        item_ids=tuple(f"i{number:05d}" for number in numbers),
        titles=tuple(titles),
        brands=tuple(brands),
        categories=tuple(tree[index].path for index in leaf_of),
        prices=np.round(np.floor(np.exp(level + rng.normal(0, 0.4, count))) + 0.99, 2),
        leaf=leaf_array,
        successor=next_item,
        weight=weight,
        released=released,
    )


def simulate(catalogue: Catalogue, rng: np.random.Generator, users: int) -> pl.DataFrame:
    """The log, in the order of time: `user_id`, `item_id`, `timestamp`, `event`.

    All users take their j-th step at once; the loop is over steps, not over users.
    """
    lengths = np.clip(np.round(4 + rng.lognormal(np.log(16.5), 0.6, users)), 5, MAX_EVENTS).astype(int)
    lengths = -np.sort(-lengths)  # longest first: the users with a j-th event are a prefix
    moments = _moments(rng, lengths)  # [U, L] share of the time range
    items = _walk(catalogue, rng, lengths, moments)  # [U, L] item index
    steps = np.arange(moments.shape[1])
    owner, step = np.nonzero(items >= 0)
    span = (END - START).total_seconds() - MAX_EVENTS * HOUR
    seconds = (START.timestamp() + moments * span).astype(np.int64) + HOUR * steps
    number = rng.permutation(users) + 1
    item, second = items[owner, step], seconds[owner, step]
    bought = np.flatnonzero(rng.random(len(item)) < PURCHASE)
    later = second[bought] + rng.integers(60, HOUR // 2, len(bought))
    event = np.repeat(["view", "purchase"], [len(item), len(bought)])
    row = np.concatenate([np.arange(len(item)), bought])
    return (
        pl.DataFrame(
            {
                USER_ID: number[owner[row]],
                ITEM_ID: pl.Series(catalogue.item_ids).gather(item[row]),
                TIMESTAMP: np.concatenate([second, later]),
                EVENT: event,
            }
        )
        .sort(TIMESTAMP, USER_ID, maintain_order=True)
        .with_columns(
            pl.format("u{}", pl.col(USER_ID).cast(pl.String).str.zfill(5)).alias(USER_ID),
            pl.from_epoch(TIMESTAMP, time_unit="s").dt.replace_time_zone("UTC"),
        )
    )


def demo_settings(folder: str | Path = "demo") -> Settings:
    """The demo's configuration: `configs/demo.toml` with its paths under `folder`."""
    folder = Path(folder)
    return parse_settings(
        {
            "name": "demo",
            "seed": 0,
            "data_root": (folder / "data").as_posix(),
            "state_root": folder.as_posix(),
            "interactions": {"source": "interactions.csv"},
            "items": {
                "source": "items.jsonl",
                "text": ["title", "brand", "category"],
                "categorical": {"brand": {}, "category": {}},
            },
            "filter": {"min_user_interactions": 5, "repeats": "first"},
            # a small log needs no wide model, and learns from many small steps
            "model": {"dimensions": 64, "max_length": 50},
            "train": {
                "epochs": 16,
                "batch_size": 32,
                "learning_rate": 0.003,
                "mask_probability": 0.3,
                "mask_last_share": 0.3,
                "evaluate_every": 4,
            },
            "export": {"path": "export"},
        },
        where="the demo's configuration",
    )


def _brand_pools(rng: np.random.Generator, tree: tuple[Leaf, ...]) -> dict[str, list[str]]:
    """Eight brands a department; authors for books, studios for films and games."""
    departments = list(dict.fromkeys(leaf.path[0] for leaf in tree))
    names = iter(np.array(brand_names())[rng.permutation(len(brand_names()))].tolist())
    pools = {department: [next(names).capitalize() for _ in range(8)] for department in departments}
    for department in ("Film and TV", "Games"):
        pools[department] = [f"{name} Studios" for name in pools[department]]
    first, last = (rng.permutation(np.array(words))[:12] for words in (FIRST_NAMES, LAST_NAMES))
    pools["Books"] = [f"{a} {b}" for a, b in zip(first.tolist(), last.tolist(), strict=True)]
    return pools


def _goods(rng: np.random.Generator, leaf: Leaf, pool: list[str]) -> list[tuple[list[str], str]]:
    """Chains of one leaf of goods, in random order: a product, and what is bought after it if anything is."""
    carried = [pool[i] for i in rng.permutation(len(pool))[:5]]
    combined = [(b, a, n) for b in carried for a in leaf.adjectives for n in leaf.nouns]
    chains = []
    for i in rng.permutation(len(combined)):
        brand, adjective, noun = combined[i]
        product = f"{brand} {_capitals(adjective)} {_capitals(noun)}"
        followers = rng.integers(1, len(leaf.follow_ups) + 1) if rng.random() < 0.3 else 0
        more = [f"{_capitals(follow_up)} for {product}" for follow_up in leaf.follow_ups[:followers]]
        chains.append(([product, *more], brand))
    return chains


def _series(rng: np.random.Generator, leaf: Leaf, pool: list[str]) -> list[tuple[list[str], str]]:
    """Chains of one leaf of series, in random order: the parts of a series, or a single title."""
    chains = []
    names = [*leaf.series, *(f"{name} {more}" for more in ("Legacy", "Returns") for name in leaf.series)]
    for name in names:
        maker = pool[rng.integers(len(pool))]
        parts = rng.integers(3, 9)
        chains.append(([f"{name}, {leaf.part} {n} by {maker}" for n in range(1, parts + 1)], maker))
    for first in leaf.nouns:
        for second in leaf.nouns:
            maker = pool[rng.integers(len(pool))]
            if first != second:
                chains.append(([f"The {_capitals(first)} and the {_capitals(second)} by {maker}"], maker))
    # the leaf's own series come first: they must not lose their place to single titles
    head = len(leaf.series)
    order = np.concatenate([rng.permutation(head), head + rng.permutation(len(chains) - head)])
    return [chains[i] for i in order]


def _moments(rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
    """[U, L] ascending moments of every user's events, as shares of the time range."""
    users = len(lengths)
    end = 1 - 0.7 * rng.beta(1, 5, users)  # most users are still active near the end
    span = np.minimum(lengths * rng.gamma(2.0, 0.008, users), 0.95 * end)
    draws = rng.random((users, lengths.max()))
    draws[np.arange(lengths.max()) >= lengths[:, None]] = 1.0
    ordered = np.sort(draws, axis=1)
    return end[:, None] - span[:, None] * (1 - ordered)


def _walk(catalogue: Catalogue, rng: np.random.Generator, lengths: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """[U, L] item of every user's every step; -1 behind the last, and where the leaf has nothing left."""
    users, steps = moments.shape
    tree = leaves()
    popularity = (rng.permutation(len(tree)) + 1.0) ** -ZIPF_LEAVES
    popularity /= popularity.sum()
    drift = np.cumsum(_neighbours(rng, tree), axis=1)  # [leaf, leaf]
    shelves = _shelves(catalogue.leaf, len(tree))  # [leaf, M] items of a leaf, -1 behind the last
    whole_shop = np.cumsum(catalogue.weight * popularity[catalogue.leaf])
    departments = list(dict.fromkeys(leaf.path[0] for leaf in tree))
    department = np.array([departments.index(leaf.path[0]) for leaf in tree])
    _, brand = np.unique(np.array(catalogue.brands), return_inverse=True)
    # a user's favourite brand of each department: the brand of a random item of it
    favourite = np.stack(
        [
            rng.choice(brand[department[catalogue.leaf] == index], size=users, replace=True)
            for index in range(len(departments))
        ],
        axis=1,
    )  # [U, departments]
    interest = rng.choice(len(tree), size=(users, 2), p=popularity)
    pending = np.full(users, -1)
    seen = np.zeros((users, len(catalogue.titles)), dtype=bool)
    walked = np.full((users, steps), -1)
    for step in range(steps):
        active = np.arange(np.searchsorted(-lengths, -step))  # users with more than `step` events
        now = moments[active, step]
        moves = rng.random(len(active)) < DRIFT
        target = (rng.random((len(active), 1)) > drift[interest[active, 0]]).sum(axis=1)
        interest[active, 0] = np.where(moves, np.minimum(target, len(tree) - 1), interest[active, 0])
        swaps = rng.random(len(active)) < DRIFT / 2
        interest[active[swaps]] = interest[active[swaps], ::-1]
        leaf = interest[active, (rng.random(len(active)) < SECOND).astype(int)]

        shelf = shelves[leaf]  # [A, M]
        age = now[:, None] - catalogue.released[shelf]
        launched = (catalogue.released[shelf] > 0) & (age < 0.05)
        chance = (
            catalogue.weight[shelf]
            * np.where(brand[shelf] == favourite[active, department[leaf]][:, None], LOYALTY, 1.0)
            * np.where(launched, LAUNCH, 1.0)
            * ((shelf >= 0) & (age >= 0) & ~seen[active[:, None], shelf])
        )
        chance[:, 0] += 1e-12  # an empty shelf still gives something
        ladder = np.cumsum(chance, axis=1)
        place = (rng.random((len(active), 1)) * ladder[:, -1:] > ladder).sum(axis=1)
        item = shelf[np.arange(len(active)), place]

        for chance_of, wanted in (
            (NOISE, np.searchsorted(whole_shop, rng.random(len(active)) * whole_shop[-1])),
            (FOLLOW, pending[active]),
        ):
            possible = (wanted >= 0) & (catalogue.released[wanted] <= now) & ~seen[active, wanted]
            item = np.where(possible & (rng.random(len(active)) < chance_of), wanted, item)
        # nothing left on the shelf: no event
        item = np.where(seen[active, item] | (catalogue.released[item] > now), -1, item)
        walked[active, step] = item
        taken = active[item >= 0]
        seen[taken, item[item >= 0]] = True
        follower = catalogue.successor[item]
        # a product without a follow-up leaves the open series open
        pending[active] = np.where((item >= 0) & (follower >= 0), follower, pending[active])
    return walked


def _neighbours(rng: np.random.Generator, tree: tuple[Leaf, ...]) -> np.ndarray:
    """[leaf, leaf] where an interest drifts to: mostly its group or department, sometimes two others."""
    paths = np.array([leaf.path for leaf in tree])
    same_group = (paths[:, None, 1] == paths[None, :, 1]) & (paths[:, None, 0] == paths[None, :, 0])
    same_department = paths[:, None, 0] == paths[None, :, 0]
    chance = 4.0 * same_group + 1.0 * same_department
    np.fill_diagonal(chance, 0.0)
    far = np.argsort(rng.random(chance.shape) + 2.0 * same_department, axis=1)[:, :2]
    chance /= np.maximum(chance.sum(axis=1, keepdims=True), 1e-9)
    chance *= 0.8
    np.put_along_axis(chance, far, 0.1, axis=1)
    return chance / chance.sum(axis=1, keepdims=True)


def _shelves(leaf: np.ndarray, count: int) -> np.ndarray:
    """[leaf, M] indices of the items of each leaf, padded with -1."""
    sizes = np.bincount(leaf, minlength=count)
    shelves = np.full((count, sizes.max()), -1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    order = np.argsort(leaf, kind="stable")
    shelves[leaf[order], np.arange(len(leaf)) - starts[leaf[order]]] = order
    return shelves


def _ranks(rng: np.random.Generator, leaf: np.ndarray) -> np.ndarray:
    """float [V] random rank of every item inside its leaf, from 1."""
    order = np.lexsort((rng.random(len(leaf)), leaf))
    starts = np.concatenate([[0], np.cumsum(np.bincount(leaf))])
    ranks = np.empty(len(leaf))
    ranks[order] = np.arange(len(leaf)) - starts[leaf[order]] + 1
    return ranks


def _capitals(words: str) -> str:
    """Every word with a capital, without touching the capitals that are there ("SPF 50", "MIDI")."""
    return " ".join(word[:1].upper() + word[1:] for word in words.split(" "))
