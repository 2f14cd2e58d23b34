"""The prices of rules, as the terminal, Markdown and MLflow show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from recsys.evaluation.prices import ALL
from recsys.tracking import log as tracking


def price_table(priced: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return columns of text, a row a rule.

    >>> ndcg = {"with": 0.1, "without": 0.12, "difference": -0.02, "low": -0.03, "high": -0.01}
    >>> row = {"name": "stock", "kind": "only", "ndcg_at_10": ndcg, "hr_at_10": ndcg, "moved": 50, "rows": 200}
    >>> {name: values[0] for name, values in price_table({"prices": [row]}).items()}["rows moved"]
    '50 of 200 (25.0%)'
    """
    found: dict[str, list[str]] = {}
    for row in priced["prices"]:
        ndcg = row["ndcg_at_10"]
        cells = {
            "rule": f"{row['name']} ({row['kind']})" if row["kind"] else row["name"],
            "NDCG@10 with": f"{ndcg['with']:.4f}",
            "without": f"{ndcg['without']:.4f}",
            "difference": "{difference:+.4f} ({low:+.4f} to {high:+.4f})".format(**ndcg),
            "HR@10": f"{row['hr_at_10']['difference']:+.4f}",
            "rows moved": f"{row['moved']:,} of {row['rows']:,} ({row['moved'] / max(1, row['rows']):.1%})",
        }
        for name, cell in cells.items():
            found.setdefault(name, []).append(cell)
    return found


def show_prices(console: Console, priced: Mapping[str, Any] | None) -> None:
    """Show a row a rule; nothing where there is none."""
    if not priced:
        return
    columns = price_table(priced)
    title = f"price of each rule, lists of {priced['k']} for {priced['questions']:,} questions of the test part"
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name == "rule" else "right")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    console.print(table)


def price_markdown(priced: Mapping[str, Any] | None) -> list[str]:
    """Return lines of Markdown; none where there is no rule."""
    return ["", tracking.markdown_table(dict(price_table(priced))), ""] if priced else []


def price_metrics(priced: Mapping[str, Any]) -> dict[str, float]:
    """Return a rule's differences and its share of moved rows, as MLflow names them."""
    found: dict[str, float] = {}
    for row in priced["prices"]:
        name = "rules/all" if row["name"] == ALL else f"rules/{tracking.metric_part(row['name'])}"
        for metric in ("ndcg_at_10", "hr_at_10"):
            found[f"{name}/{metric}_difference"] = row[metric]["difference"]
        found[f"{name}/moved_share"] = row["moved"] / max(1, row["rows"])
    return found
