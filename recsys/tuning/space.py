"""The space of a search: which settings trials change, between which values."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from recsys.errors import InputError
from recsys.settings import RangeSettings, Section, Settings, TuneSettings
from recsys.settings.read import parse_settings

TRIAL: Final = "a trial"  # where errors of its values come from
_QUESTIONS: Final = "train.validation_users"  # refused here, as bundles of earlier versions may hold it in their [tune]


@dataclass(frozen=True, kw_only=True)
class Space:
    """The values that trials draw from.

    Attributes
    ----------
    distributions
        Of each setting, by its full name such as `train.learning_rate`.
    own
        The configuration's own values; None where one of them lies outside.
    """

    distributions: Mapping[str, BaseDistribution]
    own: Mapping[str, Any] | None

    def digest(self) -> list[list[str]]:
        """Return the space as JSON can hold it: equal spaces, equal values."""
        return [[key, distribution_to_json(one)] for key, one in sorted(self.distributions.items())]


def space_of(settings: Settings) -> Space:
    """Return the space of a configuration: what its [tune] says, or else what its kind of model says.

    The kind's space is widened where it lacks a value of the configuration, so that the first trial is the
    configuration as it is.

    Raises
    ------
    InputError
        A key does not exist, a bound or choice is no value of it, or there is nothing to tune.
    """
    if settings.tune:
        given = settings.tune
    else:
        said = TypeAdapter(TuneSettings).validate_python(dict(settings.model.tuned))
        given = {key: _widened(values, value_of(settings, key)) for key, values in said.items()}
    if not given:
        raise InputError(
            f'model.kind = "{settings.model.kind}" does not say what to tune; name settings with their ranges in '
            "[tune]."
        )
    if _QUESTIONS in given:
        raise InputError(f'[tune] "{_QUESTIONS}" cannot be tuned: trials would be asked different questions.')
    distributions = {key: _distribution(settings, key, values) for key, values in given.items()}
    own = {key: value_of(settings, key) for key in distributions}
    return Space(
        distributions=distributions,
        own=own if all(_holds(distributions[key], value) for key, value in own.items()) else None,
    )


def value_of(settings: Settings, key: str) -> Any:
    """Return the value of a setting by its full name."""
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return the settings with other values of some.

    Raises
    ------
    InputError
        The values do not go together, as heads that do not divide the width.
    """
    tree = settings.model_dump()  # in which paths stay as they are opened
    for key, value in values.items():
        section, _, name = key.partition(".")
        tree[section][name] = value
    return parse_settings(tree, where=TRIAL).model_copy(update={"compute": settings.compute})


def shown(value: Any) -> str:
    """Return a value as TOML has it; floats with four digits that count.

    >>> shown(0.00123456), shown("full"), shown(True), shown(64)
    ('0.001235', '"full"', 'true', '64')
    """
    return json.dumps(rounded(value), ensure_ascii=False)


def rounded(value: Any) -> Any:
    """Return a float with four digits that count; other values are as they are."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _field(settings: Settings, key: str) -> FieldInfo:
    section, _, name = key.partition(".")
    owner: Section = getattr(settings, section)
    fields = type(owner).model_fields
    if name not in fields:
        near = difflib.get_close_matches(name, fields, n=3, cutoff=0.5) or list(fields)[1:4]
        raise InputError(
            f'tune."{key}": there is no setting {key}; did you mean {" or ".join(f"{section}.{one}" for one in near)}?'
        )
    return fields[name]


def _distribution(settings: Settings, key: str, values: RangeSettings | tuple[Any, ...]) -> BaseDistribution:
    field = _field(settings, key)
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    valid: TypeAdapter[Any] = TypeAdapter(annotation)

    def check(value: Any, what: str) -> Any:
        said = None if value == "none" and type(None) in get_args(field.annotation) else value
        try:
            return valid.validate_python(said)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise InputError(f'tune."{key}": {what} is no value of {key}: {message[0].lower()}{message[1:]}.') from None

    if isinstance(values, tuple):
        return CategoricalDistribution([check(value, f"the choice {value!r}") for value in values])
    kinds = {field.annotation, *get_args(field.annotation)}
    if bool in kinds or not kinds & {int, float}:
        raise InputError(f'tune."{key}": {key} is no number, so it takes a list of choices and no range.')
    low, high = check(values.low, f"low = {values.low}"), check(values.high, f"high = {values.high}")
    if float in kinds:
        step = None if values.step is None else float(values.step)
        return FloatDistribution(float(low), float(high), log=values.log, step=step)
    if values.step is not None and int(values.step) != values.step:
        raise InputError(f'tune."{key}": step = {values.step} must be a whole number, as {key} is one.')
    return IntDistribution(int(low), int(high), log=values.log, step=int(values.step or 1))


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return any(value == one and type(value) is type(one) for one in distribution.choices)
    if value is None or isinstance(value, str):
        return False
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def _widened(values: RangeSettings | tuple[Any, ...], own: Any) -> RangeSettings | tuple[Any, ...]:
    if isinstance(values, tuple):
        return values if own in values else (own, *values)
    if not isinstance(own, (int, float)) or (values.log and own <= 0):
        return values
    return values.model_copy(update={"low": min(values.low, own), "high": max(values.high, own)})
