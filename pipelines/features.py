"""`recsys features`: what each feature takes of the multiplexed table. A report, no flow: nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from recsys.models.registry import estimator_for
from recsys.pipelines.steps import newest_versions
from recsys.pipelines.terminal.console import facts
from recsys.settings import Settings

MEGABYTE: Final = 1_000_000


def features(settings: Settings, memory: float | None) -> dict[str, Any]:
    """The report on the newest tables."""
    return estimator_for(settings).feature_report(newest_versions(settings), memory)


def show_features(console: Console, report: Mapping[str, Any]) -> None:
    """A table of the features, one of memory budgets, and the suggestion as settings."""
    of = report["table"]
    size = f"{of['rows']:,} rows x {of['width']} = {_size(of['bytes'])}, {of['used_share']:.0%} of the rows in use"
    table = Table(title=f"{report['name']}: features of one table, {size}", title_justify="left")
    table.add_column("feature")
    for column in ("values", "look-ups", "rows", "size", "intra", "inter", "confused", "unseen"):
        table.add_column(column, justify="right")
    for use in report["features"]:
        collisions = [_counted(use[name], use[f"{name}_expected"]) for name in ("intra", "inter", "confused")]
        cells = [f"{use[name]:,}" for name in ("values", "lookups", "rows")]
        table.add_row(use["feature"], *cells, _size(use["bytes"]), *collisions, f"{use['unseen']:,}")
    console.print(table)
    console.print(
        "Counted, and expected by chance in brackets. intra: look-ups that meet another value of the feature; inter: "
        "that meet another feature, or look-up, which the model learns to tell apart; confused: values that share all "
        "their rows; unseen: look-ups of values that the training part lacks, of items nobody has touched and of the "
        "users and events of the test histories.\n"
    )
    budgets = Table(title="fewest look-ups that leave less than one value confused", title_justify="left")
    for column in ("memory", "share", "id look-ups", "attribute look-ups", "rows", "confused, expected"):
        budgets.add_column(column, justify="right")
    for entry in report["budgets"]:
        budgets.add_row(_size(entry["bytes"]), f"{entry['share']:.2f}", *_suggestion(entry))
    console.print(budgets)
    suggestion = report["suggestion"]
    chosen = [
        f"--set model.{name}={suggestion[name]}"
        for name in ("id_lookups", "attribute_lookups", "table_rows")
        if suggestion[name] is not None
    ]
    facts(console, {f"for {_size(suggestion['memory'])}": " ".join(chosen)})


def _suggestion(entry: Mapping[str, Any]) -> list[str]:
    lookups = ["–" if entry[name] is None else str(entry[name]) for name in ("id_lookups", "attribute_lookups")]
    return [*lookups, f"{entry['table_rows']:,}", f"{sum(entry['confused_expected'].values()):.1f}"]


def _counted(count: int, expected: float) -> str:
    return f"{count:,} ({expected:,.1f})"


def _size(count: float) -> str:
    return f"{count / MEGABYTE:,.2f} MB" if count >= MEGABYTE / 10 else f"{count / 1_000:,.1f} kB"
