"""Tune: trials of a configuration's settings, measured on validation alone; the best become a configuration."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys.data.prepare import few_users, prepare
from recsys.errors import InputError, RecsysError
from recsys.models.registry import estimator_for
from recsys.pipelines.steps import newest_versions, plain, tracked
from recsys.pipelines.terminal.console import facts
from recsys.pipelines.watch import watch
from recsys.running import running
from recsys.settings import Settings
from recsys.storage.locks import Held, lock_file
from recsys.tracking import log as tracking
from recsys.tuning.space import shown, space_of, with_values
from recsys.tuning.study import Observer, Search, SearchReport, Trial, folder_of, open_search
from recsys.tuning.trial import without_test
from recsys.tuning.tuned import check_output, lines, write_tuned

_UNITS: Final = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_SHOWN: Final = 5  # trials in the answer's table


def tune(
    settings: Settings,
    config: str,
    overrides: Sequence[str] = (),
    *,
    trials: int = 50,
    timeout: str | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """Search for better settings by trials that are measured on validation; the same call goes on.

    Parameters
    ----------
    settings, config, overrides
        The settings, and the file and overrides that they were read from.
    trials
        Finished ones in all, of earlier calls as well.
    timeout
        Such as "2h" or "90m"; None: no limit.
    output
        The configuration to write; None: beside `config`, its name with "-tuned".

    Returns
    -------
    dict
        The search's report, the path `written` and the lines of the best `settings`.

    Raises
    ------
    InputError
        The space has a key that there is not, nothing has been ingested, or the configuration cannot be trained.
    RecsysError
        Another search of this name is running.
    """
    seconds = math.inf if timeout is None else seconds_of(timeout)
    place = Path(config)
    target = place.with_name(f"{place.stem}-tuned.toml") if output is None else Path(output)
    if target.resolve() == place.resolve():
        raise InputError(f"--output {target} is the configuration itself; name another file.")
    check_output(target)
    display = watch()
    if settings.train.warm_start == "previous":  # it may know what is asked, and another night changes it
        settings = with_values(settings, {"train.warm_start": None})
        display.say("Trials begin from nothing, not from the previous bundle.")
    space = space_of(settings)
    versions = newest_versions(settings)
    with _alone(settings), tracked(settings) as store:
        dataset = without_test(few_users(prepare(settings, versions), settings.train.users, settings.seed))
        with open_search(settings, versions, space, dataset) as search:
            earlier = len(search.finished)
            if earlier:
                display.say(f"The search goes on after {earlier} trials.")
            with _mlflow_run(store, settings, search, plain(versions)) as run_id:
                report = search.go_on(trials, seconds=seconds, observer=_Told(store, run_id, settings, trials))
                if report.best is not None:
                    write_tuned(place, overrides, settings, report, report.best, target)
                _log_result(store, run_id, report, target)
    answer: dict[str, Any] = plain(report)
    best = report.best
    return {
        **answer,
        "written": None if best is None else target.as_posix(),
        "settings": None if best is None else lines(best.values),
        "mlflow_run": run_id,
    }


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration such as "2h", "1h30m", "90m" or "45s".

    Raises
    ------
    InputError
        It is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([dhms])", duration.lower())
    if not parts or "".join("".join(part) for part in parts) != re.sub(r"\s", "", duration.lower()):
        raise InputError(f"--timeout {duration} is no duration; write one such as 2h, 90m or 1h30m.")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise InputError(f"--timeout {duration} leaves no time; give some, or leave it out.")
    return seconds


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Keep a second search of this name out; nights may go on meanwhile."""
    folder = folder_of(settings.warehouse)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = contextlib.ExitStack()
        held.enter_context(lock_file(folder / f"{settings.name}.lock"))
    except OSError as error:
        raise RecsysError(f"The folder {folder} of searches cannot be written: {error.strerror}.") from None
    except Held as holder:
        process = f" (process {holder})" if str(holder) else ""
        raise RecsysError(
            f"Another search{process} of {settings.name!r} is running in {settings.warehouse}; wait for it."
        ) from None
    with held:
        yield


