"""Diagnostics of a multiplexed table: collisions, unseen values, overlap of projections.

An intra-feature collision: two values of one feature share a row of one look-up, and this look-up cannot distinguish
them. An inter-feature collision: two features, or two look-ups of one feature, share a row. The first layer can undo
the second kind: it has separate weights for each feature and learns to project the shared rows in different directions.

Source: arXiv 2305.12102, sections 3 and 4.2.

Shapes: V distinct values of a feature, C its look-ups, M rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.features.declaration import Feature
from recsys.features.hashing import MAX_LOOKUPS, PADDING, lookup_rows
from recsys.features.multiplexed import FeatureBatch

BYTES = 4  # of a trained weight


@dataclass(frozen=True, kw_only=True)
class Use:
    """Rows and collisions of one feature: counted, and expected from uniform hashing.

    Attributes
    ----------
    values
        V.
    rows
        Distinct rows read by its V * C look-ups.
    intra
        Look-ups whose row another value of the feature reads in the same look-up.
    inter
        Look-ups whose row another feature, or another look-up of the same feature, reads.
    confused
        Values that share all their rows with another value, so the two are indistinguishable.
    """

    feature: str
    values: int
    lookups: int
    rows: int
    rows_expected: float
    intra: int
    intra_expected: float
    inter: int
    inter_expected: float
    confused: int
    confused_expected: float


@dataclass(frozen=True, kw_only=True)
class TableUse:
    """`Use` of every feature, and of the table as a whole.

    Attributes
    ----------
    rows
        M.
    used
        Rows that at least one look-up reads.
    """

    rows: int
    used: int
    features: tuple[Use, ...]

    @property
    def used_share(self) -> float:
        """Share of the rows that at least one look-up reads."""
        return self.used / self.rows


def table_use(values: Mapping[str, Tensor], lookups: Mapping[str, int], rows: int) -> TableUse:
    """Count the rows and collisions of features in a table.

    Parameters
    ----------
    values
        int64 hashes of each feature. Repeated hashes count once, padding does not count.
    lookups
        C of each feature.
    rows
        M.
    """
    distinct = {name: hashes[hashes != PADDING].unique() for name, hashes in values.items()}
    looked_up = {name: lookup_rows(hashes, name, lookups[name], rows) for name, hashes in distinct.items()}  # [V, C]
    columns = [column for of in looked_up.values() for column in of.unbind(1)]
    readers = torch.zeros(rows, dtype=torch.int64)  # number of look-ups that read each row
    for column in columns:
        readers[column.unique()] += 1
    pairs = sum(len(column) for column in columns)
    uses = []
    for name, of in looked_up.items():
        V, C = of.shape
        uses.append(
            Use(
                feature=name,
                values=V,
                lookups=C,
                rows=len(of.unique()),
                rows_expected=rows * _hit(rows, V * C),
                intra=sum(int((torch.bincount(c, minlength=1)[c] > 1).sum()) for c in of.unbind(1)),
                intra_expected=V * C * _hit(rows, V - 1),
                inter=int((readers[of] > 1).sum()),
                inter_expected=V * C * _hit(rows, pairs - V),
                confused=_repeated(of),
                confused_expected=expected_confused(V, C, rows),
            )
        )
    return TableUse(rows=rows, used=int((readers > 0).sum()), features=tuple(uses))


def expected_confused(values: int, lookups: int, rows: int) -> float:
    """Return the expected number of V values that share all their C rows with another value."""
    return values * _hit(float(rows) ** lookups, values - 1)


def _hit(places: float, throws: int) -> float:
    """Return the probability that at least one throw hits a given place, accurate for tiny values too."""
    if throws <= 0:
        return 0.0
    if places <= 1:
        return 1.0
    return -float(torch.expm1(throws * torch.log1p(torch.tensor(-1 / places, dtype=torch.float64))))


def _repeated(rows: Tensor) -> int:
    """Count the rows of [V, C] that occur more than once."""
    if not rows.numel():
        return 0
    _, counts = rows.unique(dim=0, return_counts=True)
    return int(counts[counts > 1].sum())


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Look-ups and rows for a memory budget.

    Attributes
    ----------
    rows, width
        M and d of the table.
    lookups
        C of each feature.
    confused_expected
        Expected values of each feature without any row of their own.
    """

    rows: int
    width: int
    lookups: dict[str, int]
    confused_expected: dict[str, float]

    @property
    def bytes(self) -> int:
        """Size of the table's weights in bytes."""
        return self.rows * self.width * BYTES


