"""Nothing is reported to anyone: the switches of the tools underneath, set before they are imported."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

_SWITCHES = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # its "View run at" shows the address with the password
    # MLflow's own 7 tries of 120 s each hold a training up for minutes; what is not taken is sent again later
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
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


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Drop what these loggers say inside; an error that they would print with its traceback is raised as well."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
