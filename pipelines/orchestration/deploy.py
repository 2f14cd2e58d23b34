"""Deploy: a configuration's night becomes a deployment on Prefect's server; nothing is registered that cannot run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from recsys.errors import InputError, RecsysError, first_line
from recsys.pipelines.orchestration import prefect_api
from recsys.settings import Settings
from recsys.settings.read import anchored, load_settings
from recsys.storage.addresses import masked

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.deployments.runner import RunnerDeployment

_PROCESSES: Final = "process"  # the type of a work pool whose workers start processes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A night and when it runs.

    Attributes
    ----------
    cron
        Five fields: minute, hour, day, month, weekday.
    timezone
        Of the times, such as Europe/Berlin.
    pool
        The work pool whose workers run the nights; None where a process serves them.
    image
        The image of a pool of containers.
    """

    config: str
    cron: str
    timezone: str
    overrides: tuple[str, ...] = ()
    pool: str | None = None
    image: str | None = None


def register(plan: Plan, *, serve: bool = False) -> tuple[RunnerDeployment, dict[str, Any]]:
    """Register a plan's deployment, in place of an earlier one of the same configuration.

    Returns
    -------
    tuple
        The deployment, and what a person wants to know of it.

    Raises
    ------
    InputError
        The configuration, the schedule or the pool is wrong, no server is named, or the server has a deployment of
        this name of another configuration; nothing is registered.
    RecsysError
        The server does not answer.
    """
    settings = load_settings(plan.config, plan.overrides)
    _no_secrets(plan.overrides)
    following = _next_night(plan)
    if not prefect_api.named():
        raise InputError(
            "No server of Prefect is named, so there is nowhere to register the night; `prefect server start` starts "
            "one, then set PREFECT_API_URL=http://127.0.0.1:4200/api."
        )
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        url = masked(str(client.api_url))
        with _answering(url):
            _check_answers(client, url)
            variables = {} if plan.pool is None else _job_variables(client, plan, url)
            made = _deployment(plan, settings, variables)
            _not_anothers(client, made)
            made.apply()
    if serve:
        runs = "this process, until it is stopped"
    elif plan.pool is not None:
        runs = f"workers of the pool {plan.pool}: `prefect worker start --pool {plan.pool}`"
    else:
        runs = f"nobody yet: `recsys deploy {plan.config} --serve` runs the nights, or workers of a pool (--pool)"
    report = {
        "deployment": made.full_name,
        "schedule": f"{plan.cron} ({plan.timezone})",
        "next night": following.isoformat(timespec="minutes"),
        "configuration": made.parameters["config"],
        "run by": runs,
        "server": url,
    }
    return made, report


def serve_here(made: RunnerDeployment) -> None:
    """Run the nights of a deployment in processes of this one, until it is stopped; the schedule stays."""
    from prefect import serve

    serve(made, pause_on_shutdown=False, print_starting_message=False)


def _no_secrets(overrides: tuple[str, ...]) -> None:
    """Refuse a password in an override: Prefect's server stores and shows parameters."""
    for override in overrides:
        if masked(override) != override:
            raise InputError(
                f"--set {masked(override)} has a password, which Prefect would store with the deployment; put it into "
                "a variable of the worker's environment and write ${NAME} in its place."
            )


