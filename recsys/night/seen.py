"""Seen items: measurement and the candidate table should leave out the same ones."""

from __future__ import annotations

from recsys.settings import Settings
from recsys.settings.rules import RepeatRuleSettings


def check_seen(settings: Settings) -> tuple[str, ...]:
    """Return a sentence where the table treats seen items in a way that nobody fits or measures; empty: it does not.

    A rule of the kind `repeat` brings some seen items back into the table, so that figures with them may be wanted.
    """
    measured, served = not settings.evaluate.exclude_seen, not settings.retrieve.exclude_seen
    some = any(isinstance(rule, RepeatRuleSettings) for rule in settings.rules.by_name.values())
    if measured == served or (measured and some):
        return ()
    if served:
        return (
            "retrieve.exclude_seen = false recommends items that a user had, and evaluate.exclude_seen = true leaves "
            "them out of validation, blend and figures; set both to the same value.",
        )
    return (
        "evaluate.exclude_seen = false ranks items that a user had in validation, blend and figures, and "
        "retrieve.exclude_seen = true recommends none of them; set both to the same value.",
    )
