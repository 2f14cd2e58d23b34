"""The service: `serve`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from recsys.pipelines import collecting
from recsys.pipelines.commands.base import ANSWERS, AsJson, Debug, Overrides, answer, app


@app.command(rich_help_panel=ANSWERS)
def serve(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A configuration, whose champion is followed; or a bundle as `recommend` takes it."
        ),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes; each opens the bundle.")] = 1,
    poll: Annotated[
        float, typer.Option("--poll", min=0.05, max=86400, help="Seconds between two looks at what is to be served.")
    ] = 5.0,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Answer other machines although RECSYS_TOKEN is not set.")
    ] = False,
    max_body: Annotated[int, typer.Option("--max-body", min=100, help="Bytes of a request.")] = 1_000_000,
    max_k: Annotated[int, typer.Option("--max-k", min=10, help="Items of an answer.")] = 1_000,
    max_history: Annotated[int, typer.Option("--max-history", min=1, help="Events of a history.")] = 5_000,
    max_queries: Annotated[int, typer.Option("--max-queries", min=1, help="Queries of a batch.")] = 1_000,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Answer over HTTP: next items by the bundle that is served, rows of the candidate table, similar items.

    A new champion is switched in without a failed request. RECSYS_TOKEN in the environment is the bearer token that
    requests need; without it only this machine is answered.

    Example: [bold]recsys serve recsys.toml --port 8000[/]
    """
    from recsys.service.limits import Limits
    from recsys.service.run import ServiceOptions, run

    collecting.seldom()
    options = ServiceOptions(
        name=name,
        overrides=tuple(overrides or ()),
        host=host,
        port=port,
        no_token=no_token,
        poll=poll,
        workers=workers,
        limits=Limits(body=max_body, k=max_k, history=max_history, queries=max_queries),
    )
    run(options, lambda of: answer(ctx, asdict(of), lambda console: console.print(of.sentence)))
