"""[rules.NAME]: what may be recommended to whom, and in which order, before a list is cut at k.

`kind` chooses the rule, and a kind has keys of its own. `where` holds conditions on columns of the catalogue, all of
which an item must meet. Rules add up: a `never` rule per condition leaves out what meets one of them, and an item
must meet every `only` rule.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from recsys.settings.by_kind import validated
from recsys.settings.conditions import Condition
from recsys.settings.id_list import IdListSettings
from recsys.settings.places import IN_DATA
from recsys.settings.section import Section, Share

Score = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]  # sums of such stay finite in float32
Where = Annotated[tuple[Condition, ...], Field(min_length=1)]


class RuleSettings(Section):
    """Keys that every rule has; each kind adds its own."""

    kind: str  # which rule

    @classmethod
    def variant(cls, given: Any) -> type[Section]:
        """The settings of the kind that a section of plain values names."""
        kind = given.get("kind") if isinstance(given, dict) else None
        return KINDS.get(kind, cls) if isinstance(kind, str) else cls


class OnlyRuleSettings(RuleSettings):
    """Only items that meet all conditions."""

    kind: Literal["only"] = "only"
    where: Where  # conditions on columns of the catalogue


class NeverRuleSettings(RuleSettings):
    """No item that meets all conditions."""

    kind: Literal["never"] = "never"
    where: Where  # conditions on columns of the catalogue


class AllowRuleSettings(RuleSettings):
    """Only the items of a list."""

    kind: Literal["allow"] = "allow"
    # (file under data_root; or where the list is) txt: an id a line; csv, parquet: a column
    items: Annotated[str | IdListSettings, IN_DATA]


class DenyRuleSettings(RuleSettings):
    """No item of a list."""

    kind: Literal["deny"] = "deny"
    # (file under data_root; or where the list is) txt: an id a line; csv, parquet: a column
    items: Annotated[str | IdListSettings, IN_DATA]


class ValidRuleSettings(RuleSettings):
    """Only items whose time has come and is not over, at the moment that the run speaks for."""

    kind: Literal["valid"] = "valid"
    from_column: str | None = None  # of the catalogue: first moment, or day, of an item; no value: always
    until_column: str | None = None  # of the catalogue: last moment, or day, of an item; no value: for ever

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.from_column is None and self.until_column is None:
            raise ValueError("it needs from_column, until_column or both")
        return self


class MarketRuleSettings(RuleSettings):
    """Only items that share a value with the user; items without a value are for everybody."""

    kind: Literal["market"] = "market"
    user: str  # a categorical attribute of [users]
    item: str  # a column of the catalogue
    separator: str | None = None  # splits one text of the column into several values ("DE|AT")
    unknown: Literal["all", "none"] = "all"  # items with a value for users without one


class AtMostRuleSettings(RuleSettings):
    """At most n items of one value in a list; items without a value are not counted."""

    kind: Literal["at_most"] = "at_most"
    n: int = Field(ge=1)  # (items)
    column: str  # of the catalogue, such as the category, the brand or the seller
    separator: str | None = None  # splits one text of the column into several values ("Comedy|Drama"); each counts


class DiverseRuleSettings(RuleSettings):
    """Maximal marginal relevance: each place goes to a good item that differs from those above it."""

    kind: Literal["diverse"] = "diverse"
    column: str | None = None  # of the catalogue: items are alike that share values of it; None: by their text
    separator: str | None = None  # splits one text of the column into several values
    weight: Share = 0.3  # of the difference; 0: the order stays, 1: relevance decides the first place alone
    pool: int = Field(default=100, ge=1)  # (items) of which the list is made, best first


class BoostRuleSettings(RuleSettings):
    """Items that meet all conditions score more, or less."""

    kind: Literal["boost"] = "boost"
    where: Where  # conditions on columns of the catalogue
    by: Score  # added to the score; a blend's score is a logarithm, 0.7 doubles the odds


class PinRuleSettings(RuleSettings):
    """Items at places of their own."""

    kind: Literal["pin"] = "pin"
    items: Annotated[tuple[str | int, ...], Field(min_length=1)]  # ids, in their order
    place: int = Field(default=1, ge=1)  # (rank) of the first; the others follow it
    where: tuple[Condition, ...] = ()  # conditions on attributes of [users], by their names; empty: everybody


class NotAgainRuleSettings(RuleSettings):
    """No item of the last days, even where `retrieve.exclude_seen = false` or a `repeat` would let it come again."""

    kind: Literal["not_again"] = "not_again"
    days: float = Field(gt=0.0, allow_inf_nan=False)


class RepeatRuleSettings(RuleSettings):
    """Seen items that meet all conditions may come again, where `retrieve.exclude_seen` leaves the others out."""

    kind: Literal["repeat"] = "repeat"
    where: Where  # conditions on columns of the catalogue
    after_days: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)  # (days) since the user had the item last


class MinScoreRuleSettings(RuleSettings):
    """No item that the model, or the blend, scores lower; rows of the fallback have a scale of their own and stay."""

    kind: Literal["min_score"] = "min_score"
    score: Score  # least score, before boosts


KINDS: Final[dict[str, type[RuleSettings]]] = {  # `recsys.rules.registry` adds to it
    "only": OnlyRuleSettings,
    "never": NeverRuleSettings,
    "allow": AllowRuleSettings,
    "deny": DenyRuleSettings,
    "valid": ValidRuleSettings,
    "market": MarketRuleSettings,
    "at_most": AtMostRuleSettings,
    "diverse": DiverseRuleSettings,
    "boost": BoostRuleSettings,
    "pin": PinRuleSettings,
    "not_again": NotAgainRuleSettings,
    "repeat": RepeatRuleSettings,
    "min_score": MinScoreRuleSettings,
}


def _of_its_kind(given: Any) -> Any:
    if not isinstance(given, dict):
        return given if isinstance(given, RuleSettings) else RuleSettings.model_validate(given)
    if "kind" not in given:
        absent = InitErrorDetails(type="missing", loc=("kind",), input=given)
        raise ValidationError.from_exception_data("rules", [absent])
    return validated(given, given["kind"], KINDS, "rules", "kind of rule")


_Rule = Annotated[SerializeAsAny[RuleSettings], BeforeValidator(_of_its_kind)]


class RulesSettings(Section):
    """Rules by name, in the configuration's order."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Rule]

    @classmethod
    def named(cls, given: Any) -> type[Section]:
        """The settings of one rule."""
        return RuleSettings.variant(given)

    @property
    def by_name(self) -> dict[str, RuleSettings]:
        """Name to settings, in the configuration's order."""
        return dict(self.__pydantic_extra__)

    @model_validator(mode="after")
    def _each_can_be_named(self) -> Self:
        for name in self.by_name:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
                raise ValueError(f"a rule's name has letters, digits, _ and - only, not {name!r}")
        return self