def _next_night(plan: Plan) -> datetime:
    """Return when the schedule comes next."""
    try:
        zone = ZoneInfo(plan.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(
            f"--timezone {plan.timezone} is no time zone; give a name such as Europe/Berlin or UTC."
        ) from None
    if len(plan.cron.split()) != 5:
        raise InputError(_wrong_cron(plan.cron))
    from prefect.server.schemas.schedules import CronSchedule

    try:
        schedule = CronSchedule(cron=plan.cron, timezone=plan.timezone)
    except ValueError:
        raise InputError(_wrong_cron(plan.cron)) from None
    try:
        dates = asyncio.run(schedule.get_dates(1, start=datetime.now(zone)))
    except ValueError:
        raise InputError(f'--cron "{plan.cron}" names a day that never comes; correct its day or month.') from None
    return dates[0].astimezone(zone)


def _wrong_cron(cron: str) -> str:
    return (
        f'--cron "{cron}" is no schedule; give five fields (minute, hour, day, month, weekday), such as "0 3 * * *" '
        "for every night at 3."
    )


@contextlib.contextmanager
def _answering(url: str) -> Iterator[None]:
    """Make one sentence of what a server answers that is none of Prefect's, or that lets nobody in."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    try:
        yield
    except RecsysError:
        raise
    except (HTTPError, PrefectException, RuntimeError, ValueError, OSError) as error:
        raise RecsysError(
            f"Prefect's server at {url} did not take the deployment: {masked(first_line(error))}."
        ) from error


def _check_answers(client: SyncPrefectClient, url: str) -> None:
    from httpx import HTTPStatusError

    if error := client.api_healthcheck():
        if isinstance(error, HTTPStatusError):
            said = f"answers {error.response.status_code} {error.response.reason_phrase}"
        else:
            said = f"does not answer ({masked(first_line(error))})"
        raise RecsysError(
            f"Prefect's server at {url} {said}; start it with `prefect server start`, or correct PREFECT_API_URL, "
            "which ends with /api."
        )


def _job_variables(client: SyncPrefectClient, plan: Plan, url: str) -> dict[str, Any]:
    """Return what a worker of the plan's pool needs to start a night."""
    from prefect.exceptions import ObjectNotFound

    folder = str(_absolute(plan.config).parent)
    try:
        kind = client.read_work_pool(str(plan.pool)).type
    except ObjectNotFound:
        known = ", ".join(sorted(pool.name for pool in client.read_work_pools())) or "none"
        raise InputError(
            f"Prefect's server at {url} has no work pool {plan.pool} (it has: {known}); `prefect work-pool create "
            f"{plan.pool} --type process` makes one."
        ) from None
    if kind == _PROCESSES:
        if plan.image is not None:
            raise InputError(f"The pool {plan.pool} starts processes, which have no image; leave --image out.")
        return {"working_dir": folder}
    if plan.image is None:
        raise InputError(
            f"The pool {plan.pool} is of the type {kind}, whose runs need an image with recsys in it: give --image "
            "NAME."
        )
    # the configuration and what lies beside it are found in the container where they are here
    return {"image": plan.image, "volumes": [f"{folder}:{folder}"]} if kind == "docker" else {"image": plan.image}


def _deployment(plan: Plan, settings: Settings, variables: dict[str, Any]) -> RunnerDeployment:
    from prefect.deployments.runner import EntrypointType, RunnerDeployment
    from prefect.schedules import Cron

    from recsys.pipelines.flows import nightly

    parameters = {"config": str(_absolute(plan.config)), "timezone": plan.timezone}
    made = RunnerDeployment.from_flow(
        nightly,
        name=settings.name,
        schedule=Cron(plan.cron, timezone=plan.timezone),
        parameters=parameters | ({"overrides": anchored(settings, plan.overrides)} if plan.overrides else {}),
        description=f"The night of {settings.name}.",
        tags=["recsys", settings.name],
        version=version("recsys"),
        # The warehouse's lock keeps a second night out. A limit of Prefect's is a lease of five minutes: a server that
        # is away for longer cuts the step, and one that is back holds the place of a night whose end it never heard.
        concurrency_limit=None,  # said even so: an earlier one would stay
        job_variables=variables,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made.work_pool_name = plan.pool  # said even where it is none: an earlier one would stay
    return made


def _not_anothers(client: SyncPrefectClient, made: RunnerDeployment) -> None:
    """Refuse to replace the deployment of another configuration that has the same name."""
    from prefect.exceptions import ObjectNotFound

    with contextlib.suppress(ObjectNotFound):
        other = client.read_deployment_by_name(made.full_name).parameters.get("config")
        if other not in (None, made.parameters["config"]):
            raise InputError(
                f"The server has the deployment {made.full_name} of the configuration {other}, which this one would "
                f"replace; give one of them another name, or remove that one: `prefect deployment delete "
                f"{made.full_name}`."
            )


def _absolute(config: str) -> Path:
    return Path(config).absolute()
