"""[filter]: which interactions count."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys.settings.section import Section


class FilterSettings(Section):
    """Interactions that count."""

    min_user_interactions: int = Field(default=1, ge=1)  # iterative k-core together with the next
    min_item_interactions: int = Field(default=1, ge=1)
    min_weight: float | None = None  # interactions with a lower weight are dropped
    events: tuple[str, ...] | None = None  # None: every event counts
    repeats: Literal["keep", "first", "last"] = "keep"  # a user's repeated item: all, the first, the last
    # items of the catalogue with events that all do not count, such as those below min_item_interactions: nobody is
    # recommended one, or the served bundle places them by text and attributes, as items without events. No figure ranks
    # them, and with train.refit other than "all" what was measured is served, without them
    rare_items: Literal["leave-out", "by-content"] = "leave-out"
