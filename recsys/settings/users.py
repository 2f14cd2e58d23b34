"""[users]: what is known of users."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys.settings.attributes import AttributedSettings


class UserSettings(AttributedSettings):
    """User attributes; kept in the `users` table."""

    columns: dict[Literal["user_id"], str] = Field(default_factory=dict)
