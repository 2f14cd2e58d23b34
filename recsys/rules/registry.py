"""The kinds of rules that this program knows: a line each."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from recsys.rules.base import Rule
from recsys.rules.eligible import Allow, Deny, Never, Only, Valid
from recsys.rules.order import AtMost, Boosted, Diverse, Pinned
from recsys.rules.pairs import Market, MinScore
from recsys.rules.seen import NotAgain, Repeat
from recsys.settings.rules import KINDS, RuleSettings

RULES: Final[dict[str, Any]] = {}

R = TypeVar("R", bound=type[Rule])


def register(rule: R, settings: type[RuleSettings] | None = None) -> R:
    """Make a kind of rule known.

    Parameters
    ----------
    settings
        The keys of its section; None: they are known already.
    """
    RULES[rule.kind] = rule
    if settings is not None:
        KINDS[rule.kind] = settings
    return rule


for _rule in (Only, Never, Allow, Deny, Valid, Market, MinScore, NotAgain, Repeat, Boosted, Pinned, AtMost, Diverse):
    register(_rule)
