"""[tune]: what `recsys tune` may change, and between which values.

A key is the name of a setting in quotes, such as `"train.learning_rate"`; its value is a list of choices, or a range:

    [tune]
    "train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
    "model.dimensions" = [64, 128, 256]

Without the section, the kind of model says what is worth trying (`KindSettings.tuned`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, ValidationError, model_validator

from recsys.settings.section import Section

Scalar = bool | int | float | str
SECTIONS: Final = ("model", "train", "recformer", "blend")
# keys of these sections by whose values trials would not compare, or would all be the same
_FIXED: Final[Mapping[str, str]] = {
    "model.kind": "each kind has keys of its own, so tune it in a configuration of its own",
    "model.context": "it changes which data are read",
    "train.users": "trials would learn from different users",
    "train.warm_start": "a trial begins from nothing",
    "train.warm_epochs": "a trial begins from nothing",
    "train.warm_share": "a trial begins from nothing",
    "train.checkpoint_minutes": "it changes no figure",
    "train.refit": "it follows after what validation measures",
    "recformer.validation_users": "trials would be asked different questions",
}


class RangeSettings(Section):
    """Values between two bounds, both of them included."""

    low: int | float
    high: int | float
    log: bool = False  # drawn by their logarithm, for what spans powers of ten
    step: int | float | None = None  # between two values; None: 1 for whole numbers, and none for others

    @model_validator(mode="after")
    def _bounds_hold_something(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"low = {self.low} and high = {self.high} must be finite")
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must lie below high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log = true needs low above zero, not {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log = true and step exclude each other; leave one out")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step = {self.step} must be above zero and fit between low and high")
        return self


Values = RangeSettings | tuple[Scalar, ...]


def _read(given: Any) -> Any:
    """Ranges and choices of plain values; a section of the user's own, such as [tune.train], is read alike."""
    if not isinstance(given, Mapping):
        return given
    return {key: _values(key, value) for key, value in _flat(given).items()}


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if key in SECTIONS and isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": own for inner, own in value.items()}
        else:
            flat[str(key)] = value
    return flat


def _values(key: str, given: Any) -> Values:
    section, _, name = key.partition(".")
    if not name or section not in SECTIONS:
        raise ValueError(
            f'"{key}" cannot be tuned, as what validation measures does not depend on it or would not compare; a key '
            f"of {', '.join(SECTIONS[:-1])} or {SECTIONS[-1]} can"
        )
    if key in _FIXED:
        raise ValueError(f'"{key}" cannot be tuned: {_FIXED[key]}')
    if isinstance(given, RangeSettings):
        return given
    if isinstance(given, Mapping):
        try:
            return RangeSettings.model_validate(dict(given))
        except ValidationError as error:
            first = error.errors()[0]
            said = first["msg"].removeprefix("Value error, ")
            inside = ".".join(map(str, first["loc"][:1]))
            raise ValueError(f'"{key}": {inside}{": " if inside else ""}{said[0].lower()}{said[1:]}') from None
    if not isinstance(given, (list, tuple)):
        raise ValueError(f'"{key}" = {given!r} must be a range such as {{ low = 1, high = 8 }} or a list of choices')
    if any(not isinstance(value, (bool, int, float, str)) for value in given):
        raise ValueError(f'"{key}" = {given!r}: a choice is a number, a text, true or false')
    if len({(type(value), value) for value in given}) < max(len(given), 2):
        raise ValueError(f'"{key}" = {list(given)!r} must hold two or more different choices')
    return tuple(given)


TuneSettings = Annotated[dict[str, Values], BeforeValidator(_read)]
