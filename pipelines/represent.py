"""Represent: each distinct item sentence becomes a text vector, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recsys import runs
from recsys.compute.choice import check_compute
from recsys.pipelines.steps import (
    Run,
    as_function,
    compute_task,
    newest_versions,
    numbers,
    step_run,
)
from recsys.pipelines.terminal.console import facts
from recsys.pipelines.watch import watch
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.text import represent as text
from recsys.text.preview import preview
from recsys.tracking import log as tracking

SHOWN_CHARACTERS = 400  # of one attribute in a preview's table; JSON has all
COUNTS = ("items", "encoded", "reused", "truncated", "shortened", "empty")


def represent(settings: Settings, versions: TableVersions, parent: str | None = None) -> dict[str, Any]:
    """Encode the sentences that the `item_vectors` table does not hold yet."""
    with step_run(settings, "represent", parent, versions) as step:
        report = step.done(text.represent(settings, versions, watch().advance))
        metrics = numbers(report, COUNTS)
        tracking.log_metrics(step.store, step.run_id, {f"represent/{name}": n for name, n in metrics.items()})
    return report


represent_task = compute_task(represent)


def represent_alone(settings: Settings, run: Run = as_function) -> dict[str, Any]:
    """Encode the sentences of the newest tables."""
    with runs.locked(settings.warehouse):
        check_compute(settings)
        return run(represent_task, settings, newest_versions(settings))


def represent_preview(settings: Settings, shown: int) -> dict[str, Any]:
    """Sentences of so many items of the newest tables; nothing is encoded or written."""
    return preview(settings, newest_versions(settings), shown)


def show_preview(console: Console, report: Mapping[str, Any]) -> None:
    """A row an attribute of an item; what the encoder will not read is red, between scissors."""
    for item in report["shown"]:
        state = "no text" if not item["attributes"] else f"{item['tokens']:,} tokens" + (", cut" if item["cut"] else "")
        table = Table(title=f"{item['item_id']}: {state}", title_justify="left", expand=True)
        table.add_column("attribute")
        table.add_column("tokens", justify="right")
        table.add_column("text", ratio=1, overflow="fold")
        for attribute in item["attributes"]:
            table.add_row(Text(attribute["name"]), f"{attribute['tokens']:,}", _visible(attribute))
        console.print(table)
    words = report["attribute_words"]
    facts(
        console,
        {
            "encoder": f"{report['model']}, {report['dimensions']} dimensions, up to {report['max_tokens']} tokens",
            "prompt": report["prompt"] or None,
            "items": f"{report['items']:,}, {report['empty']:,} of them without text",
            "shortened": None if words is None else f"{report['shortened']:,} items, to {words} words an attribute",
        },
    )


def _visible(attribute: Mapping[str, str]) -> Text:
    text = Text(_middle(attribute["kept"]))
    for name, why in (("unread", "beyond text.max_tokens"), ("dropped", "beyond text.attribute_words")):
        if attribute[name]:
            text.append(f" ✂ {why}: {_middle(attribute[name])} ✂", style="red")
    return text


def _middle(text: str) -> str:
    """The text, without its middle where it is long."""
    half = SHOWN_CHARACTERS // 2
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:half]} … {len(text) - 2 * half:,} characters … {text[-half:]}"
