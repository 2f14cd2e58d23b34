"""Data and tools: `fetch`, `features`, `pretrain`, `ui`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.errors import InputError
from recsys.pipelines.commands.base import (
    HELPERS,
    AsJson,
    Config,
    Debug,
    Overrides,
    answer,
    app,
    short,
)
from recsys.pipelines.terminal.console import (
    Show,
    facts,
)
from recsys.pipelines.ui import DEFAULT_STORE, check, page, serve, ui_command
from recsys.storage.addresses import masked


@app.command(rich_help_panel=HELPERS)
def fetch(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as movielens-1m, -small or amazon-beauty.")],
    folder: Annotated[str | None, typer.Option("--folder", help="Where to; data/NAME otherwise.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Download a public data set, and check its size and checksum.

    Example: [bold]recsys fetch movielens-1m[/]
    """
    from dataclasses import asdict

    from recsys.datasets.fetch import fetch as bring

    show = Show()
    with show.step("fetch"):
        report = bring(name, folder, progress=lambda file, done, total: show.advance(done, total, file))
    lines = {"folder": report.folder} | {Path(file.path).name: f"{file.size:,} bytes" for file in report.files}
    lines |= {f"note {number}": note for number, note in enumerate(report.notes, 1)}
    answer(ctx, asdict(report), lambda console: facts(console, lines))


@app.command(rich_help_panel=HELPERS)
def features(
    ctx: typer.Context,
    config: Config,
    memory: Annotated[
        float | None, typer.Option("--memory", metavar="MB", min=0.0, help="Suggest for a table of this size.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what each feature takes of the multiplexed table, collides and would need in a given memory.

    Example: [bold]recsys features recsys.toml --memory 2[/]
    """
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    from recsys.pipelines.features import features as report_on
    from recsys.pipelines.features import show_features

    report = report_on(settings, memory)
    answer(ctx, report, lambda console: show_features(console, report))


@app.command(rich_help_panel=HELPERS)
def pretrain(
    ctx: typer.Context,
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Pre-train on several catalogues: a Recformer for `recformer.init`, or a text-only sequence model for
    `train.warm_start`; goes on from its last checkpoint if killed.

    Example: [bold]recsys pretrain configs/recformer-pretrain.toml[/]
    """
    from recsys.settings.pretrain import load_pretrain_settings

    settings = load_pretrain_settings(config, overrides or ())
    from recsys.pipelines.orchestration.launch import run_step

    report = run_step("pretrain", settings, config, overrides or [], Show())
    from recsys.pipelines.pretrain import rank

    if rank() > 0:  # the first of several processes answers for all
        return
    chosen = {line: short(report.get(line)) for line in ("folder", "steps", "best_step", "resumed", "seconds")}
    answer(ctx, report, lambda console: facts(console, chosen | {"MLflow UI": ui_command(settings.tracking.uri)}))


@app.command(rich_help_panel=HELPERS)
def ui(
    ctx: typer.Context,
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="Whose store to open.")] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="A store's address.")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Open MLflow's UI on the project's own store, until Ctrl-C.

    Example: [bold]recsys ui --port 5001[/]
    """
    from recsys.tracking import telemetry

    telemetry.off()
    if overrides and (uri is not None or config is None):
        raise InputError("--set changes a configuration, and none is read; name one, without --uri.")
    address, experiment = uri or DEFAULT_STORE, None
    if uri is None and config is not None:
        from recsys.settings.read import load_settings

        settings = load_settings(config, overrides or ())
        address, experiment = settings.tracking.uri, settings.tracking.experiment or settings.name
    check(address, port)
    report = {"url": page(address, port, experiment), "uri": masked(address)}
    lines = {"open": report["url"], "runs": 'choose "Model training" at the top left if they do not show'}
    answer(ctx, report, lambda console: facts(console, lines | {"stop": "Ctrl-C"}))
    serve(address, port)