class _Told(Observer):
    """Trials as nested MLflow runs and lines of progress."""

    def __init__(self, store: tracking.Store, parent: str, settings: Settings, trials: int) -> None:
        self.store, self.parent, self.settings, self.trials = store, parent, settings, trials
        self.display, self.run = watch(), ""
        self.planned: int | None = None  # epochs of the trial

    def began(self, trial: Trial) -> None:
        tags = {tracking.STEP_TAG: "trial", tracking.PARENT_TAG: self.parent}
        self.run = tracking.start_run(self.store, f"trial {trial.number + 1}", tags)
        values = {key: value if isinstance(value, str) else shown(value) for key, value in trial.values.items()}
        self.store.send("params", run=self.run, values=values)
        with contextlib.suppress(InputError):  # the trial itself tells
            self.planned = estimator_for(with_values(self.settings, trial.values)).planned_epochs

    def epoch(self, trial: Trial, entry: Mapping[str, Any]) -> None:
        named = {name if "/" in name else f"train/{name}": one for name, one in entry.items() if name != "epoch"}
        tracking.log_metrics(self.store, self.run, named, step=int(entry["epoch"]))
        self.display.advance(int(entry["epoch"]), self.planned, f"trial {trial.number + 1} of {self.trials}")

    def ended(self, trial: Trial) -> None:
        if trial.measured is not None:
            tracking.log_metrics(self.store, self.run, {f"trial/{key}": one for key, one in trial.measured.items()})
        tracking.tag(self.store, self.run, "recsys.trial", trial.state)
        if trial.reason is not None:
            tracking.describe(self.store, self.run, trial.reason)
        tracking.end_run(self.store, self.run, "KILLED" if trial.state == "stopped" else "FINISHED")
        if trial.value is not None:
            ending = f"NDCG@10 {trial.value:.4f} ({(trial.measured or {}).get('serves')})"
        else:
            ending = f"{trial.state}: {(trial.reason or '').rstrip('.')}"
        self.display.say(f"Trial {trial.number + 1} of {self.trials}: {ending}; {trial.text()}")


@contextlib.contextmanager
def _mlflow_run(
    store: tracking.Store, settings: Settings, search: Search, versions: dict[str, int | None]
) -> Iterator[str]:
    """The search's MLflow run, an earlier call's where it is still there."""
    earlier = search.mlflow_run
    if earlier is not None and tracking.resume_run(store, earlier):
        run_id = earlier
    else:
        run_id = tracking.start_run(store, search.study.study_name, {tracking.STEP_TAG: "tune"})
        tracking.log_settings(store, run_id, settings)
        tracking.log_tables(store, run_id, settings.warehouse, versions, context="tuning")
        search.note_run(run_id)
    try:
        with running(run=run_id):
            yield run_id
    except BaseException as error:
        tracking.end_run(store, run_id, "FAILED" if isinstance(error, Exception) else "KILLED", error)
        raise
    tracking.end_run(store, run_id)


def _log_result(store: tracking.Store, run_id: str, report: SearchReport, target: Path) -> None:
    best = report.best
    if best is None:
        return
    values = {"trials": report.trials, "pruned": report.pruned, "best": best.value, "own": report.own}
    tracking.log_metrics(store, run_id, {f"tune/{name}": value for name, value in values.items()})
    keys = list(best.values)
    columns: dict[str, list[Any]] = {key: [trial.values.get(key) for trial in report.all] for key in keys}
    columns = {
        "trial": [trial.number + 1 for trial in report.all],
        "ndcg@10": [trial.value for trial in report.all],
        **columns,
        "reason": [trial.reason for trial in report.all],
    }
    tracking.log_table(store, run_id, "trials.json", plain(columns))
    tracking.log_text(store, run_id, "tuned.toml", target.read_text(encoding="utf-8"))
    tracking.describe(store, run_id, f"Trial {best.number + 1} is best:\n\n```toml\n{lines(best.values)}\n```")


def show_tune(console: Console, report: Mapping[str, Any]) -> None:
    """The best trials, what the settings matter, the best values as TOML, and what to do next."""
    best = report["best"]
    whole = [trial for trial in report["all"] if trial["value"] is not None]
    ranked = sorted(whole, key=lambda trial: (-trial["value"], trial["number"]))[:_SHOWN]
    if ranked:
        table = Table(title="best trials", title_justify="left")
        table.add_column("trial", justify="right")
        table.add_column("NDCG@10", justify="right")
        table.add_column("serves")
        table.add_column("epochs", justify="right")
        for key in ranked[0]["values"]:
            table.add_column(key.partition(".")[2], justify="right", overflow="fold")
        for trial in ranked:
            measured = trial["measured"] or {}
            known = (trial["number"] + 1, f"{trial['value']:.4f}", measured.get("serves"), measured.get("best_epoch"))
            table.add_row(*map(str, known), *(escape(shown(value)) for value in trial["values"].values()))
        console.print(table)
    matters = ", ".join(f"{key} {share:.0%}" for key, share in report["importance"].items())
    told = {"interrupted": "by Ctrl-C", "timeout": "as the time was up"}.get(report["stopped"] or "")
    facts(
        console,
        {
            "trials": f"{report['trials']}, {report['pruned']} of them pruned",
            "stopped": f"{told}; the same command goes on" if told else None,
            "as it was": None if report["own"] is None else f"{report['own']:.4f}",
            "best": None if best is None else f"{best['value']:.4f}, trial {best['number'] + 1}",
            "matters": matters or None,
            "written": report["written"],
            "next": None if best is None else f"recsys run {report['written']}",
        },
    )
    if report["settings"]:
        console.print(f"\n{escape(report['settings'])}", soft_wrap=True)