def suggest(values: Mapping[str, int], memory: int, dimensions: int, ids: Iterable[str] = ()) -> Suggestion:
    """Suggest the fewest look-ups that leave less than one value confused, in as many rows as fit into memory.

    Parameters
    ----------
    values
        V of each feature.
    memory
        Size of the table's weights in bytes.
    dimensions
        Width of an id's vector, in floats. Its k look-ups read rows of width `dimensions / k`, so k times as many rows
        fit.
    ids
        Features that are also an output. They get at least two look-ups, and their look-ups decide the rows' width.

    Raises
    ------
    ValueError
        Not even one row fits.
    """
    ids = tuple(name for name in ids if name in values)
    least = 2 if ids else 1
    allowed = [k for k in range(1, MAX_LOOKUPS + 1) if dimensions % k == 0]
    options = [k for k in allowed if k >= least] or [allowed[-1]]
    if memory < dimensions // options[0] * BYTES:
        raise ValueError(f"{memory} bytes hold not one row of {dimensions // options[0]} weights; allow more memory")

    def rows_with(k: int) -> int:
        return memory // (BYTES * (dimensions // k))

    def lost(k: int) -> float:
        return sum(expected_confused(values[name], k, rows_with(k)) for name in ids)

    k = next((k for k in options if lost(k) < 1), min(options, key=lost))
    rows = rows_with(k)
    lookups = {name: k if name in ids else _fewest(count, rows, allowed) for name, count in values.items()}
    return Suggestion(
        rows=rows,
        width=dimensions // k,
        lookups=lookups,
        confused_expected={name: expected_confused(count, lookups[name], rows) for name, count in values.items()},
    )


def _fewest(values: int, rows: int, options: list[int]) -> int:
    """Return the fewest look-ups that leave less than one value confused; if none does, the most."""
    return next((c for c in options if expected_confused(values, c, rows) < 1), options[-1])


def unseen_lookups(features: Iterable[Feature], training: FeatureBatch, batch: FeatureBatch) -> dict[str, int]:
    """Count, for each feature, the look-ups of values that the training rows lack.

    Such a value still has rows, given by its hash.
    """
    counts = {}
    value, bag = 0, 0
    for feature in features:
        if feature.kind == "multi":
            known, asked = _bag(training, bag), _bag(batch, bag)
            bag += 1
        else:
            known, asked = training.values[..., value], batch.values[..., value]
            value += 1
        counts[feature.name] = feature.lookups * unseen(known, asked)
    return counts


def unseen(known: Tensor, asked: Tensor) -> int:
    """Count the hashes that are neither padding nor known."""
    return int((~torch.isin(asked, known.unique()) & (asked != PADDING)).sum())


def _bag(batch: FeatureBatch, place: int) -> Tensor:
    """Return all values of the multi-valued feature number `place`."""
    start, stop = batch.offsets[place * len(batch)], batch.offsets[(place + 1) * len(batch)]
    return batch.bags[int(start) : int(stop)]


def projections(weight: Tensor, columns: Mapping[str, slice]) -> dict[str, Tensor]:
    """Split a first layer's weight [K, W] by feature, into [K, width of the feature] each."""
    return {name: weight.detach()[:, place] for name, place in columns.items()}


def overlap(left: Tensor, right: Tensor) -> float:
    """Measure how far two projections share directions: ||A B^T|| / (||A|| ||B||), in Frobenius norms.

    Parameters
    ----------
    left, right
        A [K, d] and B [K', d].

    Returns
    -------
    float
        0 for orthogonal row spaces, 1 for two multiples of one row; about 1 / sqrt(d) for random matrices.
    """
    scale = torch.linalg.matrix_norm(left) * torch.linalg.matrix_norm(right)
    return float(torch.linalg.matrix_norm(left @ right.T) / scale)


def angle(left: Tensor, right: Tensor) -> float:
    """Return the angle between two vectors in degrees, 0 to 90; opposite directions count as equal."""
    cosine = torch.dot(left, right) / (left.norm() * right.norm())
    return float(torch.rad2deg(torch.acos(cosine.abs().clamp(max=1.0))))
