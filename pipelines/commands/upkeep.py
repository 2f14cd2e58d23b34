"""Commands that look after a warehouse: `status`, `check`, `gc`, `forget`."""

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
def check(
    ctx: typer.Context,
    config: Config,
    deep: Annotated[bool, typer.Option("--deep", help="Read all rows, and compare the hashes of all files.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without loss.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look whether tables, bundles, pointers, exports, MLflow and records fit together; a line a finding.

    Exit code 0: all is sound; 1: there are findings.

    Example: [bold]recsys check recsys.toml --repair[/]
    """
    from recsys.pipelines.check import check as look
    from recsys.pipelines.check import show_check
    from recsys.pipelines.terminal.console import Show
    from recsys.pipelines.watch import watching
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    with watching(Show()):
        report = look(settings, deep=deep, repair=repair)
    answer(ctx, report, lambda console: show_check(console, report))
    if not report["sound"]:
        raise typer.Exit(1)


@app.command(rich_help_panel=UPKEEP)
def gc(
    ctx: typer.Context,
    config: Config,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove old nights' bundles, table versions, rejected rows, pages, records, MLflow runs and files.

    \\[retention] says which nights are old.

    What is served, and what a rollback would serve, stays. A night does this at its end, too. Where something could
    not be removed, the exit code is 1, and the same command goes on.

    Example: [bold]recsys gc recsys.toml --dry-run[/]
    """
    from recsys.pipelines.retention import gc as collect
    from recsys.pipelines.retention import show_gc
    from recsys.pipelines.terminal.console import Show
    from recsys.pipelines.watch import watching
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    with watching(Show()):
        report = collect(settings, dry_run=dry_run)
    answer(ctx, report, lambda console: show_gc(console, report))
    if report["failed"]:
        raise typer.Exit(1)


@app.command(rich_help_panel=UPKEEP)
def forget(
    ctx: typer.Context,
    config: Config,
    users: Annotated[
        list[str] | None, typer.Option("--user", metavar="ID", help="A user's id in the log; repeatable.")
    ] = None,
    users_file: Annotated[
        str | None, typer.Option("--users", metavar="FILE", help="A file of users' ids, one a line.")
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Option("--item", "--items", metavar="ID|FILE", help="An item's id, or a file of ids; repeatable."),
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="DATE", help="Events before it: 2024-01-31, or with a time.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the places and how much would go.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove users, items or old events from tables, exports, samples and caches for good, and keep them out.

    Every place is searched afterwards. Where something is left, as in an export that cannot be reached, the exit code
    is 1, and the same command goes on. An account without the ids lies beside the run states.

    Example: [bold]recsys forget recsys.toml --user 42 --user 43[/]
    """
    from pathlib import Path

    from recsys.pipelines.forget import forget as remove
    from recsys.pipelines.forget import ids_of, show_forgotten
    from recsys.pipelines.terminal.console import Show
    from recsys.pipelines.watch import watching
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    listed = [] if users_file is None else ids_of(users_file)
    wanted = [one for item in items or () for one in (ids_of(item) if Path(item).is_file() else [item])]
    with watching(Show()):
        report = remove(settings, users or (), items=wanted, before=before, listed=listed, dry_run=dry_run)
    answer(ctx, report, lambda console: show_forgotten(console, report))
    if not (report["clean"] or dry_run):
        raise typer.Exit(1)
