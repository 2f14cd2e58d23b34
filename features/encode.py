"""Feature encoding: columns of a frame to the hashes that a multiplexed table looks up.

The only state is the edges of numeric buckets, fitted on training rows. There is no vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.features.buckets import QuantileBuckets
from recsys.features.declaration import Feature, check_features, declared, describe, unknown
from recsys.features.hashing import cross_hashes, hash_values
from recsys.features.multiplexed import FeatureBatch


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureEncoder:
    """A declaration with its fitted buckets.

    Attributes
    ----------
    features
        Features in the order of declaration.
    buckets
        Buckets of each numeric feature.
    """

    features: tuple[Feature, ...]
    buckets: Mapping[str, QuantileBuckets]

    @classmethod
    def fit(cls, features: Iterable[Feature], training: pl.DataFrame) -> Self:
        """Fit on training rows.

        Parameters
        ----------
        features
            Features to fit. Each is a column of `training`, except the crossed ones.
        training
            Training rows only: held-out rows must not move the buckets.

        Raises
        ------
        ValueError
            A feature is unknown, of the wrong type, or numeric and all null; names it and says what to do.
        """
        known = check_features(features)
        for feature in known:
            _check_column(feature, training)
        return cls(
            features=known,
            buckets={
                feature.name: QuantileBuckets.fit(
                    _numbers(training[feature.name]), feature.buckets, feature=feature.name
                )
                for feature in known
                if feature.kind == "numeric"
            },
        )

    def encode(self, frame: pl.DataFrame) -> FeatureBatch:
        """Hash a frame's columns. Nulls and empty lists become the missing value.

        Raises
        ------
        ValueError
            As `fit`.
        """
        for feature in self.features:
            _check_column(feature, frame)
        columns: dict[str, Tensor] = {}
        for feature in self.features:
            if feature.kind == "numeric":
                columns[feature.name] = _of_buckets(self.buckets[feature.name], frame[feature.name])
            elif feature.kind == "single":
                columns[feature.name] = hash_column(frame[feature.name])
        for feature in self.features:
            if feature.kind == "crossed":
                columns[feature.name] = cross_hashes([columns[part] for part in feature.of])
        values = [columns[feature.name] for feature in self.features if feature.kind != "multi"]
        bags, offsets = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(1, dtype=torch.int64)]
        for feature in self.features:
            if feature.kind == "multi":
                hashes, bounds = hash_lists(frame[feature.name])
                bags.append(hashes)
                offsets.append(bounds[1:] + offsets[-1][-1])
        return FeatureBatch(
            values=torch.stack(values, 1) if values else torch.zeros(len(frame), 0, dtype=torch.int64),
            bags=torch.cat(bags),
            offsets=torch.cat(offsets),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return declaration and edges as plain values, for a bundle."""
        edges = {name: bucket.edges.tolist() for name, bucket in self.buckets.items()}
        return {"features": describe(self.features), "edges": edges}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the output of `to_dict`.

        Raises
        ------
        ValueError
            The declaration is damaged.
        """
        features = declared(values["features"])
        numeric = {feature.name for feature in features if feature.kind == "numeric"}
        if numeric != set(values["edges"]):
            name = min(numeric ^ set(values["edges"]))
            raise ValueError(f"the declaration of feature {name!r} and its fitted buckets disagree; fit it anew")
        buckets = {name: QuantileBuckets(edges=np.asarray(edges)) for name, edges in values["edges"].items()}
        return cls(features=features, buckets=buckets)


def hash_column(values: pl.Series) -> Tensor:
    """Return int64 [N] hashes of a column of single values. Each distinct value is hashed once."""
    texts = values.cast(pl.String)
    distinct = texts.unique()
    hashed = pl.DataFrame({"value": distinct, "hash": hash_values(distinct.to_list())})
    joined = (
        texts.alias("value").to_frame().join(hashed, on="value", how="left", nulls_equal=True, maintain_order="left")
    )
    return torch.from_numpy(joined["hash"].to_numpy().copy())


def hash_lists(values: pl.Series) -> tuple[Tensor, Tensor]:
    """Return (hashes int64 [T], offsets int64 [N + 1]) of a column of lists. An empty list holds the missing value."""
    lists = values.cast(pl.List(pl.String))
    lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths, 1))])
    flat = lists.explode(empty_as_null=True, keep_nulls=True)  # an empty or missing list leaves one null
    return hash_column(flat), torch.from_numpy(offsets)


def _of_buckets(buckets: QuantileBuckets, values: pl.Series) -> Tensor:
    hashes = hash_values([*range(buckets.count), None])  # nulls are last, at index -1
    return torch.from_numpy(hashes[buckets.apply(_numbers(values))])


def _numbers(values: pl.Series) -> np.ndarray:
    """Return float64 [N], NaN where null."""
    return values.cast(pl.Float64).to_numpy()


def _check_column(feature: Feature, frame: pl.DataFrame) -> None:
    """Raise unless a feature's column exists and has a suitable type."""
    if feature.kind == "crossed":
        return
    if feature.name not in frame.columns:
        raise ValueError(f"the data lack {unknown(feature.name, frame.columns)} Declare a column that exists.")
    dtype = frame.schema[feature.name]
    is_list = isinstance(dtype, (pl.List, pl.Array))
    if feature.kind == "multi":
        if not is_list:
            raise ValueError(
                f"feature {feature.name!r} is declared multi-valued and its column is of type {dtype}; declare it "
                '"single", or split its values into lists'
            )
    elif is_list:
        raise ValueError(
            f'feature {feature.name!r} is declared {feature.kind!r} and its column holds lists; declare it "multi"'
        )
    elif feature.kind == "numeric" and not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        raise ValueError(
            f'feature {feature.name!r} is declared numeric and its column is of type {dtype}; declare it "single", or '
            "cast the column to numbers"
        )
    elif feature.kind == "single" and (dtype.is_float() or dtype.is_nested() or dtype in (pl.Binary, pl.Object)):
        raise ValueError(
            f"feature {feature.name!r} is declared single-valued and its column is of type {dtype}, whose text is not "
            'the same everywhere; declare it "numeric", or cast the column to integers or strings'
        )
