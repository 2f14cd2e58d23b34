"""What features do to each other in a multiplexed table: collisions, unseen values, overlap of projections.

Two values of one feature that meet in the same look-up cannot be told apart there (an intra-feature collision). What
two features, or two look-ups of one feature, have in common (an inter-feature collision) the first layer can undo: it
has weights of its own for each and learns to look at the shared rows from different directions.

Source: arXiv 2305.12102, sections 3 and 4.2.

Shapes: V distinct values of a feature, C its look-ups, M rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from features.declaration import Feature
from features.hashing import MAX_LOOKUPS, PADDING, lookup_rows
from features.multiplexed import FeatureBatch

BYTES = 4  # of a trained weight


@dataclass(frozen=True, kw_only=True)
class Use:
    """What one feature takes of a table, counted and as chance would have it.

    Attributes
    ----------
    values
        V.
    rows
        Distinct rows that its V * C look-ups read.
    intra
        Look-ups that meet another value of the feature in the same look-up.
    inter
        Look-ups that meet another feature, or another look-up of the same feature.
    confused
        Values that share all their rows with another value, so that nothing tells the two apart.
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
        Rows that anything looks up.
    """

    rows: int
    used: int
    features: tuple[Use, ...]

    @property
    def used_share(self) -> float:
        """Share of the rows that anything looks up."""
        return self.used / self.rows


def table_use(values: Mapping[str, Tensor], lookups: Mapping[str, int], rows: int) -> TableUse:
    """Count the collisions of features in a table.

    Parameters
    ----------
    values
        int64 hashes of each feature, repeated ones count once and padding not at all.
    lookups
        C of each feature.
    rows
        M.
    """
    distinct = {name: hashes[hashes != PADDING].unique() for name, hashes in values.items()}
    looked_up = {name: lookup_rows(hashes, name, lookups[name], rows) for name, hashes in distinct.items()}  # [V, C]
    columns = [column for of in looked_up.values() for column in of.unbind(1)]
    readers = torch.zeros(rows, dtype=torch.int64)  # features and look-ups that read a row
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
    """How many of V values chance lets share all their C rows with another value."""
    return values * _hit(float(rows) ** lookups, values - 1)


def _hit(places: float, throws: int) -> float:
    """Chance that at least one of some throws hits one given place; exact also where it is tiny."""
    if throws <= 0:
        return 0.0
    if places <= 1:
        return 1.0
    return -float(torch.expm1(throws * torch.log1p(torch.tensor(-1 / places, dtype=torch.float64))))


def _repeated(rows: Tensor) -> int:
    """Of [V, C] how many occur more than once."""
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
        Values of each feature that chance leaves without any row of their own.
    """

    rows: int
    width: int
    lookups: dict[str, int]
    confused_expected: dict[str, float]

    @property
    def bytes(self) -> int:
        """Of the table's weights."""
        return self.rows * self.width * BYTES


def suggest(values: Mapping[str, int], memory: int, dimensions: int, ids: Iterable[str] = ()) -> Suggestion:
    """The fewest look-ups that leave less than one value confused, in as many rows as the memory allows.

    Parameters
    ----------
    values
        V of each feature.
    memory
        (bytes) of the table's weights.
    dimensions
        (floats) of an id's vector, its look-ups together; what the look-ups of an id share out among them. Each of k
        look-ups reads rows of width `dimensions / k`, so k times as many rows fit.
    ids
        Features that are also an output: they get at least two look-ups, and their number decides the rows' width.

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
    """The fewest look-ups that leave less than one value confused, else the most."""
    return next((c for c in options if expected_confused(values, c, rows) < 1), options[-1])


def unseen_lookups(features: Iterable[Feature], training: FeatureBatch, batch: FeatureBatch) -> dict[str, int]:
    """How many look-ups of each feature are of values that the training rows do not have.

    Such a value still has rows: those that its hash gives it.
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
    """How many of some hashes, padding aside, are not among the known ones."""
    return int((~torch.isin(asked, known.unique()) & (asked != PADDING)).sum())


def _bag(batch: FeatureBatch, place: int) -> Tensor:
    """All values of the multi-valued feature `place`."""
    start, stop = batch.offsets[place * len(batch)], batch.offsets[(place + 1) * len(batch)]
    return batch.bags[int(start) : int(stop)]


def projections(weight: Tensor, columns: Mapping[str, slice]) -> dict[str, Tensor]:
    """A first layer's weight [K, W] by feature, [K, width of the feature] each."""
    return {name: weight.detach()[:, place] for name, place in columns.items()}


def overlap(left: Tensor, right: Tensor) -> float:
    """How much two projections of one space look in the same directions: ||A B^T|| / (||A|| ||B||), Frobenius norms.

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
    """The angle between two vectors in degrees, 0 to 90: a direction and its opposite count as one."""
    cosine = torch.dot(left, right) / (left.norm() * right.norm())
    return float(torch.rad2deg(torch.acos(cosine.abs().clamp(max=1.0))))
