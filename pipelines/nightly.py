"""The night: ingest, represent, train, evaluate, refit, retrieve, judge, publish, export, and one MLflow run around it.

Nothing that readers see changes before `publish`: until then the new bundle and the new candidates lie beside. A night
that `judge` keeps back ends there: it is finished, and what it built stays beside until the next night.

`night` is a plain function; it calls each step through `run`, which is a Prefect task inside the flow and the
bare function where Prefect is not there. Steps exchange table versions, paths and numbers, never frames. A
step that the run's record has already is not done again (see `recsys.runs`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys import runs
from recsys.bundles.mirror import address
from recsys.compute.choice import check_compute
from recsys.data.prepare import DATASET
from recsys.errors import RecsysError
from recsys.machine import peak_memory
from recsys.night.memory import check_night
from recsys.night.seen import check_seen
from recsys.observe.figures import figures
from recsys.observe.lines import log
from recsys.pipelines.evaluate import baseline_metrics, evaluate_task
from recsys.pipelines.export import export_task
from recsys.pipelines.ingest import ingest_task
from recsys.pipelines.judge import discard_kept_back, has_values, ingested_before, judge_task, versions_before
from recsys.pipelines.measured import earlier, measured, said, tell_end, tell_metrics, with_budget
from recsys.pipelines.orchestration.prefect_mark import mark
from recsys.pipelines.publish import publish_task
from recsys.pipelines.refit import refit_task
from recsys.pipelines.report import night_record, report_task
from recsys.pipelines.represent import represent_task
from recsys.pipelines.retention import keep_less
from recsys.pipelines.retrieve import retrieve_task
from recsys.pipelines.sound import check_whole, sound
from recsys.pipelines.steps import (
    RECORD,
    Run,
    Step,
    as_function,
    candidates_of,
    plain,
    table_versions,
    tracked,
)
from recsys.pipelines.terminal.console import capped, check_lines, counted, rejected_lines, remarks, untrained
from recsys.pipelines.terminal.prices import price_markdown
from recsys.pipelines.train import train_task
from recsys.pipelines.watch import watch
from recsys.releases.switch import settle
from recsys.releases.telling import tell
from recsys.running import switch
from recsys.serving.recommender import open_bundle
from recsys.serving.shop import check_rules
from recsys.settings import Settings
from recsys.storage.addresses import masked
from recsys.storage.failures import sentence
from recsys.storage.files import is_full
from recsys.storage.once import keeping, let_go
from recsys.storage.stream import discard
from recsys.table.build import BuiltCandidates, can_publish, is_published
from recsys.tracking import log as tracking
from recsys.tracking.machine import Machine, watched

_MAKE_BUNDLES = ("train", "refit")  # steps
_COUNTS = ("rows", "users", "log_users", "k", "short_lists", "empty_lists", "by_fallback", "filled_lists")
_OF_CANDIDATES = ("path", "version", *_COUNTS)


def night(settings: Settings, run: Run = as_function) -> dict[str, Any]:
    """The night's work; returns the run's summary, JSON-friendly.

    Raises
    ------
    InputError
        The input or the configuration is wrong; nothing is published.
    RecsysError
        Another run holds the warehouse, MLflow does not answer, or a disk takes no more; where it is full, what
        [retention] does not keep goes at once.
    """
    began = time.perf_counter()
    # before any work: a wrong path or address must not cost a night
    with (
        measured(settings),
        sound(check_whole, settings),
        runs.locked(settings.warehouse) as folder,  # first: the run that holds it may hold MLflow's database, too
        tracked(settings) as store,
        keeping(),
        tracking.begun(store, settings) as begun,
        watched(store, begun) as machine,
    ):
        try:
            summary = _night(settings, run, store, folder, machine, begun, began)
        except Exception as error:
            if is_full(error):  # else every night after this one fails, too, and none cleans up
                keep_less(settings, store)
            raise
    tell_metrics(settings, summary["run_id"])
    return summary


def _night(
    settings: Settings, run: Run, store: tracking.Store, folder: Path, machine: Machine, begun: str, began: float
) -> dict[str, Any]:
    display = watch()
    began_work = time.perf_counter()
    check_compute(settings)
    # a switch by hand that was stopped: what is served is what this night is compared with
    settle(settings, lacking=display.warn)
    tell(settings, store)
    with display.step("ingest"), peak_memory() as peak:
        ingested = run(ingest_task, settings)
        log.note({"peak_bytes": peak.look()})
    ingest_peak = peak.most
    ingest_seconds = time.perf_counter() - began_work
    versions = table_versions(ingested)

    def still_there(earlier: runs.RunState) -> bool:
        bundles = [earlier.steps[name]["report"]["bundle"] for name in _MAKE_BUNDLES if name in earlier.steps]
        return all(map(_opens, bundles)) and tracking.resume_run(store, earlier.run_id)

    def usable(name: str, done: Mapping[str, Any]) -> bool:
        there = name not in _MAKE_BUNDLES or _opens(done["report"]["bundle"])
        return there and done.get("key") == runs.step_key(settings, name)

    key = runs.run_key(settings, plain(versions), ingested["digests"])
    before = runs.load(folder, key)
    if before is not None and before.status == "finished":  # its record is about to be replaced
        discard_kept_back([before], settings.name)
    state, resumed = runs.begin(
        folder, key, lambda: begun, still_there, settings=settings.digest(), name=settings.name, usable=usable
    )
    parent = machine.run_id = state.run_id
    switch(parent)
    mark(parent)
    tracking.settled(store, parent)
    if not resumed and state.steps:
        display.say(
            f"Taken from a run that was stopped, as no setting of theirs has changed: {', '.join(state.steps)}."
        )
        resumed = True
    elif resumed:
        done = ", ".join(name for name in state.steps if name != "ingest") or "nothing but ingest"
        display.say(f"Going on with the run of {state.started}, which was stopped; done before: {done}.")

    usual = earlier(settings, folder)
    # of the steps of a stopped start; what it did in vain is not the night's
    taken_over = sum(done["seconds"] for name, done in state.steps.items() if name != "ingest")

    def step(name: str, task: Step, *arguments: Any) -> dict[str, Any]:
        nonlocal state
        if name not in state.steps:
            start = time.perf_counter()

            def record(_: str, report: dict[str, Any]) -> None:
                nonlocal state
                seconds = round(time.perf_counter() - start, 3)
                state = state.with_step(name, report, seconds, runs.step_key(settings, name), peak.look())
                runs.save(folder, state)

            token = RECORD.set(record)
            try:
                with display.step(name), peak_memory() as peak:
                    record(name, run(task, settings, *arguments))
                    log.note({**figures(name, state.steps[name]["report"]), "peak_bytes": peak.most})
                state = with_budget(settings, state, name, usual)
                runs.save(folder, state)
            finally:
                RECORD.reset(token)
                machine.send()
        report = state.steps[name]["report"]
        return dict(report)

    if "publish" not in state.steps and "retrieve" in state.steps:
        built = BuiltCandidates.of(state.steps["retrieve"]["report"])
        # its files are gone, or somebody has published since, or its rows name a run that never published them
        if not can_publish(built) or (built.run != parent and not is_published(built)):
            discard(built.staged)
            state = state.without("retrieve", "judge", "export")
    if "judge" not in state.steps and "evaluate" in state.steps and not has_values(settings, trained_of(state)):
        state = state.without("evaluate")
    digest = runs.digest_of(ingested["digests"])
    as_of = datetime.fromisoformat(state.started)
    lacking: Exception | None = None
    try:
        if resumed and ingested["begins"] and "ingest" in state.steps:
            # what the stopped run read is not read again: its report says what is new in the tables
            ingested = {**state.steps["ingest"]["report"], "mlflow_run": ingested["mlflow_run"]}
        state = state.with_step("ingest", ingested, round(ingest_seconds, 3), peak_bytes=ingest_peak)
        state = with_budget(settings, state, "ingest", usual)
        runs.save(folder, state)
        tracking.log_tables(store, parent, settings.warehouse, plain(versions), digest)
        if "retrieve" not in state.steps:
            display.say(str(check_night(settings, versions)))
            for remark in (*check_seen(settings), *check_rules(settings, versions, as_of)):
                display.warn(remark)
        step("represent", represent_task, versions, parent)
        trained = step("train", train_task, versions, parent)
        evaluated = step("evaluate", evaluate_task, versions, trained["bundle"], parent, as_of)
        refitted = step("refit", refit_task, versions, trained["bundle"], parent)
        retrieved = step("retrieve", retrieve_task, versions, refitted["bundle"], parent, as_of)
        known = list(runs.states(folder))
        reports = {name: done["report"] for name, done in state.steps.items()}
        former = ingested_before(known, settings.name)
        nights = versions_before(known, settings.name)
        judged = step("judge", judge_task, versions, parent, reports, former, as_of, nights)
        discard_kept_back(known, settings.name, parent)
        let_go(DATASET)
        if judged["passed"]:
            published = step("publish", publish_task, parent, evaluated, refitted, retrieved, judged["sentence"])
            if settings.export.wanted:
                try:
                    step("export", export_task, candidates_of(published["candidates"]), parent)
                except (RecsysError, OSError) as error:
                    if is_full(error):
                        raise
                    lacking = error  # readers of the table have the night: it gets its page, and then fails
        else:
            settle(settings, lacking=display.warn)  # a target that lacks what is served may answer by now
        tracking.log_metrics(store, parent, evaluated["metrics"])
        tracking.log_metrics(store, parent, baseline_metrics(evaluated["baselines"]))
        summary = _summary(settings, store, state, resumed)
        if settings.report.enabled:
            began_page = time.perf_counter()
            with display.step("report"):
                made = run(report_task, settings, night_record(settings, state, summary["mlflow"]["link"]), parent)
            state = state.with_step("report", made, round(time.perf_counter() - began_page, 3))
            summary["report"] = made["path"]
        seconds = {name: done["seconds"] for name, done in state.steps.items()}
        tracking.log_metrics(store, parent, {f"seconds/{name}": value for name, value in seconds.items()})
        total = round(time.perf_counter() - began + taken_over, 3)
        summary["seconds"] = {**seconds, "total": total}
        tracking.log_text(store, parent, "report.md", summary_markdown(summary))
        tracking.describe(store, parent, summary_markdown(summary))
        if lacking is not None:
            state = state.without("report")  # made anew when the night goes on
            raise RecsysError(
                f"The night is published, and its export failed: {sentence(lacking)}; the next night, refresh or "
                "`recsys export` tries again."
            ) from lacking
        runs.save(folder, replace(state.ended("finished"), seconds=total))
    except BaseException as error:
        with contextlib.suppress(RecsysError):  # of a full disk; the night's own error is the one to show
            runs.save(folder, state.ended("failed", said(error)))
        tracking.end_run(store, parent, "FAILED" if isinstance(error, Exception) else "KILLED", error)
        raise
    # what stops the clean-up does not make a finished night a failed one
    tell_end(summary)
    tracking.end_run(store, parent)
    summary["retention"] = keep_less(settings, store)
    store.ask()
    summary["mlflow"] |= {"link": tracking.run_link(store, parent), "unsent": store.unsent()}
    return summary


def _opens(bundle: str) -> bool:
    """Return whether a bundle is whole and this program can serve it; otherwise it is trained again."""
    try:
        _ = open_bundle(bundle).blended
    except RecsysError:
        return False
    return True


def trained_of(state: runs.RunState) -> dict[str, Any]:
    """The report of the bundle that was measured."""
    return dict(state.steps["train"]["report"])


def _summary(settings: Settings, store: tracking.Store, state: runs.RunState, resumed: bool) -> dict[str, Any]:
    """Return what the steps' reports say of the night, without its time."""
    reports = {name: done["report"] for name, done in state.steps.items()}
    ingested, trained, evaluated = reports["ingest"], reports["train"], reports["evaluate"]
    refitted = reports["refit"]
    verdict = reports["judge"]
    return {
        "run_id": state.run_id,
        "name": settings.name,
        "published": verdict["passed"],
        "verdict": verdict,
        "resumed": resumed,
        "bundle": address(refitted["bundle"]),
        "bundle_id": refitted["bundle_id"],
        "refit": {name: refitted[name] for name in ("kind", "measured", "reason", "epochs", "resumed")},
        "epochs": trained["epochs"],
        "warm_start": trained["warm_start"],
        "training_resumed": trained["resumed"],
        "served": evaluated["served"],
        "metrics": evaluated["metrics"],
        "baselines": evaluated["baselines"],
        "unseen_look_ups": evaluated["report"].get("unseen_look_ups", {}),
        "repeated_targets": capped(evaluated["report"]),
        "intervals": evaluated["intervals"],
        "differences": evaluated.get("differences", {}),
        "rules": evaluated["report"].get("rules"),
        "untrained": untrained(settings, trained),
        "left_out": trained["report"].get("left_out"),
        "withdrawals": trained["report"].get("withdrawals"),
        "candidates": _candidates(reports),
        "export": reports.get("export"),
        "tables": {
            "versions": ingested["versions"],
            "rejected": ingested["rows_rejected"],
            "reasons": ingested["reasons"],
            "corrected": ingested["corrected"],
            "delisted": ingested["delisted"],
            "dropped": ingested["rows_dropped"],
            "digests": ingested["digests"],
        },
        "represent": reports["represent"],
        "examples": evaluated.get("examples"),
        "mlflow": {
            "uri": masked(settings.tracking.uri),
            "experiment": store.experiment,
            "link": tracking.run_link(store, state.run_id),
            "model": reports["publish"]["model"] if verdict["passed"] else None,
        },
    }


