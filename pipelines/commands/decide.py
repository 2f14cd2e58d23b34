"""Commands that decide between models: `compare`, `report`, `backtest`, `tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.pipelines.commands.base import DECIDE, AsJson, Config, Debug, Overrides, answer, app
from recsys.pipelines.terminal.console import Show
from recsys.pipelines.terminal.outcome import INTERRUPTED
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
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare evaluations on the same test part with the first one: differences, intervals, tests and a verdict.

    Example: [bold]recsys compare yesterday.toml today.toml --metric ndcg@10[/]
    """
    from recsys.pipelines.compare import compare as compare_all
    from recsys.pipelines.compare import show_comparison

    report = compare_all(runs, metrics or (), uri, overrides or ())
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


@app.command(rich_help_panel=DECIDE)
def backtest(
    ctx: typer.Context,
    config: Config,
    nights: Annotated[int, typer.Option("--nights", metavar="N", min=1, help="How many past nights.")] = 14,
    every: Annotated[
        str | None,
        typer.Option(
            "--every", metavar="LENGTH", help="From night to night: 1d, 7d, 12h; by the log's span otherwise."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="DATE", help="End of the last window; the log's end otherwise.")
    ] = None,
    compared: Annotated[
        list[str] | None,
        typer.Option(
            "--compare", metavar="SETTINGS", help='A variant beside it, such as "train.refit=none"; repeatable.'
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep tables and bundles of the past nights.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Replay past nights from the log, and measure their tables by what users did afterwards.

    One that was killed and is started again goes on where it stopped.

    Example: [bold]recsys backtest recsys.toml --nights 14 --every 7d[/]
    """
    from recsys.backtest.variants import read_variants

    variants = read_variants(config, overrides or (), compared or ())
    from recsys.pipelines.backtest import backtest_alone
    from recsys.pipelines.orchestration.launch import watched
    from recsys.pipelines.terminal.backtest_shown import show_backtest

    settings = next(iter(variants.values()))
    with watched(settings, Show(), "backtest"):
        report = backtest_alone(variants, nights=nights, every=every, until=until, keep=keep)
    answer(ctx, report, lambda console: show_backtest(console, report))


@app.command(rich_help_panel=DECIDE)
def tune(
    ctx: typer.Context,
    config: Config,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Finished trials in all, of earlier calls too.")] = 50,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="Such as 2h or 90m; the same command goes on.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The file to write; CONFIG-tuned.toml otherwise.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Search for better settings by trials on validation, and write the best ones as a configuration.

    The section \\[tune] says what to change. Test is not read. A search that was stopped goes on.

    Example: [bold]recsys tune recsys.toml --trials 50 --timeout 2h[/]
    """
    from recsys.pipelines.orchestration.launch import watched
    from recsys.pipelines.tune import show_tune
    from recsys.pipelines.tune import tune as search
    from recsys.settings.read import load_settings

    given = overrides or []
    settings, show = load_settings(config, given), Show()

    with watched(settings, show, "tune"), show.step("tune"):
        report = search(settings, config, given, trials=trials, timeout=timeout, output=output)
    answer(ctx, report, lambda console: show_tune(console, report))
    if report["stopped"] == "interrupted":
        raise typer.Exit(INTERRUPTED)
