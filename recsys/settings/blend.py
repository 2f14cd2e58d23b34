"""[blend]: the sources beside the model, and the blend of all."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys.settings.section import Section, Share


class BlendSettings(Section):
    """The sources beside the model's vectors, and the blend that scores what all of them propose."""

    kind: Literal["auto", "always", "never"] = "auto"  # auto: where it beats the model alone on validation users
    candidates: int = Field(default=200, ge=10)  # that each source proposes for a user
    text: bool = True  # the catalogue's text is a source, where it has any, also if the model reads none
    # who followed whom, who came along and what sells are sources; False: text alone, and what the history holds
    counts: bool = True
    # (0 to 1) of the training events, those that came since the regressions were solved: up to it yesterday's serve on,
    # after a warm start from "previous" alone; 0: they are solved each night
    resolve_share: Share = 0.01
