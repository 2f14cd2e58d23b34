"""Views of a backtest for people: MLflow runs under one, a plot of the curve, and tables in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys.backtest.measure import FORMER
from recsys.backtest.report import numbers_of
from recsys.evaluation import plots
from recsys.pipelines.terminal.console import facts
from recsys.tracking import log as tracking


def log_night(store: tracking.Store, run: str, parent: str, figures: Mapping[str, Any]) -> None:
    """Log a night to its own run, and as a point of each curve to the run above."""
    tracking.log_metrics(store, run, numbers_of(figures, every=True))
    tracking.log_metrics(store, parent, numbers_of(figures, every=False), step=int(figures["number"]))
    tracking.log_text(store, run, "night.json", json.dumps(figures, indent=1))


def log_whole(store: tracking.Store, run: str, report: Mapping[str, Any]) -> None:
    """Log means, the plot of the curve, and the report to the run above those of the nights."""
    found = {
        f"all_nights/{name.replace('+', '_')}/{metric}": value["mean"]
        for name, metrics in report["means"].items()
        for metric, value in metrics.items()
    }
    tracking.log_metrics(store, run, found)
    tracking.log_text(store, run, "backtest.json", json.dumps(report, indent=1))
    notes = [f"- {note}" for note in report["notes"]]
    markdown = "\n".join([report["verdict"], "", means_markdown(report), "", *notes])
    tracking.log_text(store, run, "report.md", markdown)
    tracking.describe(store, run, markdown)
    if report["measured"] and report["means"]:
        tracking.log_figure(store, run, "plots/nights.png", figure_of(report))


def figure_of(report: Mapping[str, Any]) -> Any:
    """The curve over nights, and the differences to yesterday's table, to the best baseline and to variants."""
    curve, metric = report["curve"], report["metric"]
    means = report["means"]
    there = [name for name in report["baselines"] if name in means]
    best = sorted(there, key=lambda name: -means[name][metric]["mean"])[:3]
    first, *others = report["variants"]
    names = [name for name in (first, FORMER, *others, *best) if name in curve["values"]]
    beside = [name for name in (FORMER, *others, *best[:1]) if name in names]
    tests = {
        name: [figures["differences"].get(name, {}).get(metric) for figures in report["nights"]] for name in beside
    }
    return plots.plot_nights(curve["nights"], {name: curve["values"][name] for name in names}, tests, metric)


def means_markdown(report: Mapping[str, Any]) -> str:
    """Means over all nights, and the paired difference of what was served, as a markdown table."""
    metric, means = report["metric"], report["means"]
    names = list(means)
    tests = [report["differences"].get(name, {}).get(metric) for name in names]
    columns: dict[str, list[Any]] = {"ranker": names}
    for key in next(iter(means.values()), {}):
        columns[key] = [f"{means[name][key]['mean']:.4f}" for name in names]
    columns[f"{report['reference']} minus it, {metric}"] = [
        "" if one is None else f"{one['mean']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]" for one in tests
    ]
    return tracking.markdown_table(columns)


def show_backtest(console: Console, report: Mapping[str, Any]) -> None:
    """A line a night, the means over all of them, the notes and the verdict."""
    metric, names = report["metric"], list(report["curve"]["values"])
    title = f"{report['name']}: {metric.replace('_at_', '@')} of users with a history, windows of {report['every']}"
    table = Table(title=escape(title), title_justify="left")
    for name in ("night", "asked", "new", "with a list"):
        table.add_column(name, justify="left" if name == "night" else "right")
    for name in names:
        table.add_column(escape(name), justify="right", overflow="fold")
    for place, figures in enumerate(report["nights"]):
        window = figures["window"]
        served = figures["rankers"].get(report["reference"], {})
        listed = f"{served['coverage_users']:.0%}" if served else "–"
        curve = [report["curve"]["values"][name][place] for name in names]
        numbers = ["–" if value is None else f"{value:.4f}" for value in curve]
        table.add_row(figures["night"], f"{window['asked']:,}", f"{window['new_users']:,}", listed, *numbers)
    console.print(table)
    whole = Table(title="over all nights", title_justify="left")
    whole.add_column("ranker", overflow="fold")
    measures = list(next(iter(report["means"].values()), {}))
    for name in measures:
        whole.add_column(name.replace("_at_", "@"), justify="right")
    whole.add_column(f"{report['reference']} minus it [95%]", justify="right")
    for name, means in report["means"].items():
        one = report["differences"].get(name, {}).get(metric)
        minus = "" if one is None else f"{one['mean']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
        whole.add_row(escape(name), *(f"{means[key]['mean']:.4f}" for key in measures), minus)
    console.print(whole)
    for note in report["notes"]:
        console.print(escape(note), soft_wrap=True)
    facts(console, {"results": report["folder"], "MLflow run": report["mlflow"]["link"]})
    console.print(f"[bold]{escape(report['verdict'])}[/]", soft_wrap=True)
