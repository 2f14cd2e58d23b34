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
    history: Annotated[
        str | None, typer.Option("--history", help="Item ids, oldest first, with commas between.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="Instead: a user of the bundle's warehouse.")
    ] = None,
    k: TopK = 10,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Recommend the next items after a history, or to a user of the log.

    Unknown items are left out and named. Rules do not apply here.

    Example: [bold]recsys recommend warehouse/bundles/shop --history i1,i2,i3 -k 10[/]
    """
    if (history is None) == (user is None):
        raise typer.BadParameter("give either --history ITEMS or --user ID")
    from recsys.bundles.store import find_bundle
    from recsys.serving.recommender import open_bundle

    opened = open_bundle(find_bundle(bundle), verify=False)
    if user is not None:
        asked: dict[str, Any] = {"user": user}
        found = opened.answer_user(user, k)
    else:
        items = [item.strip() for item in str(history).split(",") if item.strip()]
        asked, found = {"history": items}, opened.answer(items, k)
    told = {"unknown": found.unknown, "by_fallback": found.by_fallback, "items": found.items}
    show_list(ctx, {"bundle": opened.bundle.label, **asked, **told})


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
    from recsys.bundles.store import find_bundle
    from recsys.serving.recommender import open_bundle

    opened = open_bundle(find_bundle(bundle), verify=False)
    show_list(ctx, {"bundle": opened.bundle.label, "item": item, "items": opened.similar(item, k)})


def show_list(ctx: typer.Context, found: dict[str, Any]) -> None:
    """Show items with titles and scores."""

    def show(console: Console) -> None:
        if unknown := found.get("unknown"):
            console.print(f"[dim]unknown to the bundle and left out: {escape(', '.join(unknown))}[/]")
        if found.get("by_fallback"):
            console.print("[dim]the model can say nothing of this history; this is what sells now[/]")
        for place, item in enumerate(found["items"], 1):
            title = escape(str(item.get("title") or ""))
            console.print(f"{place:>3}  {escape(str(item['item_id']))}  {title}  [dim]{item['score']:.4f}[/]")

    answer(ctx, found, show)
