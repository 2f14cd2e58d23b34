"""Releases: the list of what was served. It reads records, and needs neither torch nor MLflow nor Prefect."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys.bundles.mirror import address
from recsys.columns import metric_name
from recsys.releases.choice import built_runs, lack
from recsys.releases.record import Release, champion, read
from recsys.running import short
from recsys.settings import Settings
from recsys.storage.intact import naming_damage

METRIC = f"test/{metric_name('ndcg', 10)}"  # that the list shows


def releases(settings: Settings) -> dict[str, Any]:
    """All that was served, the newest first, with what can come back, and runs that were built and not served."""
    with naming_damage(settings.warehouse):
        record = read(settings)
        listed, served = record.releases, champion(settings)
        rows = []
        for place in reversed(range(len(listed))):
            now = place == len(listed) - 1
            rows.append({**asdict(listed[place]), "now": now, "lack": None if now else lack(settings, listed[place])})
        known = {one.run for one in listed}
        kept = [
            {
                "run": one.run,
                "bundle": address(one.bundle),
                "metrics": one.reports.get("evaluate", {}).get("metrics", {}),
            }
            for one in built_runs(settings)
            if one.run not in known
        ]
    return {
        "name": settings.name,
        "served": None if served is None else served.run,
        "releases": rows,
        "kept_back": kept,
        "unfinished": None if record.switching is None else Release.read(record.switching["release"]).run,
    }


def show_releases(console: Console, report: dict[str, Any]) -> None:
    """A line a release, the newest first."""
    if not report["releases"]:
        console.print(
            f"Nothing of {escape(report['name'])} is served yet; `recsys run CONFIG` makes the first release."
        )
    else:
        table = Table(title=f"releases of {escape(report['name'])}, the newest first", title_justify="left")
        for column in ("", "run", "served from (UTC)", "by"):
            table.add_column(column, no_wrap=column == "run")
        table.add_column(METRIC, justify="right")
        for column in ("verdict", "why", "can come back"):
            table.add_column(column, overflow="fold")
        for one in report["releases"]:
            value = one["metrics"].get(METRIC)
            by = one["by"] if one["who"] is None else f"{one['by']} ({one['who']})"
            state = "served now" if one["now"] else "no: " + one["lack"] if one["lack"] else "yes"
            table.add_row(
                "→" if one["now"] else "",
                escape(one["run"]),
                escape(one["at"][:16].replace("T", " ")),
                escape(by),
                "–" if value is None else f"{value:.4f}",
                escape(one["verdict"] or ""),
                escape(one["why"] or ""),
                escape(state),
            )
        console.print(table)
    for one in report["kept_back"]:
        console.print(
            f"Built and not served: {escape(one['run'])}; `recsys promote CONFIG {escape(short(one['run']))} "
            "--why TEXT` serves it.",
            soft_wrap=True,
        )
    if report["unfinished"]:
        console.print(
            f"A switch to {escape(report['unfinished'])} was stopped; the same command, or the next night, goes on."
        )
