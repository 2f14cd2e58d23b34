"""Report: the page of a night, from the night's record alone."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from recsys import runs
from recsys.errors import InputError
from recsys.pipelines.steps import compute_task, tracked
from recsys.pipelines.terminal.console import facts, without_secrets
from recsys.pipelines.watch import watch
from recsys.report.files import FOLDER, LATEST, page_of, pseudonyms, write_page
from recsys.report.page import page
from recsys.running import named
from recsys.settings import Settings
from recsys.tracking import log as tracking

ARTIFACT: Final = "report.html"


def report(settings: Settings, night: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Make the page of a night's record, in the warehouse and as an artifact of its MLflow run.

    A page that cannot be made costs no night: it is said, and `recsys report` makes it again.
    """
    try:
        path, content = _make(settings, night)
        with tracked(settings) as store:
            tracking.log_text(store, run_id, ARTIFACT, content)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        watch().warn(f"The report page could not be made ({told}); try again with `recsys report`.")
        return {"path": None, "latest": None, "error": told, "name": night["name"], "about": night["about"]}
    latest = path.parent / LATEST
    return {"path": path.as_posix(), "latest": latest.as_posix(), "name": night["name"], "about": night["about"]}


report_task = compute_task(report)


def report_alone(settings: Settings, run: str | None = None) -> dict[str, Any]:
    """Make the page of a run again from its record, by default of the newest that was evaluated.

    Where the record of a run has been followed by a later one, its page of then is found.

    Raises
    ------
    InputError
        There is neither a record nor a page.
    """
    folder = runs.state_folder(settings.warehouse)
    own = [state for state in runs.states(folder) if _name_of(state) in (None, settings.name)]
    meant = None if run is None else named(run, (state.run_id for state in own))
    found = [state for state in own if ("evaluate" in state.steps if meant is None else state.run_id in meant)]
    if found and (run is None or len({state.run_id for state in found}) == 1):
        state = found[0]
        path, _ = _make(settings, night_record(settings, state))
        return {"path": path.as_posix(), "run": state.run_id, "made": True}
    pages = reports_folder(settings.warehouse) / settings.name
    earlier = None if run is None else page_of(pages, run)
    if earlier is not None:
        return {"path": earlier.as_posix(), "run": earlier.stem.partition("-")[2], "made": False}
    if len(found) > 1:
        raise InputError(f"Several runs begin with {run!r}; give more of the id.")
    which = f"the run {run!r} of {settings.name!r}" if run else f"a run of {settings.name!r} that was evaluated"
    raise InputError(f"{folder} has no record of {which}, and {pages} no page of it; check the id, or `recsys run`.")


def night_record(settings: Settings, state: runs.RunState, link: str | None = None) -> dict[str, Any]:
    """Return what the page shows of a state: the steps' reports, the verdict, and what they were made with."""
    known = state.steps.get("report", {}).get("report", {})
    ingested = state.steps.get("ingest", {}).get("report", {})
    digests = ingested.get("digests")
    about = known.get("about") or {
        "kind": settings.model.kind,
        "seed": settings.seed,
        "settings": settings.digest(),
        "program": f"recsys {version('recsys')}, code {runs.code_version()[:12]}" if link else None,
        "git": _commit() if link else None,  # of now, not of when an older record was made
        "data_digest": runs.digest_of(digests) if digests else None,
        "mlflow": link,
    }
    judged = state.steps.get("judge", {}).get("report", {})
    record = asdict(state) | {"name": settings.name, "verdict": judged.get("verdict") or judged or None, "about": about}
    record["steps"] = {name: done for name, done in record["steps"].items() if name != "report"}
    return dict(without_secrets(record))


def reports_folder(warehouse: str) -> Path:
    """Folder of a warehouse's pages: in it, or beside its run states where it is not a local folder."""
    return runs.local_folder(warehouse) / FOLDER


def show_report(console: Console, report: Mapping[str, Any]) -> None:
    """Show where the page is, and whether it was made now."""
    facts(console, {"run": report["run"], "report": report["path"]})


def _make(settings: Settings, night: Mapping[str, Any]) -> tuple[Path, str]:
    called = str if settings.report.show_user_ids else pseudonyms(runs.state_folder(settings.warehouse))
    content = page(night, called)
    folder = reports_folder(settings.warehouse) / settings.name
    return write_page(folder, night["started"], night["run_id"], content), content


def _name_of(state: runs.RunState) -> str | None:
    """Return the configuration's name of a state; None where it is too old, or ended too early, to tell."""
    name = state.steps.get("report", {}).get("report", {}).get("name")
    bundle = state.steps.get("train", {}).get("report", {}).get("bundle")
    return name or (Path(bundle).name.rpartition("-")[0] if bundle else None)


def _commit() -> str | None:
    """Return the commit of the program's own checkout; None where it is installed without one."""
    git, own = shutil.which("git"), Path(runs.__file__).resolve().parent
    if git is None or not (own.parent / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = [git, "-C", str(own), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(told, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    return None
