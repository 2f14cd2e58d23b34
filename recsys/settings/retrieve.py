"""[retrieve]: the candidate table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys.settings.section import Section


class RetrieveSettings(Section):
    """The candidate table."""

    k: int = Field(default=100, ge=1)  # candidates a user
    # what may be recommended: what the newest reading of the catalogue lists, or all that the bundle knows; without a
    # catalogue all; a catalogue that brings new items alone needs "all"
    items: Literal["catalogue", "all"] = "catalogue"
    exclude_seen: bool = True
    batch_size: int = Field(default=1024, ge=1)  # users a search
