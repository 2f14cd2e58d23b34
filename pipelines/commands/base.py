"""Shared by every command: the application, its arguments, and how an answer is told.

Nothing heavy is imported here, nor in the other modules of this folder: `recsys --help` must not wait for torch.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from recsys.observe.lines import VARIABLE, Format, log
from recsys.pipelines.terminal.console import Output

app = typer.Typer(
    name="recsys",
    epilog="Start with `recsys demo`, or with `recsys init LOG --items FILE` and `recsys run recsys.toml`.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# the panels of `recsys --help`
STEPS: Final = "Steps of a run, one at a time"
DECIDE: Final = "Compare and decide"
ANSWERS: Final = "Answers from a bundle alone"
UPKEEP: Final = "Look after it"
HELPERS: Final = "Data and tools"

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="The configuration, a TOML file.")]
BundlePath = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle's folder; without its hash the newest of that name.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as train.epochs=5; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
ChosenBundle = Annotated[
    str | None,
    typer.Option("--bundle", metavar="FOLDER", help="A bundle's folder; the newest one otherwise."),
]
WithPrefect = Annotated[
    bool | None,
    typer.Option(
        "--prefect/--no-prefect",
        help="Let Prefect record the run: by default where PREFECT_API_URL or a profile names its server; "
        "--prefect otherwise starts a temporary one, which takes 10 s.",
    ),
]
TopK = Annotated[int, typer.Option("-k", "--top", min=1, help="How many items.")]


def _version(asked: bool) -> None:
    """Print the versions that a bug report needs, and end."""
    if asked:
        numbers = {name: version(name) for name in ("torch", "polars", "faiss-cpu", "mlflow", "prefect")}
        shown = ", ".join(f"{name} {number}" for name, number in numbers.items())
        own = version("recsys")
        print(f"recsys {own} (Python {platform.python_version()}, {shown})")  # noqa: T201 - an answer
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
    log_format: Annotated[
        Format,
        typer.Option("--log-format", envvar=VARIABLE, help="Of progress on stderr; auto: JSON where no terminal is."),
    ] = "auto",
) -> None:
    """Interaction logs and an item catalogue in, a table of next items for every user out, every night."""
    log.choose(log_format)


def answer(ctx: typer.Context, value: Any, show: Callable[[Console], None]) -> None:
    """Answer with one JSON object where --json asks for it, else with what `show` prints."""
    output = ctx.obj if isinstance(ctx.obj, Output) else Output(answers=sys.stdout)
    output.answer(value, show)


def short(value: Any) -> Any:
    """A report's entry on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {short(item)}" for key, item in value.items() if item is not None) or None
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or None
    return f"{value:.4f}" if isinstance(value, float) else value
