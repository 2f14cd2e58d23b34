"""Commands that say and change which model is served: `releases`, `promote`, `rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.pipelines.commands.base import DECIDE, AsJson, Config, Debug, Overrides, answer, app
from recsys.pipelines.terminal.console import Show
from recsys.pipelines.watch import watching

Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for those who find another model served.")]


@app.command(rich_help_panel=DECIDE)
def releases(
    ctx: typer.Context,
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List what was served: run, since when, figures, verdict, why, and what can come back.

    Example: [bold]recsys releases recsys.toml[/]
    """
    from recsys.pipelines.releases import releases as listed
    from recsys.pipelines.releases import show_releases
    from recsys.settings.read import load_settings

    report = listed(load_settings(config, overrides or ()))
    answer(ctx, report, lambda console: show_releases(console, report))


@app.command(rich_help_panel=DECIDE)
def promote(
    ctx: typer.Context,
    config: Config,
    run: Annotated[str, typer.Argument(metavar="RUN", help="An MLflow run id, or the beginning of one.")],
    why: Why,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Serve a run that was kept back, or one that was served before: table, bundle and export at once.

    Example: [bold]recsys promote recsys.toml 3f9a01c2 --why "the drift is the sale"[/]
    """
    from recsys.pipelines.promote import promote as serve
    from recsys.pipelines.promote import show_switched
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    with watching(Show()):
        report = serve(settings, run, why)
    answer(ctx, report, lambda console: show_switched(console, report))


@app.command(rich_help_panel=DECIDE)
def rollback(
    ctx: typer.Context,
    config: Config,
    why: Why,
    to: Annotated[
        str | None, typer.Option("--to", metavar="RUN", help="A run that was served; the one before otherwise.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Serve what was served before: table, bundle and export go back at once; doing it again goes back further.

    Example: [bold]recsys rollback recsys.toml --why "cold items are gone from the lists"[/]
    """
    from recsys.pipelines.promote import rollback as back
    from recsys.pipelines.promote import show_switched
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    with watching(Show()):
        report = back(settings, why, to)
    answer(ctx, report, lambda console: show_switched(console, report))
