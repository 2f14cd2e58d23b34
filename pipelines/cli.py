"""The `recsys` command: arguments in, one call of a flow or a function, an answer out.

Nothing heavy is imported here: `recsys --help` must not wait for torch. How a command ends is in `outcome`.
"""

from __future__ import annotations

import platform
import signal
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from recsys.pipelines.console import (
    Output,
    Show,
    capped,
    facts,
    left_out_lines,
    rejected_lines,
    show_examples,
    show_metrics,
    show_night,
    without_candidates,
)
from recsys.pipelines.outcome import STOPPED, outcome
from recsys.pipelines.ui import DEFAULT_STORE, check, page, serve, ui_command
from recsys.storage.addresses import masked

if TYPE_CHECKING:
    from recsys.settings import Settings

_FORMAT = warnings.formatwarning

app = typer.Typer(
    name="recsys",
    epilog="Start with `recsys demo`, or with `recsys init LOG --items FILE` and `recsys run recsys.toml`.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="The configuration, a TOML file.")]
BundlePath = Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")]
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
    bool, typer.Option("--prefect/--no-prefect", help="Let Prefect record the run; its start takes 10 s.")
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
) -> None:
    """Interaction logs and an item catalogue in, a table of next items for every user out, every night."""


STEPS = "Steps of a run, one at a time"
ANSWERS = "Answers from a bundle alone"
HELPERS = "Data and tools"


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
    _answer(ctx, report, lambda console: facts(console, lines))


