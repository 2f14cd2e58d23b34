"""The settings of a sequence model, out of a configuration of any kind."""

from __future__ import annotations

from recsys.settings import ModelSettings, Settings


def sequence_settings(settings: Settings) -> ModelSettings:
    """The `[model]` of a sequence model's configuration."""
    assert isinstance(settings.model, ModelSettings)
    return settings.model
