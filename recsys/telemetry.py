"""Nothing is reported to anyone: the switches of the tools underneath, set before they are imported."""

from __future__ import annotations

import os

_SWITCHES = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",  # the tokenizers' threads do not survive a fork and warn about it
}


def off() -> None:
    """Switch analytics, telemetry and chatter off, where the environment does not say otherwise."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