@app.command()
def run(
    ctx: typer.Context,
    config: Config,
    overrides: Overrides = None,
    prefect: WithPrefect = True,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Do the night's work: ingest, represent, train, evaluate, retrieve, export.

    A run that was killed and is started again goes on after its last finished step, in training after its last
    checkpoint.

    Example: [bold]recsys run recsys.toml --set train.epochs=5[/]
    """
    from recsys.settings.read import load_settings

    settings = load_settings(config, overrides or ())
    summary = _night(settings, config, overrides or [], prefect)
    _answer(ctx, summary, lambda console: show_night(console, summary, ui_command(settings.tracking.uri)))


def _step(
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
    from recsys.pipelines.launch import run_step

    report = run_step(name, settings, config, overrides or [], Show(), **options)
    chosen = {line: _short(report.get(line)) for line in lines}
    if "reasons" in report:
        chosen["rejected"] = "\n".join(rejected_lines(report["reasons"])) or None
    chosen["no candidates"] = without_candidates(report.get("report", {}).get("left_out"))
    chosen["left out"] = "\n".join(left_out_lines(report.get("rows_dropped", {}))) or None

    def told(console: Console) -> None:
        if "baselines" in report:
            show_metrics(console, settings.name, report)
            chosen["repeated targets"] = capped(report["report"])
        facts(console, chosen | {"MLflow UI": ui_command(settings.tracking.uri)})

    _answer(ctx, report, told)


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
    counts = (*read, "corrected", "forgotten", "delisted")
    _step(ctx, "ingest", config, overrides, ("versions", *counts), rebuild=rebuild)


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
        _answer(ctx, report, lambda console: show_preview(console, report))
        return
    if shown is not None:
        raise typer.BadParameter(f"{shown} says how many items --preview shows; add --preview")
    counted = ("items", "encoded", "reused", "truncated", "shortened", "empty", "silent")
    _step(ctx, "represent", config, overrides, ("encoder", *counted))


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
    _step(
        ctx,
        "train",
        config,
        overrides,
        ("bundle", "epochs", "best_epoch", "resumed", "warm_start", "parameters", "seconds"),
    )


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
    from recsys.pipelines.launch import run_step

    report = run_step("pretrain", settings, config, overrides or [], Show())
    from recsys.pipelines.pretrain import rank

    if rank() > 0:  # the first of several processes answers for all
        return
    chosen = {line: _short(report.get(line)) for line in ("folder", "steps", "best_step", "resumed", "seconds")}
    _answer(ctx, report, lambda console: facts(console, chosen | {"MLflow UI": ui_command(settings.tracking.uri)}))


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
    _step(ctx, "evaluate", config, overrides, (), bundle=bundle)


@app.command(rich_help_panel=HELPERS)
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
    _answer(ctx, report, lambda console: show_comparison(console, report))


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
    _step(ctx, "retrieve", config, overrides, ("path", "version", "rows", "users", "k"), bundle=bundle)


@app.command(rich_help_panel=STEPS)
def export(
    ctx: typer.Context,
    config: Config,
    overrides: Overrides = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Bring the copy before the newest one back instead.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Copy the newest candidate table to where downstream services read it.

    Example: [bold]recsys export recsys.toml --set export.path=exports/candidates[/]
    """
    lines = ("path", "version", "instead") if rollback else ("path", "rows", "format", "layout")
    _step(ctx, "export", config, overrides, lines, rollback=rollback)


@app.command(rich_help_panel=ANSWERS)
def recommend(
    ctx: typer.Context,
    bundle: BundlePath,
    history: Annotated[str, typer.Option("--history", help="Item ids, oldest first, with commas between.")],
    k: TopK = 10,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Recommend the next items after a history.

    Example: [bold]recsys recommend warehouse/bundles/shop-1a2b3c --history i1,i2,i3 -k 10[/]
    """
    from recsys.serving.recommender import open_bundle

    items = [item.strip() for item in history.split(",") if item.strip()]
    opened = open_bundle(bundle, verify=False)
    _list(ctx, {"bundle": opened.bundle.label, "history": items, "items": opened.recommend(items, k)})


@app.command(rich_help_panel=ANSWERS)
def similar(
    ctx: typer.Context,
    bundle: BundlePath,
    item: Annotated[str, typer.Option("--item", help="An item id.")],
    k: TopK = 10,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the items most similar to an item.

    Example: [bold]recsys similar warehouse/bundles/shop-1a2b3c --item i1[/]
    """
    from recsys.serving.recommender import open_bundle

    opened = open_bundle(bundle, verify=False)
    _list(ctx, {"bundle": opened.bundle.label, "item": item, "items": opened.similar(item, k)})


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
    _answer(ctx, report, lambda console: show_features(console, report))


@app.command(rich_help_panel=HELPERS)
def forget(
    ctx: typer.Context,
    config: Config,
    users: Annotated[list[str], typer.Option("--user", metavar="ID", help="A user's id in the log; repeatable.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove users from the tables and the export for good, older versions included, and keep them out.

    Example: [bold]recsys forget recsys.toml --user 42 --user 43[/]
    """
    from recsys.pipelines.forget import forget as remove
    from recsys.settings.read import load_settings

    report = remove(load_settings(config, overrides or ()), users)
    lines: dict[str, Any] = {table: f"{rows:,} rows removed" for table, rows in report["removed"].items()}
    lines |= {"export": report["export"], "run records": report["run_states"] or None}
    lines |= {f"note {number}": note for number, note in enumerate(report["notes"], 1)}
    _answer(ctx, report, lambda console: facts(console, lines))


@app.command(rich_help_panel=HELPERS)
def ui(
    ctx: typer.Context,
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="Whose store to open.")] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="A store's address.")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Open MLflow's UI on the project's own store, until Ctrl-C.

    Example: [bold]recsys ui --port 5001[/]
    """
    from recsys.tracking import telemetry

    telemetry.off()
    address, experiment = uri or DEFAULT_STORE, None
    if uri is None and config is not None:
        from recsys.settings.read import load_settings

        settings = load_settings(config)
        address, experiment = settings.tracking.uri, settings.tracking.experiment or settings.name
    check(address, port)
    report = {"url": page(address, port, experiment), "uri": masked(address)}
    lines = {"open": report["url"], "runs": 'choose "Model training" at the top left if they do not show'}
    _answer(ctx, report, lambda console: facts(console, lines | {"stop": "Ctrl-C"}))
    serve(address, port)


@app.command(rich_help_panel=HELPERS)
def demo(
    ctx: typer.Context,
    folder: Annotated[str, typer.Option("--folder", help="Where the demo's files go.")] = "demo",
    overrides: Overrides = None,
    prefect: WithPrefect = True,
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

    _answer(ctx, {**summary, "config": config}, told)


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
    _answer(ctx, asdict(report), lambda console: facts(console, lines))


def main() -> None:
    """The `recsys` command."""
    signal.signal(signal.SIGTERM, _stop)
    warnings.formatwarning = _as_a_sentence
    sys.exit(execute(sys.argv[1:]))


def _as_a_sentence(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
    """A warning for the user without the line of Python that it came from."""
    return f"Warning: {message}\n" if category is FutureWarning else _FORMAT(message, category, *where, **more)


def _stop(*_: object) -> None:
    """End as an exception does: it closes runs, and Prefect's temporary server, which outlives a plain kill."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one must not cut the closing short
    sys.exit(STOPPED)


def execute(arguments: list[str]) -> int:
    """Run the command with arguments; returns the exit code: 0, 1 (the job failed) or 2 (wrong input)."""
    return outcome(app, arguments)


def _answer(ctx: typer.Context, value: Any, show: Callable[[Console], None]) -> None:
    output = ctx.obj if isinstance(ctx.obj, Output) else Output(answers=sys.stdout)
    output.answer(value, show)


def _night(settings: Settings, config: str, overrides: list[str], prefect: bool) -> dict[str, Any]:
    show = Show()
    show.say("Starting ..." if prefect else "Starting without Prefect ...")
    from recsys.pipelines.launch import run_night

    return run_night(settings, config, overrides, show, prefect=prefect)


def _list(ctx: typer.Context, found: dict[str, Any]) -> None:
    """Show items with titles and scores."""

    def show(console: Console) -> None:
        for place, item in enumerate(found["items"], 1):
            title = escape(str(item.get("title") or ""))
            console.print(f"{place:>3}  {escape(str(item['item_id']))}  {title}  [dim]{item['score']:.4f}[/]")

    _answer(ctx, found, show)


def _short(value: Any) -> Any:
    """A report's entry on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items() if item is not None) or None
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or None
    return f"{value:.4f}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
