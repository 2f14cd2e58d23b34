"""The command that puts a night on a schedule: `deploy`."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.pipelines import collecting
from recsys.pipelines.commands.base import AsJson, Config, Debug, Overrides, answer, app
from recsys.pipelines.terminal.console import facts


@app.command()
def deploy(
    ctx: typer.Context,
    config: Config,
    cron: Annotated[str, typer.Option("--cron", help="When: minute, hour, day, month, weekday.")] = "0 3 * * *",
    timezone: Annotated[str, typer.Option("--timezone", help="Of the times, such as Europe/Berlin.")] = "UTC",
    pool: Annotated[
        str | None, typer.Option("--pool", metavar="NAME", help="Let the workers of this work pool run the nights.")
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="IMAGE", help="With a pool of containers: what they run.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Run the nights in this process, until Ctrl-C.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Register the night with Prefect's server, which PREFECT_API_URL or a profile names, to run on a schedule.

    Registering again changes the schedule. One night a warehouse runs at a time; a second one is skipped.

    Example: [bold]recsys deploy recsys.toml --cron "0 3 * * *" --timezone Europe/Berlin --serve[/]
    """
    if serve and pool is not None:
        raise typer.BadParameter(f"--serve runs the nights here, --pool {pool} on its workers; give one of them")
    if image is not None and pool is None:
        raise typer.BadParameter(f"--image {image} goes with --pool, a work pool of containers")
    from recsys.pipelines.orchestration.deploy import Plan, register, serve_here

    plan = Plan(config=config, cron=cron, timezone=timezone, overrides=tuple(overrides or ()), pool=pool, image=image)
    made, report = register(plan, serve=serve)
    answer(ctx, report, lambda console: facts(console, report))
    if serve:
        collecting.seldom()
        serve_here(made)
