"""status: the last nights, what is served, what a stopped night has done, and the disk that all takes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys import runs
from recsys.backtest.tables import FOLDER as REPLAYS
from recsys.bundles.mirror import address, bundles_folder
from recsys.evaluation.users import FOLDER as EVALUATIONS
from recsys.observe.figures import NDCG
from recsys.pipelines.terminal.console import facts
from recsys.releases.record import champion
from recsys.report.files import FOLDER as REPORTS
from recsys.retention.folders import size_of
from recsys.retention.kept import name_of
from recsys.running import short
from recsys.runs import RunState, local_folder
from recsys.settings import Settings
from recsys.storage.remote import is_url

METRIC = NDCG  # that the list shows
MIB, GIB = 2**20, 2**30


def status(settings: Settings, nights: int) -> dict[str, Any]:
    """Report on a configuration's nights, as their records tell, and on its files; nothing is opened or changed.

    Parameters
    ----------
    nights
        How many of the newest to list.
    """
    folder = runs.state_folder(settings.warehouse)
    own = [state for state in runs.states(folder) if (name_of(state) or settings.name) == settings.name]
    served = champion(settings)
    return {
        "name": settings.name,
        "served": None
        if served is None
        else {
            "run": served.run,
            "at": served.at,
            "days": round((datetime.now(UTC) - datetime.fromisoformat(served.at)).total_seconds() / 86_400, 2),
            "bundle": address(served.bundle),
            "by": served.by,
            METRIC: served.metrics.get(METRIC),
        },
        "nights": [_night(state) for state in own[:nights]],
        "recorded": len(own),
        "disk": disk(settings),
        "unsent": sum(1 for path in (folder / "unsent").rglob("*") if path.is_file()),
    }


def _night(state: RunState) -> dict[str, Any]:
    """A night in a line."""
    reports = {name: done["report"] for name, done in state.steps.items()}
    verdict, metrics = reports.get("judge", {}), reports.get("evaluate", {}).get("metrics", {})
    peaks = {name: done["peak_bytes"] for name, done in state.steps.items() if done.get("peak_bytes")}
    return {
        "run": state.run_id,
        "started": state.started,
        "state": _state(state, verdict),
        "sentence": state.error or verdict.get("sentence"),
        "seconds": round(_seconds(state)),
        "by_step": {name: done["seconds"] for name, done in state.steps.items()},
        "peak_bytes": max(peaks.values(), default=None),
        "over_budget": [one["sentence"] for done in state.steps.values() for one in done.get("over", ())],
        "new_events": reports.get("ingest", {}).get("rows_added", {}).get("interactions"),
        "rows": reports.get("retrieve", {}).get("rows"),
        METRIC: metrics.get(METRIC),
    }


def _seconds(state: RunState) -> float:
    """The night's time, as its command told it; of its steps alone where it has not ended."""
    return state.seconds if state.seconds is not None else float(sum(done["seconds"] for done in state.steps.values()))


def _state(state: RunState, verdict: dict[str, Any]) -> str:
    if state.status != "finished":
        after = list(state.steps)[-1:] or ["the start"]
        return f"{'failed' if state.status == 'failed' else 'stopped or running'} after {after[0]}"
    return "published" if verdict.get("passed", True) else "kept back"


def disk(settings: Settings) -> dict[str, int]:
    """Bytes by kind of what lies on this machine; a warehouse in a store keeps its tables there."""
    local = local_folder(settings.warehouse)
    known = {
        "bundles": bundles_folder(settings.warehouse),
        "reports": local / REPORTS,
        "values per user": local / EVALUATIONS,
        "backtests": local / REPLAYS,
        "records": runs.state_folder(settings.warehouse),
    }
    found = {kind: size_of(path) for kind, path in known.items()}
    if not is_url(settings.warehouse):
        root = Path(settings.warehouse)
        found["tables"] = size_of(root) - sum(found.values())
    return found


def _ago(days: float) -> str:
    """Say how long ago something was.

    >>> _ago(0.01), _ago(2.34)
    ('today', '2.3 days')
    """
    return "today" if days < 0.05 else f"{days:.1f} days"


def show_status(console: Console, report: dict[str, Any]) -> None:
    """Show the nights as a table, then the served release and the disk."""
    table = Table(title=f"nights of {escape(report['name'])}, the newest first", title_justify="left")
    for column in ("started (UTC)", "run", "state"):
        table.add_column(column, no_wrap=column != "state")
    for column in ("minutes", "peak GiB", "new events", "rows", METRIC):
        table.add_column(column, justify="right")
    table.add_column("what it says", overflow="fold")
    for night in report["nights"]:
        peak = night["peak_bytes"]
        table.add_row(
            night["started"][:16].replace("T", " "),
            escape(short(night["run"])),
            night["state"],
            f"{night['seconds'] / 60:.1f}{' over' if night['over_budget'] else ''}",
            "–" if peak is None else f"{peak / GIB:.1f}",
            *("–" if night[key] is None else f"{night[key]:,}" for key in ("new_events", "rows")),
            "–" if night[METRIC] is None else f"{night[METRIC]:.4f}",
            escape("\n".join(filter(None, [night["sentence"], *night["over_budget"]]))),
        )
    if report["nights"]:
        console.print(table)
    else:
        console.print(f"No night of {escape(report['name'])} is recorded; `recsys run CONFIG` does one.")
    served = report["served"]
    disk = ", ".join(f"{kind} {size / MIB:,.1f}" for kind, size in report["disk"].items() if size)
    facts(
        console,
        {
            "served": None
            if served is None
            else f"{short(served['run'])} since {served['at'][:16].replace('T', ' ')} UTC ({_ago(served['days'])}), "
            f"bundle {served['bundle']}",
            "disk, MiB": disk or None,
            "not sent to MLflow": f"{report['unsent']} files" if report["unsent"] else None,
        },
    )
