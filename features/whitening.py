"""Whitening of text vectors.

Language models use a few directions for most texts. After whitening, all directions weigh the same.

Shapes: n vectors, E width of the encoder, D after whitening.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch

AT_ONCE: Final = 65_536  # vectors that are held in float64, or whitened, at once
_NOTHING: Final = 1e-12  # variance that counts as zero
_ROUNDING: Final = 1e-6  # share of the strongest direction's variance below which float32 holds only rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """PCA-whitening with shrinkage.

    Attributes
    ----------
    mean
        float32 [E].
    matrix
        float32 [E, D], the strongest principal directions, each divided by its standard deviation.
    """

    mean: np.ndarray
    matrix: np.ndarray

    @property
    def dimensions(self) -> int:
        """D, at most the dimensions that `fit` was given."""
        return int(self.matrix.shape[1])

    @classmethod
    def fit(
        cls, vectors: np.ndarray, dimensions: int, *, shrinkage: float = 5.0, equal: bool = True, aligned: bool = False
    ) -> Self:
        """Fit on vectors [n, E]; zero rows (items without text) do not count.

        Few vectors determine the weak directions badly, and full whitening of these puts every item equally far from
        every other. Therefore each variance grows by `shrinkage` x E / n x (total variance) / n, which is negligible
        for a large catalogue. On a few hundred products plain whitening ranks worse than the encoder's own vectors.

        D is lower than `dimensions` if E is, or if fewer directions carry variance (fewer items than dimensions, for
        instance). Fewer than two distinct vectors have no variance and are only cut to `dimensions`.

        Without `equal` the directions keep their variances: principal components (PCA).

        With `aligned` the D directions are rotated back into the encoder's own axes (ZCA whitening; A. Kessy et al.,
        The American Statistician 2018, arXiv 1512.00809). The vectors have width E and the products of width D. Axes
        then mean the same in every catalogue, although each catalogue has its own whitening.
        """
        count, mean, covariance = _moments(vectors)
        width = vectors.shape[1]
        variances, directions = np.linalg.eigh(covariance)  # ascending
        variances, directions = variances[::-1].clip(min=0), directions[:, ::-1]
        if variances[0] < _NOTHING:
            cut = np.eye(width, min(dimensions, width), dtype=np.float32)
            return cls(mean=np.zeros(width, dtype=np.float32), matrix=cut)
        kept = min(dimensions, int((variances > _ROUNDING * variances[0]).sum()))
        noise = shrinkage * width * variances.sum() / count**2
        variances, directions = variances[:kept], directions[:, :kept]
        # a direction's sign is arbitrary: the largest component becomes positive
        strongest = directions[np.abs(directions).argmax(axis=0), np.arange(kept)]
        matrix = directions * np.sign(strongest)
        if equal:
            matrix /= np.sqrt(variances + noise)
            matrix *= np.sqrt(kept / (variances / (variances + noise)).sum())  # total variance D
        if aligned:
            matrix = matrix @ (directions * np.sign(strongest)).T
        return cls(mean=mean.astype(np.float32), matrix=np.ascontiguousarray(matrix, dtype=np.float32))

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Whiten the encoder's vectors [n, E] to float32 [n, D].

        Over the fitted vectors the result is centred and uncorrelated, with a total variance of D. Without shrinkage
        each direction has a variance of 1.
        """
        return (vectors - self.mean) @ self.matrix

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Whiten vectors to unit length, float32 [n, D]. Zero rows stay zero."""
        whitened = self.project(vectors)
        whitened /= np.maximum(np.linalg.norm(whitened, axis=1, keepdims=True), _NOTHING)
        whitened[~_filled(vectors)] = 0
        return whitened.astype(np.float32, copy=False)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays for a safetensors file, by name."""
        return {"whitening.mean": self.mean, "whitening.matrix": self.matrix}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray | torch.Tensor]) -> Self | None:
        """Read the output of `to_tensors`, ignoring other tensors. Return None without whitening."""
        if "whitening.mean" not in tensors:
            return None
        return cls(mean=np.asarray(tensors["whitening.mean"]), matrix=np.asarray(tensors["whitening.matrix"]))


def _filled(vectors: np.ndarray) -> np.ndarray:
    """Return bool [n]: True for rows that are not zero."""
    return (vectors != 0).any(axis=1)


def _moments(vectors: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Return count, mean [E] and covariance [E, E] of the rows that are not zero, in float64."""
    width = vectors.shape[1]
    count, total, products = 0, np.zeros(width), np.zeros((width, width))
    for start in range(0, len(vectors), AT_ONCE):
        block = vectors[start : start + AT_ONCE]
        block = block[_filled(block)].astype(np.float64)
        count += len(block)
        total += block.sum(axis=0)
        products += block.T @ block
    mean = total / max(count, 1)
    return count, mean, products / max(count, 1) - np.outer(mean, mean)
