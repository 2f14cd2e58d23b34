"""The commands that one begins with: `init`, `run`, `demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from recsys.pipelines.commands.base import (
    AsJson,
    Config,
    Debug,
    Overrides,
    WithPrefect,
    answer,
    app,
)
from recsys.pipelines.orchestration import prefect_api
from recsys.pipelines.terminal.console import (
    Show,
    facts,
    show_examples,
    show_night,
)
from recsys.pipelines.terminal.outcome import KEPT_BACK
from recsys.pipelines.ui import ui_command

if TYPE_CHECKING:
    from recsys.settings import Settings


@app.command()
def init(
    ctx: typer.Context,
    log: Annotated[str, typer.Argument(metavar="LOG", help="The interaction log, a file or a glob.")],
    items: Annotated[str | None, typer.Option("--items", metavar="FILE", help="The item catalogue.")] = None,
    users: Annotated[str | None, typer.Option("--users", metavar="FILE", help="The user table.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write.")] = "recsys.toml",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look at the files, guess their columns and write a commented configuration.

    Example: [bold]recsys init ratings.csv --items movies.csv[/]
    """
    from recsys.init.guess import guess, write_configuration

    text, findings = guess(log, items, users, output)
    path = write_configuration(text, output).as_posix()
    lines = {"found": "\n".join(findings.found), "to check": "\n".join(findings.unsure) or None}
    lines |= {"written": path, "next": f"recsys run {path}"}
    report = {"path": path, "found": list(findings.found), "unsure": list(findings.unsure)}
    answer(ctx, report, lambda console: facts(console, lines))


@app.command()
def run(
    ctx: typer.Context,
    config: Config,
    overrides: Overrides = None,
    prefect: WithPrefect = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Do the night's work: ingest, represent, train, evaluate, refit, retrieve, judge, publish, export.

    A night that the gate keeps back publishes nothing and ends with exit code 3, after the usual report. A run that
    was killed and is started again goes on after its last finished step, in training after its last checkpoint.

    Example: [bold]recsys run recsys.toml --set train.epochs=5[/]
    """
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    summary = _night(settings, config, overrides or [], prefect)
    answer(ctx, summary, lambda console: show_night(console, summary, ui_command(settings.tracking.uri)))
    _end(summary)


@app.command()
def demo(
    ctx: typer.Context,
    folder: Annotated[str, typer.Option("--folder", help="Where the demo's files go.")] = "demo",
    overrides: Overrides = None,
    prefect: WithPrefect = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Generate a small shop and run the whole pipeline on it; about two minutes, no download.

    Example: [bold]recsys demo --folder demo[/]
    """
    from recsys.pipelines.demo import write_demo
    from recsys.settings.read import load_settings

    show = Show()
    with show.step("generate"):
        config = write_demo(folder)
    settings = load_settings(config, overrides or ())
    summary = _night(settings, config, overrides or [], prefect)

    def told(console: Console) -> None:
        show_examples(console, summary["examples"] or [])
        show_night(console, summary, ui_command(settings.tracking.uri))

    answer(ctx, {**summary, "config": config}, told)
    _end(summary)


def _night(settings: Settings, config: str, overrides: list[str], asked: bool | None) -> dict[str, Any]:
    show = Show()
    prefect = prefect_api.named() if asked is None else asked
    show.say("Starting ..." if prefect else "Starting without Prefect ...")
    from recsys.pipelines.orchestration.launch import run_night

    summary = run_night(settings, config, overrides, show, prefect=prefect)
    if asked is None and not prefect:
        show.say(prefect_api.HINT)
    return summary


def _end(summary: dict[str, Any]) -> None:
    """End with the code of a night that was kept back."""
    if not summary["published"]:
        raise typer.Exit(KEPT_BACK)
