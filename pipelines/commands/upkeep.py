"""Commands that look after a warehouse: `status`, `gc`."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.pipelines.commands.base import UPKEEP, AsJson, Config, Debug, Overrides, answer, app


@app.command(rich_help_panel=UPKEEP)
def status(
    ctx: typer.Context,
    config: Config,
    nights: Annotated[int, typer.Option("--nights", metavar="N", min=1, help="Nights to list.")] = 7,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the last nights with their verdicts and times, what is served, and the disk that it takes.

    Example: [bold]recsys status recsys.toml[/]
    """
    from recsys.pipelines.status import show_status
    from recsys.pipelines.status import status as look
    from recsys.settings.read import load_settings

    report = look(load_settings(config, overrides or ()), nights)
    answer(ctx, report, lambda console: show_status(console, report))


@app.command(rich_help_panel=UPKEEP)
def gc(
    ctx: typer.Context,
    config: Config,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove old nights' bundles, table versions, pages, records and MLflow files, as \\[retention] says.

    What is served, and what a rollback would serve, stays. A night does this at its end, too.

    Example: [bold]recsys gc recsys.toml --dry-run[/]
    """
    from recsys.pipelines.console import Show
    from recsys.pipelines.retention import gc as collect
    from recsys.pipelines.retention import show_gc
    from recsys.pipelines.watch import watching
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    with watching(Show()):
        report = collect(settings, dry_run=dry_run)
    answer(ctx, report, lambda console: show_gc(console, report))
