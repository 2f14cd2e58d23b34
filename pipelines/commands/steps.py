"""The steps of a run, one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from recsys.pipelines.commands.base import (
    STEPS,
    AsJson,
    ChosenBundle,
    Config,
    Debug,
    Overrides,
    answer,
    app,
    short,
)
from recsys.pipelines.terminal.console import (
    Show,
    capped,
    facts,
    left_out_lines,
    left_out_of_training,
    rejected_lines,
    show_metrics,
    show_rules,
)
from recsys.pipelines.ui import ui_command


@app.command(rich_help_panel=STEPS)
def ingest(
    ctx: typer.Context,
    config: Config,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Replace what the tables hold by what the sources hold now.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read the sources into the warehouse's tables; reading a file twice adds nothing.

    Example: [bold]recsys ingest recsys.toml[/]
    """
    read = ("rows_read", "rows_added", "rows_rejected", "withdrawals", "duplicates")
    counts = (*read, "corrected", "late", "repeated", "forgotten", "delisted")
    step(ctx, "ingest", config, overrides, ("versions", *counts), rebuild=rebuild)


@app.command(rich_help_panel=STEPS)
def represent(
    ctx: typer.Context,
    config: Config,
    shown: Annotated[int | None, typer.Argument(metavar="[N]", min=1, help="Items that --preview shows.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only show N items' sentences, 5 if not given.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Turn item sentences into text vectors; a sentence that is known is not encoded again.

    Example: [bold]recsys represent recsys.toml --preview 3[/]
    """
    if preview:
        from recsys.pipelines.represent import represent_preview, show_preview
        from recsys.settings.read import load_settings

        report = represent_preview(load_settings(config, overrides or ()), shown or 5)
        answer(ctx, report, lambda console: show_preview(console, report))
        return
    if shown is not None:
        raise typer.BadParameter(f"{shown} says how many items --preview shows; add --preview")
    counted = ("items", "encoded", "reused", "truncated", "shortened", "empty", "silent")
    step(ctx, "represent", config, overrides, ("encoder", *counted))


@app.command(rich_help_panel=STEPS)
def train(
    ctx: typer.Context,
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train on the newest tables and write a bundle; a training that was killed goes on from its last checkpoint.

    Example: [bold]recsys train recsys.toml --set train.epochs=20[/]
    """
    step(
        ctx,
        "train",
        config,
        overrides,
        ("bundle", "epochs", "best_epoch", "resumed", "warm_start", "parameters", "seconds"),
    )


@app.command(rich_help_panel=STEPS)
def evaluate(
    ctx: typer.Context,
    config: Config,
    bundle: ChosenBundle = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure a bundle beside the untrained baselines, full ranking, on the held-out items.

    Example: [bold]recsys evaluate recsys.toml[/]
    """
    step(ctx, "evaluate", config, overrides, (), bundle=bundle)


@app.command(rich_help_panel=STEPS)
def refit(
    ctx: typer.Context,
    config: Config,
    bundle: ChosenBundle = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make the bundle to serve out of the measured one and of all events, the held-out ones too.

    Figures stay those of the measured bundle, which is kept beside it. train.refit says how much is fitted again.

    Example: [bold]recsys refit recsys.toml --set train.refit=all[/]
    """
    step(ctx, "refit", config, overrides, ("bundle", "measured", "kind", "epochs", "seconds"), bundle=bundle)


@app.command(rich_help_panel=STEPS)
def retrieve(
    ctx: typer.Context,
    config: Config,
    bundle: ChosenBundle = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the candidate table: the best items of every user.

    Example: [bold]recsys retrieve recsys.toml --set retrieve.k=50[/]
    """
    step(ctx, "retrieve", config, overrides, ("path", "version", "rows", "users", "k", "by_fallback"), bundle=bundle)


@app.command(rich_help_panel=STEPS)
def export(
    ctx: typer.Context,
    config: Config,
    overrides: Overrides = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Bring the copy before the newest one back instead.")
    ] = False,
    target: Annotated[
        str | None, typer.Option("--target", help="With --rollback: only the target [export.NAME] of this name.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Copy the newest candidate table to where downstream services read it: to every target of the configuration.

    Example: [bold]recsys export recsys.toml --set export.path=exports/candidates[/]
    """
    if target is not None and not rollback:
        raise typer.BadParameter(f"--target {target} goes with --rollback; an export writes every target")
    lines = ("path", "version", "instead") if rollback else ("path", "rows", "format", "layout")
    step(ctx, "export", config, overrides, lines, rollback=rollback, target=target)


@app.command(rich_help_panel=STEPS)
def refresh(
    ctx: typer.Context,
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Between nights: read what is new in the log, and rewrite the rows of those users in the table and every target.

    Nothing is trained: the bundle that is served makes the rows. Where nothing is new, nothing changes.

    Example: [bold]recsys refresh recsys.toml[/]
    """
    from recsys.pipelines.orchestration.launch import run_step
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    report = run_step("refresh", settings, config, overrides or [], Show())
    from recsys.pipelines.refresh import sentence

    answer(ctx, report, lambda console: console.print(f"{sentence(report)}.", soft_wrap=True))


def _of_target(report: Mapping[str, Any]) -> str:
    """A target's report in one line."""
    if "instead" in report:
        return f"{report['path']} (version {report['version']} instead of {report['instead']})"
    return f"{report['path']} ({report['rows']:,} rows, {report['format']}, {report['layout']})"


def step(
    ctx: typer.Context,
    name: str,
    config: str,
    overrides: list[str] | None,
    lines: tuple[str, ...],
    **options: Any,
) -> None:
    """Run one step on the newest tables and show some of its report."""
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    from recsys.pipelines.orchestration.launch import run_step

    report = run_step(name, settings, config, overrides or [], Show(), **options)
    chosen = {line: short(report.get(line)) for line in lines}
    if name == "export" and list(report["targets"]) != ["export"]:
        chosen |= {of: _of_target(told) for of, told in report["targets"].items()}
    if "reasons" in report:
        chosen["rejected"] = "\n".join(rejected_lines(report["reasons"])) or None
    chosen["filtered out"] = left_out_of_training(report.get("report", {}).get("left_out"))
    chosen["left out"] = "\n".join(left_out_lines(report.get("rows_dropped", {}))) or None

    def told(console: Console) -> None:
        if "baselines" in report:
            show_metrics(console, settings.name, report)
            show_rules(console, report["report"].get("rules"))
            chosen["repeated targets"] = capped(report["report"])
        facts(console, chosen | {"MLflow UI": ui_command(settings.tracking.uri)})

    answer(ctx, report, told)
