"""Ranker: the contract of what makes one score out of all that the sources say of a candidate.

To add one, write a subclass in a file of its own and register it (registry.py).

Shapes: U users, P pairs of user and candidate (those of one user side by side), F features, C context values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Columns:
    """Names of what a ranker sees.

    Attributes
    ----------
    features, context
        F and C of them, in the order of the arrays.
    unpaired
        Pairs of features whose product means nothing.
    """

    features: tuple[str, ...]
    context: tuple[str, ...]
    unpaired: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Choices:
    """Candidates of users, and which of them came next.

    Attributes
    ----------
    features, context
        float32 [P, F] and [P, C].
    offsets
        int64 [U + 1]; user u owns the pairs `offsets[u]:offsets[u + 1]`, at least one.
    chosen
        int64 [U]: which of the user's own pairs came next, from 0.
    """

    features: np.ndarray
    context: np.ndarray
    offsets: np.ndarray
    chosen: np.ndarray


class Ranker(ABC):
    """A ranker, fitted once and never changed.

    Attributes
    ----------
    name
        What the bundle's declaration says.
    features, context
        Names of the columns that `scores` takes, in their order.
    """

    name: ClassVar[str]
    features: tuple[str, ...]
    context: tuple[str, ...]

    @classmethod
    @abstractmethod
    def fit(cls, choices: Choices, columns: Columns) -> Self:
        """The ranker under which what came next comes first; equal choices give an equal ranker."""

    @abstractmethod
    def scores(self, features: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Scores float32 [P] of pairs with `features` [P, F] and `context` [P, C]; comparable for one user only."""

    @abstractmethod
    def to_tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays for a safetensors file, by name; no source has one of such a name."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], features: Sequence[str], context: Sequence[str]) -> Self:
        """The inverse of `to_tensors`; other tensors are ignored.

        Raises
        ------
        ValueError
            The tensors are not of these features.
        """

    def table(self) -> dict[str, list[Any]]:
        """Return columns for the report, `feature` among them; none by default."""
        return {}
