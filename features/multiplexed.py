"""Feature multiplexing: one embedding table for all categorical features.

Every value is hashed to 64 bits once (features/hashing.py); a look-up mixes those bits with a salt of (feature,
look-up) and reads one row of the table. A feature's vector concatenates its look-ups, so its width is their number
times the table's width.

Two values of one feature that share a row are indistinguishable there. A feature that is also an output (item ids)
therefore needs two look-ups or more. Two features that share a row stay distinguishable: each has its own weights in
the first layer, which learn different directions. There is no vocabulary, so an unseen value has rows too.

Source: "Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML Systems", 2023, arXiv 2305.12102.

Shapes: N rows of data, S value columns, P multi-valued features, T values of all their bags, C look-ups of a feature,
L look-ups of all, d width of a look-up, W = L * d.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.features.declaration import Feature, check_features
from recsys.features.hashing import (
    HASHING,
    MAX_LOOKUPS,
    MISSING,
    PADDING,
    hash_values,
    lookup_rows,
    salted_rows,
    salts,
)
from recsys.features.tables import MultiplexedTable, ShardedTable, Table, reduce_bags

__all__ = [
    "HASHING",
    "MAX_LOOKUPS",
    "MISSING",
    "PADDING",
    "Feature",
    "FeatureBatch",
    "MultiplexedFeatures",
    "MultiplexedTable",
    "ShardedTable",
    "Table",
    "attend",
    "by_feature",
    "hash_values",
    "lookup_rows",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureBatch:
    """Hashed features of N rows of data, from `recsys.features.encode`.

    Attributes
    ----------
    values
        int64 [..., S]: a column for each single-valued, numeric and crossed feature, in the order of their
        declaration; `PADDING` stands for no value. Without multi-valued features, more than two dimensions (events of
        histories) are allowed.
    bags
        int64 [T]: the values of the multi-valued features, one feature after the other. Padding does not count.
    offsets
        int64 [P * N + 1]: multi-valued feature `p` of row `n` has `bags[offsets[i]:offsets[i + 1]]`, i = p * N + n.
    """

    values: Tensor
    bags: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> FeatureBatch:
        """Copy the batch to a device."""
        return FeatureBatch(values=self.values.to(device), bags=self.bags.to(device), offsets=self.offsets.to(device))

    def without_padding(self) -> FeatureBatch:
        """Return the batch with padding removed from its bags."""
        real = self.bags != PADDING
        if bool(real.all()):
            return self
        before = nn.functional.pad(real.cumsum(0), (1, 0))
        return FeatureBatch(values=self.values, bags=self.bags[real], offsets=before[self.offsets])

    def take(self, rows: Tensor) -> FeatureBatch:
        """Return the batch of the given rows of data, int64 [B], in their order."""
        several = (len(self.offsets) - 1) // max(1, len(self))  # P
        if not several:
            return FeatureBatch(values=self.values[rows], bags=self.bags, offsets=self.offsets)
        shift = len(self) * torch.arange(several, device=rows.device)[:, None]
        wanted = (rows[None, :] + shift).flatten()  # [P * B]
        starts, lengths = self.offsets[wanted], self.offsets[wanted + 1] - self.offsets[wanted]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        places = torch.arange(int(offsets[-1]), device=rows.device)
        places += (starts - offsets[:-1]).repeat_interleave(lengths)
        return FeatureBatch(values=self.values[rows], bags=self.bags[places], offsets=offsets)


def by_feature(features: Iterable[Feature], batch: FeatureBatch) -> dict[str, tuple[Tensor, Tensor]]:
    """Split a batch of N rows by feature, in the order of declaration.

    Returns
    -------
    dict
        Hashes int64 [T] and offsets int64 [N + 1]: row `n` has `hashes[offsets[n]:offsets[n + 1]]`. A feature that is
        not multi-valued has one hash a row.
    """
    found, value, bag = {}, 0, 0
    one_each = torch.arange(len(batch) + 1)
    for feature in features:
        if feature.kind == "multi":
            bounds = batch.offsets[bag * len(batch) : (bag + 1) * len(batch) + 1]
            found[feature.name] = (batch.bags[int(bounds[0]) : int(bounds[-1])], bounds - bounds[0])
            bag += 1
        else:
            found[feature.name] = (batch.values[:, value], one_each)
            value += 1
    return found


class MultiplexedFeatures(nn.Module):
    """Look up all features of a batch in one table, with one gather and one embedding bag.

    Parameters
    ----------
    features
        Declared features; the output holds them in this order.
    table
        The table to read. Several modules may share one.
    owned
        True: the table's weights are among this module's. False: another module of the model owns them.

    Attributes
    ----------
    columns
        Slice of the output's last dimension for each feature.
    width
        W, the output's width.

    Raises
    ------
    ValueError
        The features do not fit together; the message names one.
    """

    value_salts: Tensor
    value_columns: Tensor

    table: Table

    def __init__(self, features: Iterable[Feature], table: Table, *, owned: bool = True) -> None:
        super().__init__()
        self.features = check_features(features)
        if owned:
            self.table = table
        else:  # bypass nn.Module, which would register the weights again
            object.__setattr__(self, "table", table)
        single = [feature for feature in self.features if feature.kind != "multi"]
        self.bag_features = tuple(feature for feature in self.features if feature.kind == "multi")
        owners = [column for column, feature in enumerate(single) for _ in range(feature.lookups)]
        self.singles = len(single)  # S
        self.one_each = len(owners) == len(single)
        self._buffer("value_columns", torch.tensor(owners, dtype=torch.int64))
        self._buffer("value_salts", _all_salts(single))
        for place, feature in enumerate(self.bag_features):
            self._buffer(f"bag_salts_{place}", salts(feature.name, feature.lookups))
        self.queries = nn.ParameterDict(
            {
                feature.name: nn.Parameter(torch.zeros(feature.lookups * table.width))
                for feature in self.bag_features
                if feature.pooling == "attention"
            }
        )
        self.columns: dict[str, slice] = {}
        start = 0
        for feature in self.features:
            self.columns[feature.name] = slice(start, start + feature.lookups * table.width)
            start += feature.lookups * table.width
        self.width = start

    def _buffer(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Return [..., W], one vector for each row of data.

        Raises
        ------
        ValueError
            The batch has other columns than the declaration.
        """
        if batch.values.shape[-1] != self.singles:
            raise ValueError(
                f"the batch has {batch.values.shape[-1]} columns of values and the declaration {self.singles} features "
                "for them; encode it with the same features"
            )
        values = self._value_rows(batch.values)  # [..., L of the values]
        if not self.bag_features:
            return self.table.single(values)
        if len(batch.offsets) != len(self.bag_features) * len(batch) + 1 or batch.values.ndim != 2:
            raise ValueError(
                f"the batch has {len(batch.offsets) - 1} bags for {len(batch)} rows of {len(self.bag_features)} "
                "multi-valued features; encode it with the same features"
            )
        return self._with_bags(values, batch.without_padding())

    def _value_rows(self, hashes: Tensor) -> Tensor:
        if not self.one_each:
            hashes = hashes.index_select(-1, self.value_columns)
        return salted_rows(hashes, self.value_salts, self.table.rows)

    def _with_bags(self, values: Tensor, batch: FeatureBatch) -> Tensor:
        N, d = len(batch), self.table.width
        gathered, reduced = [values.flatten()], []
        attended: dict[str, tuple[Tensor, int]] = {}  # offsets from 0, and values
        shares: list[Tensor] = []  # weights of the reduced rows
        offsets, start = [], 0
        mixed = len({feature.pooling for feature in self.bag_features} - {"attention"}) > 1
        for place, feature in enumerate(self.bag_features):
            bounds = batch.offsets[place * N : (place + 1) * N + 1]
            hashes = batch.bags[int(bounds[0]) : int(bounds[-1])]
            bounds = bounds - bounds[0]
            salt = getattr(self, f"bag_salts_{place}")
            if feature.pooling == "attention":
                rows = salted_rows(hashes[:, None], salt, self.table.rows)  # [T of the feature, C]
                gathered.append(rows.flatten())
                attended[feature.name] = (bounds, len(hashes))
                continue
            rows = salted_rows(hashes[None, :], salt[:, None], self.table.rows)  # [C, T of the feature]
            reduced.append(rows.flatten())
            for _ in range(feature.lookups):
                offsets.append(bounds[:-1] + start)
                start += len(hashes)
            if mixed:
                lengths = bounds.diff().repeat(feature.lookups)
                share = torch.ones_like(lengths) if feature.pooling == "sum" else lengths
                shares.append(share.float().reciprocal().repeat_interleave(lengths))
        flat = self.table.gather(torch.cat(gathered))
        looked_up, *sought = flat.split([len(part) for part in gathered])
        pieces = self._split(looked_up.view(N, -1), [f for f in self.features if f.kind != "multi"])
        if reduced:
            plain = [feature for feature in self.bag_features if feature.pooling != "attention"]
            ends = offsets[0].new_full((1,), start)
            bags = self.table.reduce(
                torch.cat(reduced),
                torch.cat([*offsets, ends]),
                "mean" if not mixed and plain[0].pooling == "mean" else "sum",
                torch.cat(shares) if mixed else None,
            )
            pieces |= self._split(bags.view(-1, N, d).transpose(0, 1).reshape(N, -1), plain)
        for (name, (bounds, count)), vectors in zip(attended.items(), sought, strict=True):
            pieces[name] = attend(vectors.view(count, -1), bounds, self.queries[name])
        return torch.cat([pieces[feature.name] for feature in self.features], dim=1)

    def _split(self, looked_up: Tensor, features: Iterable[Feature]) -> dict[str, Tensor]:
        """Split [N, look-ups * d] by feature."""
        widths = {feature.name: feature.lookups * self.table.width for feature in features}
        return dict(zip(widths, looked_up.split(list(widths.values()), dim=1), strict=True))


def attend(vectors: Tensor, offsets: Tensor, query: Tensor) -> Tensor:
    """Pool bags by attention: a value's weight is the softmax of its product with a query.

    Parameters
    ----------
    vectors
        [T, K].
    offsets
        int64 [N + 1]. An empty bag is the zero vector.
    query
        [K].

    Returns
    -------
    Tensor
        [N, K]
    """
    scores = vectors @ query  # [T]
    owner = torch.arange(len(offsets) - 1, device=offsets.device).repeat_interleave(offsets.diff())
    highest = scores.new_full((len(offsets) - 1,), -torch.inf).scatter_reduce(0, owner, scores.detach(), "amax")
    raised = (scores - highest[owner]).exp()
    total = raised.new_zeros(len(offsets) - 1).index_add(0, owner, raised)
    return reduce_bags(vectors, offsets, "sum", raised / total[owner])


def _all_salts(features: Iterable[Feature]) -> Tensor:
    """Return the salts of all look-ups of several features, int64 [L]."""
    return torch.cat([torch.zeros(0, dtype=torch.int64), *(salts(f.name, f.lookups) for f in features)])
