"""The kinds of model by name; a kind's classes are imported when they are first needed."""

from __future__ import annotations

from recsys.models.base import Estimator
from recsys.settings import Settings, kinds
from recsys.settings.kinds import register

__all__ = ["estimator_for", "estimator_of", "register"]


def estimator_of(kind: str) -> type[Estimator]:
    """The estimator of a kind; its attribute `recommender` is the class that answers.

    Raises
    ------
    InputError
        There is no such kind; names those that there are.
    """
    found: type[Estimator] = kinds.imported(kinds.named(kind).estimator)
    return found


def estimator_for(settings: Settings) -> Estimator:
    """The estimator that a configuration asks for."""
    return estimator_of(settings.model.kind)(settings)
