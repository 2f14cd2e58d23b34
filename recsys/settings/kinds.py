"""Kinds of model: a line each, as names, so that reading a configuration imports no model.

`recsys.models.registry` makes classes of the names. The other half of a kind's line is the class of its `[model]`
section, so that each kind has its own keys and a typo is told against them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from recsys.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of model, by name: "module:Class" of its estimator and of its `[model]` section."""

    estimator: str
    settings: str


KINDS: dict[str, Kind] = {}


def register(kind: str, estimator: str, settings: str = "recsys.settings.model:KindSettings") -> None:
    """Make `model.kind = kind` known; a kind that is known already is replaced.

    Parameters
    ----------
    estimator
        "module:Class" of a `recsys.models.base.Estimator`; imported when a model of this kind is trained or opened.
    settings
        "module:Class" of a `recsys.settings.KindSettings`: the keys of `[model]`. The default has `kind` alone.
    """
    KINDS[kind] = Kind(estimator=estimator, settings=settings)


def named(kind: str) -> Kind:
    """The line of a kind.

    Raises
    ------
    InputError
        There is no such kind; names those that there are.
    """
    if kind not in KINDS:
        raise InputError(f"model.kind = {kind!r} is no kind of model; {known()}.")
    return KINDS[kind]


def known() -> str:
    """The kinds there are, for a sentence."""
    return f"the kinds are {', '.join(sorted(KINDS))}"


def imported(name: str) -> Any:
    """The class that "module:Class" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


register("bert4rec", "recsys.models.sequential.estimator:SequenceEstimator", "recsys.settings.model:ModelSettings")
register("text", "recsys.models.text.estimator:TextEstimator", "recsys.settings.model:TextModelSettings")
register(
    "recformer", "recsys.models.recformer.estimator:RecformerEstimator", "recsys.settings.model:RecformerModelSettings"
)
