"""[items]: the catalogue."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys.settings.attributes import AttributedSettings


class ItemSettings(AttributedSettings):
    """The item catalogue."""

    columns: dict[Literal["item_id"], str] = Field(default_factory=dict)
    text: tuple[str, ...] = ()  # attributes of the item's sentence, in order; the first one is the title
