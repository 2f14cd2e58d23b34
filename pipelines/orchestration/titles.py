"""Names of Prefect's runs: the configuration and the night's date, such as `shop-a 2026-11-28`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect.runtime import flow_run

from recsys.errors import RecsysError
from recsys.pipelines.orchestration import unmasked
from recsys.settings.read import read_tree


def run_title() -> str:
    """Return the name of the flow run that is about to begin: its date is that of its scheduled time."""
    given = flow_run.get_parameters()
    return title(
        given["config"], given.get("overrides"), flow_run.get_scheduled_start_time(), given.get("timezone") or None
    )


def title(config: str, overrides: Sequence[str] | None, scheduled: datetime, timezone: str | None) -> str:
    """Return a run's name.

    Parameters
    ----------
    scheduled
        When it is to begin; a run that begins late keeps the date.
    timezone
        Of the date, such as Europe/Berlin; None, and one that is unknown, is that of the machine.
    """
    zone = None
    with contextlib.suppress(ZoneInfoNotFoundError, ValueError, OSError):  # a name must not cost a night
        zone = ZoneInfo(timezone) if timezone else None
    return f"{configuration_name(config, overrides)} {scheduled.astimezone(zone):%Y-%m-%d}"


def configuration_name(config: str, overrides: Sequence[str] | None = None) -> str:
    """Return a configuration's name; of one that cannot be read the file's, as the run itself says what is wrong."""
    try:
        return str(read_tree(config, unmasked.real(overrides))["name"])
    except (RecsysError, KeyError):
        return Path(config).stem
