"""Answers from a bundle alone: `recommend`, `similar`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from recsys.pipelines.commands.base import (
    ANSWERS,
    AsJson,
    BundlePath,
    Debug,
    TopK,
    answer,
    app,
)


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
    show_list(ctx, {"bundle": opened.bundle.label, "history": items, "items": opened.recommend(items, k)})


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
    show_list(ctx, {"bundle": opened.bundle.label, "item": item, "items": opened.similar(item, k)})


def show_list(ctx: typer.Context, found: dict[str, Any]) -> None:
    """Show items with titles and scores."""

    def show(console: Console) -> None:
        for place, item in enumerate(found["items"], 1):
            title = escape(str(item.get("title") or ""))
            console.print(f"{place:>3}  {escape(str(item['item_id']))}  {title}  [dim]{item['score']:.4f}[/]")

    answer(ctx, found, show)
