"""Click prediction on MovieLens-1M: what is trained, on which data, in which rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
from clicks.published_draw import published_rows
from torch import Tensor

from recsys.features.encode import FeatureEncoder
from recsys.features.hashing import hash_values, lookup_rows
from recsys.features.multiplexed import Feature, FeatureBatch

BASE = tuple(Feature(name=name) for name in ("user", "movie", "gender", "age", "occupation", "zip"))
LARGE = (
    *BASE,
    Feature(name="year"),
    Feature(name="age x movie", kind="crossed", of=("age", "movie")),
    Feature(name="occupation x movie", kind="crossed", of=("occupation", "movie")),
    Feature(name="genres", kind="multi"),
    Feature(name="directors", kind="multi"),
    Feature(name="cast", kind="multi"),
)
FEATURES = {"ml-1m": BASE, "ml-1m-extra": LARGE}
ROWS = {"ml-1m": 13_653, "ml-1m-extra": None}  # of budget 1.0; None: as many as there are values
WIDTH = {"ml-1m": 30, "ml-1m-extra": 16}  # of a feature's vector


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    data: str
    arm: str
    budget: float = 1.0
    seed: int = 0  # of start, order and hash functions
    split: int = 42  # seed of the split
    lookups: int = 1
    one_salt: bool = False
    published_draw: bool = False  # of the hashed arm's hash functions, the same for all seeds
    aligned: bool = False  # the head of the angle control
    share: float = 1.0  # of the ratings
    epochs: int = 15  # at most
    patience: int = 1  # epochs without a gain on validation
    batch: int = 1024
    table_rate: float = 0.2
    table_decay: float = 3e-4
    head_rate: float = 1e-3
    average: float = 4.0  # power of the weights' average: step t counts in proportion to t ** average

    @property
    def name(self) -> str:
        """Name of its arm in tables."""
        name = self.arm + (f", {self.lookups} look-ups" if self.lookups > 1 else "")
        return name + (", one salt" if self.one_salt else "") + (", published draw" if self.published_draw else "")


def fields(path: Path, names: Sequence[str], encoding: str = "utf-8") -> pl.DataFrame:
    """A file of fields between double colons; further fields of a line are left out."""
    lines = pl.Series("line", path.read_text(encoding=encoding).splitlines())
    parts = lines.filter(lines != "").str.split("::").list
    return pl.DataFrame([parts.get(place).alias(name) for place, name in enumerate(names)])


def ratings(folder: Path) -> pl.DataFrame:
    """A row a rating other than 3: label, features of user and film."""
    users = fields(folder / "users.dat", ["user", "gender", "age", "occupation", "zip"], "latin-1")
    frame = fields(folder / "ratings_without_timestamps.dat", ["user", "movie", "rating"])
    frame = frame.filter(pl.col("rating") != "3").with_columns(label=(pl.col("rating") > "3").cast(pl.Float32))
    names = ["movie", "title", "year", "mpaa", "released", "genres", "directors", "writers", "cast"]
    films = fields(folder / "movies_extra.dat", names).with_columns(
        pl.col("genres", "directors").str.split(", "),
        pl.col("cast").str.to_lowercase().str.extract_all(r"\w+").list.unique(),
    )
    films = films.select("movie", "year", "genres", "directors", "cast")
    return frame.join(users, on="user", how="left", maintain_order="left").join(
        films, on="movie", how="left", maintain_order="left"
    )


@dataclass(frozen=True, eq=False)
class Ratings:
    """Hashed features, labels float32 [N], and of each single-valued feature the text behind each hash."""

    features: FeatureBatch
    labels: Tensor
    texts: dict[str, dict[int, str]]


@cache
def prepared(folder: Path, data: str) -> Ratings:
    """A data set, hashed; kept for the next job of the process."""
    frame = ratings(folder)
    values = {f.name: frame[f.name].unique().to_list() for f in BASE}
    texts = {name: dict(zip(hash_values(of).tolist(), of, strict=True)) for name, of in values.items()}
    return Ratings(FeatureEncoder.fit(FEATURES[data], frame).encode(frame), frame["label"].to_torch(), texts)


def split(count: int, seed: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of training, validation and test: 80/10/10 of a share of all."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count)[: round(share * count)])
    cuts = [int(0.8 * len(order)), int(0.9 * len(order))]
    return order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]


def columns_of(batch: FeatureBatch, features: Sequence[Feature]) -> Iterator[tuple[str, Tensor]]:
    """Each feature with all its hashes: the single-valued ones first, then the multi-valued ones."""
    for place, feature in enumerate(f for f in features if f.kind != "multi"):
        yield feature.name, batch.values[:, place]
    for place, feature in enumerate(f for f in features if f.kind == "multi"):
        start, stop = batch.offsets[place * len(batch)], batch.offsets[(place + 1) * len(batch)]
        yield feature.name, batch.bags[int(start) : int(stop)]


def rows_of(
    job: Job, batch: FeatureBatch, texts: Mapping[str, Mapping[int, str]] | None = None
) -> tuple[FeatureBatch, int]:
    """The batch with rows of the arm's table in place of hashes, a column or bag a look-up; and the table's size.

    `texts` of the values are for the published draw alone.
    """
    features = FEATURES[job.data]
    found = {name: hashes.unique(return_inverse=True) for name, hashes in columns_of(batch, features)}
    vocabulary = {name: len(distinct) for name, (distinct, _) in found.items()}
    total = sum(vocabulary.values())
    size = round((ROWS[job.data] or total) * job.budget)
    looked_up, before = {}, 0
    for name, (distinct, places) in found.items():
        # functions of its own for each seed: of two genders or seven ages, one unlucky draw would speak for all
        salt = f"{'every' if job.one_salt else name}, draw {job.seed}"
        if job.arm == "multiplexed":
            rows = lookup_rows(distinct, salt, job.lookups, size * job.lookups)
        elif job.arm == "hashed":
            own = max(1, round(size * vocabulary[name] / total))
            if job.published_draw:
                assert texts is not None
                rows = published_rows(distinct, name, texts[name], own)
            else:
                rows = lookup_rows(distinct, salt, 1, own)
            rows, before = rows + before, before + own
        else:
            rows, before = torch.arange(len(distinct))[:, None] + before, before + len(distinct)
        looked_up[name] = rows[places]
    single = [looked_up[f.name] for f in features if f.kind != "multi"]
    bags = [column for f in features if f.kind == "multi" for column in looked_up[f.name].unbind(1)]
    offsets = [batch.offsets[:1]]
    for place in range((len(batch.offsets) - 1) // len(batch)):
        bounds = batch.offsets[place * len(batch) : (place + 1) * len(batch) + 1]
        for _ in range(job.lookups):
            offsets.append(bounds[1:] - bounds[0] + offsets[-1][-1])
    mapped = FeatureBatch(
        values=torch.cat(single, 1), bags=torch.cat([batch.bags[:0], *bags]), offsets=torch.cat(offsets)
    )
    return mapped, size * job.lookups if job.arm == "multiplexed" else before