def _candidates(reports: dict[str, Any]) -> dict[str, Any]:
    """Path, version and counts of the candidates; the version is None where they are kept back."""
    if reports["judge"]["passed"]:
        return {name: reports["publish"]["candidates"][name] for name in _OF_CANDIDATES}
    built = reports["retrieve"]
    own = {"path": built["staged"]["path"], "version": None}
    return {name: own.get(name, built.get(name)) for name in _OF_CANDIDATES}


def artifact_key(name: str) -> str:
    """The key of a configuration's nights in Prefect: lower case and dashes.

    >>> artifact_key("ML_1m.v2")
    'night-ml-1m-v2'
    """
    return "night-" + "-".join("".join(c if c.isalnum() and c.isascii() else " " for c in name.lower()).split())


def summary_markdown(summary: dict[str, Any]) -> str:
    """The night on one page: metrics beside the baselines, where things are, the MLflow run."""
    names = list(summary["baselines"])
    columns: dict[str, list[Any]] = {"metric": list(summary["metrics"])}
    for name, metrics in [(summary["served"], summary["metrics"]), *((n, summary["baselines"][n]) for n in names)]:
        columns[name] = [number(metrics.get(metric)) for metric in summary["metrics"]]
    candidates = summary["candidates"]
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in summary["seconds"].items())
    unseen = counted(summary["unseen_look_ups"])
    return "\n".join(
        [
            f"# {summary['name']}",
            "",
            f"**{summary['verdict']['sentence']}**",
            "",
            *(f"- {line}" for line in check_lines(summary["verdict"])),
            "",
            tracking.markdown_table(columns),
            *price_markdown(summary.get("rules")),
            "",
            f"- candidates{'' if summary['published'] else ' (kept back)'}: `{candidates['path']}`, "
            f"{candidates['rows']} rows for {candidates['users']} users",
            f"- bundle: `{summary['bundle']}`",
            *remarks(summary),
            *(f"- rejected rows of {line}" for line in rejected_lines(summary["tables"]["reasons"])),
            *([f"- look-ups of values that training has not seen: {unseen}"] if unseen else []),
            *([f"- {summary['repeated_targets']}"] if summary.get("repeated_targets") else []),
            f"- time: {seconds}",
            f"- [MLflow run]({summary['mlflow']['link']}) in `{summary['mlflow']['uri']}`",
        ]
    )


def number(value: Any) -> str:
    """A metric with four decimals; a dash where there is none."""
    return f"{value:.4f}" if isinstance(value, (int, float)) else "–"


def __getattr__(name: str) -> Any:
    """The flow `nightly`, as deployments name it: Prefect is imported where somebody asks for it."""
    if name == "nightly":
        from recsys.pipelines.flows import nightly

        return nightly
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
