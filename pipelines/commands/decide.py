"""What decides between models: `compare`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.pipelines.commands.base import (
    DECIDE,
    AsJson,
    Config,
    Debug,
    Overrides,
    answer,
    app,
)
from recsys.pipelines.ui import DEFAULT_STORE


@app.command(rich_help_panel=DECIDE)
def compare(
    ctx: typer.Context,
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Two or more: an MLflow run id, a bundle's folder, or a configuration."),
    ],
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME@K", help="Such as ndcg@10 (the default) or hr@20; repeatable."),
    ] = None,
    uri: Annotated[str, typer.Option("--uri", help="The MLflow store of run ids.")] = DEFAULT_STORE,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare evaluations on the same test part with the first one: differences, intervals, tests and a verdict.

    Example: [bold]recsys compare yesterday.toml today.toml --metric ndcg@10[/]
    """
    from recsys.pipelines.compare import compare as compare_all
    from recsys.pipelines.compare import show_comparison

    report = compare_all(runs, metrics or (), uri)
    answer(ctx, report, lambda console: show_comparison(console, report))


@app.command(rich_help_panel=DECIDE)
def report(
    ctx: typer.Context,
    config: Config,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="ID", help="An MLflow run id, or its beginning; the newest otherwise."),
    ] = None,
    opened: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make the page of a night again from its record, or find the page of an earlier one.

    Example: [bold]recsys report recsys.toml --open[/]
    """
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    from recsys.pipelines.report import report_alone, show_report

    found = report_alone(settings, run)
    answer(ctx, found, lambda console: show_report(console, found))
    if opened:
        import webbrowser

        webbrowser.open(Path(found["path"]).resolve().as_uri())
