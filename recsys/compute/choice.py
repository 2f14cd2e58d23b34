"""The engine that a configuration asks for."""

from __future__ import annotations

import os

from recsys.compute.base import Engine
from recsys.compute.local import LOCAL
from recsys.errors import InputError
from recsys.settings import Settings


def engine_of(settings: Settings) -> Engine:
    """Return the engine of `[compute]`; a cluster is connected to when it is checked or has something to do.

    Raises
    ------
    InputError
        The engine's library is not installed.
    """
    compute = settings.compute
    if compute.engine == "local":
        return LOCAL
    # Ray reads these when it is imported: it tells nobody of its use, and a head that does not answer is given up after
    # two minutes, not fourteen
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of tasks that nobody waits for, after a first error
    if compute.address == "local":
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # it listens on this machine alone
    try:
        from recsys.compute.ray import Ray
    except ModuleNotFoundError as error:
        raise InputError(
            f'compute.engine = "ray" needs the package {error.name}; run `pip install ray`, on every machine of the '
            "cluster in the same version."
        ) from error
    return Ray(address=compute.address, cores=compute.cores, retries=compute.retries, warehouse=settings.warehouse)


def check_compute(settings: Settings) -> None:
    """Refuse machines that could not do the work of a run, before it begins; see `Engine.check`.

    Raises
    ------
    InputError
        What is wrong, and what to do.
    """
    engine_of(settings).check(settings.warehouse, settings.compute.training_processes)
