"""Backtest: the user's own log replayed, night by night, and measured by what users did afterwards.

Nothing of the user's is touched: tables, bundles and candidates of past nights lie in a folder of their own,
`<warehouse>/backtests/<name>-<key>`, of which the results stay. Each night's result is written as one, so that a
backtest that was killed goes on with the night, and in its training with the checkpoint, at which it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys import runs
from recsys.backtest.baselines import baseline_lists, baseline_names
from recsys.backtest.differences import OWNER, differences, overall
from recsys.backtest.measure import FORMER, cutoffs_of, measure, questions_of, shown_cutoff
from recsys.backtest.plan import Night, Plan, duration, parse_every, parse_until, plan_nights
from recsys.backtest.questions import KNOWN, standing
from recsys.backtest.replay import Built, build, built_of, remove_bundles, same_training, settings_at, table_lists
from recsys.backtest.report import notes, one_line, whole
from recsys.backtest.results import Results
from recsys.backtest.score import METRICS
from recsys.backtest.tables import (
    FOLDER,
    LOG,
    NIGHTS,
    Source,
    begin_tables,
    held_until,
    only_newest,
    open_source,
    tables_at,
)
from recsys.bundles.store import BUNDLES
from recsys.columns import USER_ID, metric_name
from recsys.data.prepare import DATASET
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.night.memory import check_night
from recsys.pipelines.steps import tracked
from recsys.pipelines.terminal.backtest_shown import log_night, log_whole
from recsys.pipelines.watch import watch
from recsys.settings import Settings
from recsys.storage.addresses import masked
from recsys.storage.files import file_aside, write_json
from recsys.storage.once import keeping, let_go
from recsys.storage.warehouse import TableVersions
from recsys.text.represent import represent
from recsys.tracking import log as tracking
from recsys.tracking.parameters import flatten

SUMMARY: Final = "backtest.json"  # of one that is finished
FEWEST: Final = 20  # events that the first night must know
_READS_NOTHING: Final = {
    "tracking",
    "export",
    "warehouse",
    "data_root",
    "state_root",
}  # settings that no result depends on


@dataclass(frozen=True, kw_only=True)
class _Backtest:
    """Values that all nights share."""

    variants: dict[str, Settings]  # by label, as configured; the first is compared with all others
    at_night: dict[str, Settings]
    plan: Plan
    source: Source
    users: Vocabulary
    root: Path  # warehouse of the past nights
    results: Results
    store: tracking.Store
    parent: str

    @property
    def reference(self) -> str:
        return next(iter(self.variants))

    @property
    def settings(self) -> Settings:
        return self.variants[self.reference]

    @property
    def repeats(self) -> bool:
        """Return whether what a user had is a target: where any variant may recommend it."""
        return not all(settings.retrieve.exclude_seen for settings in self.variants.values())

    @property
    def cutoffs(self) -> tuple[int, ...]:
        return cutoffs_of(self.settings)

    @property
    def shown(self) -> int:
        return shown_cutoff(self.settings)

    @property
    def metric(self) -> str:
        return metric_name("ndcg", self.shown)


def backtest_alone(
    variants: Mapping[str, Settings],
    *,
    nights: int = 14,
    every: str | None = None,
    until: str | None = None,
    keep: bool = False,
) -> dict[str, Any]:
    """Replay past nights, and measure their tables by what users did in the window after each.

    Parameters
    ----------
    variants
        Settings by label, from `recsys.backtest.variants`; the first one's table is compared with all others.
    nights
        How many.
    every
        Length of a window, such as "7d"; None: a day or a week, by the log's span.
    until
        Date at which the last window ends; None: the end of the log.
    keep
        Keep tables and bundles of the past nights, too.

    Returns
    -------
    dict
        JSON-friendly: the plan, each night's figures, means, differences and verdict, notes, and where they are.

    Raises
    ------
    InputError
        The log has no times or is too short, or a night knows too little to train.
    RecsysError
        Another process replays the same log, or a disk or MLflow does not answer.
    """
    began = time.perf_counter()
    variants = dict(variants)
    settings = next(iter(variants.values()))
    if nights < 1:
        raise InputError(f"--nights {nights} must be at least 1.")
    length = None if every is None else parse_every(every)
    end = None if until is None else parse_until(until)
    home = runs.local_folder(settings.warehouse) / FOLDER
    log = home / f"{LOG}{_hash(_dump(settings, 'interactions', 'items', 'users', 'data_root'))}"
    with tracked(settings) as store, runs.locked(str(log)), keeping():
        source = _read(settings, log)
        first, last, events = source.span()
        plan = plan_nights(first, last, nights=nights, every=length, until=end)
        key = _hash(
            [
                *(json.dumps([label, one.model_dump(mode="json", exclude=_READS_NOTHING)], sort_keys=True)
                  for label, one in variants.items()),
                str([(night.at, night.until) for night in plan.nights]),
                source.digest(),
                runs.code_version(),
            ]
        )  # fmt: skip
        folder = home / f"{settings.name}-{key}"
        if not (folder / SUMMARY).exists():
            _check(variants, source, plan)
        parent, done = _parent(store, folder, settings, plan, variants)
        if done:
            watch().say("All nights were measured before; these are their results.")
            report = json.loads((folder / SUMMARY).read_text(encoding="utf-8")) | {"resumed": nights}
        else:
            test = _Backtest(
                variants=variants,
                at_night={
                    label: settings_at(one, folder / NIGHTS, number)
                    for number, (label, one) in enumerate(variants.items(), 1)
                },
                plan=plan,
                source=source,
                users=Vocabulary(source.log.select(USER_ID).unique().collect()[USER_ID].sort()),
                root=folder / NIGHTS,
                results=Results(folder=folder / "results", key=key),
                store=store,
                parent=parent,
            )
            report = _whole(test, folder, events, began)
        if not keep:
            shutil.rmtree(folder / NIGHTS, ignore_errors=True)
            shutil.rmtree(log, ignore_errors=True)
    return dict(report)


def _whole(test: _Backtest, folder: Path, events: int, began: float) -> dict[str, Any]:
    """Replay and report; whatever ends it closes the MLflow run."""
    store, parent = test.store, test.parent
    try:
        report = _replay(test) | {
            "folder": str(folder),
            "events": events,
            "seconds": round(time.perf_counter() - began, 3),
            "mlflow": {
                "uri": masked(test.settings.tracking.uri),
                "experiment": store.experiment,
                "run": parent,
                "link": tracking.run_link(store, parent),
            },
        }
        log_whole(store, parent, report)
        tracking.end_run(store, parent)
    except BaseException as error:
        tracking.end_run(store, parent, "FAILED" if isinstance(error, Exception) else "KILLED", error)
        raise
    _save(folder / SUMMARY, report)
    return report


def _read(settings: Settings, log: Path) -> Source:
    display = watch()
    with display.step("read the log"):
        return open_source(settings, log, lambda what, done, total: display.advance(done, total, what))


def _parent(
    store: tracking.Store, folder: Path, settings: Settings, plan: Plan, variants: Mapping[str, Settings]
) -> tuple[str, bool]:
    """The MLflow run above those of the nights, and whether the backtest was finished before."""
    path = folder / "state.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        state = json.loads(path.read_text(encoding="utf-8"))
        if (folder / SUMMARY).exists():
            return str(state["run"]), True
        if tracking.resume_run(store, state["run"]):
            return str(state["run"]), False
    run = tracking.start_run(
        store, f"backtest {settings.name} {datetime.now(UTC):%Y-%m-%d %H:%M}", {tracking.STEP_TAG: "backtest"}
    )
    tracking.log_settings(store, run, settings)
    described = {
        "backtest.nights": len(plan.nights),
        "backtest.every": duration(plan.every),
        "backtest.first": plan.nights[0].label,
        "backtest.variants": list(variants),
    }
    store.send("params", run=run, values=flatten(described))
    _save(path, {"run": run})
    return run, False


# --- the nights -----------------------------------------------------------------------------------


def _replay(test: _Backtest) -> dict[str, Any]:
    """All nights in their order; what is done already is taken from its file."""
    display = watch()
    found = _finished(test)
    if found:
        display.say(f"Going on after {len(found)} of {len(test.plan.nights)} nights, which were measured before.")
    taken = len(found)
    if taken < len(test.plan.nights):
        begin_tables(test.root, test.source)
    represented: set[str] = set()
    for night in test.plan.nights[taken:]:
        versions = tables_at(test.root, test.source, night.at)
        for settings in test.at_night.values():
            text = _hash([settings.text.model_dump_json(), settings.model_dump_json(include={"items"})])
            if text not in represented:
                represent(settings, versions, display.advance)
                represented.add(text)
        figures, values = _night(test, night, versions, found[-1] if found else None)
        test.results.save(night.number, figures, values)
        found.append(figures)
        _tidy(test, figures)
        display.say(one_line(figures, test.reference, test.metric))
    return _report(test, found, taken)


def _finished(test: _Backtest) -> list[dict[str, Any]]:
    """The nights that are measured, up to the first that is not."""
    found: list[dict[str, Any]] = []
    for night in test.plan.nights:
        figures = test.results.load(night.number)
        if figures is None:
            break
        found.append(figures)
    if len(found) < len(test.plan.nights) and not _goes_on(test, found):
        shutil.rmtree(test.root, ignore_errors=True)
        return []
    return found


def _goes_on(test: _Backtest, found: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether what the next night begins with is there, and the log has not gone past it."""
    held = held_until(test.root)
    if held is not None and held > test.plan.nights[len(found)].at:
        return False
    return not found or all(
        (test.root / BUNDLES / built["bundle"]).is_dir() and (test.root / built["table"]).is_dir()
        for built in found[-1]["built"].values()
    )


def _check(variants: Mapping[str, Settings], source: Source, plan: Plan) -> None:
    """Refuse a first night that knows next to nothing, and nights that would not fit into memory."""
    first = plan.nights[0]
    before = standing(source.log, next(iter(variants.values())).filter, first.at)
    if len(before) < FEWEST:
        raise InputError(
            f"Only {len(before)} events lie before the first night, {first.label}, and a night needs {FEWEST} at "
            "least; ask for fewer --nights, or a shorter --every."
        )
    for settings in variants.values():
        check_night(settings.model_copy(update={"warehouse": source.root}), source.versions)


def _night(
    test: _Backtest, night: Night, versions: TableVersions, former: Mapping[str, Any] | None
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Build each variant's table as of a night, and measure all of them."""
    display = watch()
    head = {"number": night.number, "night": night.label, "at": night.at, "until": night.until}
    questions, before = questions_of(test.source, test.settings, night, repeats=test.repeats)
    earlier = {label: built_of(one) for label, one in former["built"].items()} if former else {}
    if not len(questions.targets):
        shown = {"known": {"events": len(before)}, "window": questions.counts, "rankers": {}, "differences": {}}
        built = {label: asdict(one) for label, one in earlier.items()}
        nobody = pl.DataFrame(schema={OWNER: pl.Int32, KNOWN: pl.Boolean})
        return {**head, "empty": True, "built": built, **shown}, nobody
    k = max(test.cutoffs)
    lists: dict[str, pl.DataFrame] = {}
    made: dict[str, Built] = {}
    shared: dict[str, str] = {}  # digest of a training to the variant that did it
    run = tracking.start_run(
        test.store, f"night {night.label}", {tracking.STEP_TAG: "night", tracking.PARENT_TAG: test.parent}
    )
    try:
        for label, settings in test.at_night.items():
            with display.step(f"{night.label} {label}"):
                first = shared.setdefault(same_training(settings), label)
                made[label] = build(
                    settings, versions, night, earlier.get(label), made.get(first), _advance(settings), _silent
                )
            lists[label] = table_lists(test.root, made[label], questions.users, k)
            if label == test.reference:
                if label in earlier:
                    lists[FORMER] = table_lists(test.root, earlier[label], questions.users, k)
                others, items = baseline_lists(settings, versions, questions.users, k)
        let_go(DATASET)
        figures, values = measure(
            questions,
            before,
            lists | others,
            items=items,
            users=test.users,
            cutoffs=test.cutoffs,
            shown=test.shown,
            reference=test.reference,
            seed=test.settings.seed,
        )
        built = {label: asdict(one) for label, one in made.items()}
        figures = {**head, "empty": False, "mlflow_run": run, "built": built, **figures}
        log_night(test.store, run, test.parent, figures)
    except BaseException as error:
        tracking.end_run(test.store, run, "FAILED" if isinstance(error, Exception) else "KILLED", error)
        raise
    tracking.end_run(test.store, run)
    return figures, values


def _advance(settings: Settings) -> Any:
    display = watch()

    def on_epoch(entry: Mapping[str, Any]) -> None:
        display.advance(int(entry["epoch"]), settings.train.epochs, "epoch")

    return on_epoch


def _silent(_: str) -> None:
    """Sentences of a training that the user knows from his own nights are not told for each past one."""


def _tidy(test: _Backtest, figures: Mapping[str, Any]) -> None:
    """Leave of past nights' tables and bundles those that the next night begins with."""
    built = [built_of(one) for one in figures["built"].values()]
    if built and not figures["empty"]:
        remove_bundles(test.root, [name for one in built for name in (one.bundle, one.served)])
        for one in built:
            only_newest(test.root, one.table)


def _report(test: _Backtest, found: list[dict[str, Any]], taken: int) -> dict[str, Any]:
    """Means and differences over all nights, with what must be said beside them."""
    full = [figures for figures in found if not figures["empty"]]
    metrics = [metric_name(metric, test.shown) for metric in METRICS]
    means: dict[str, Any] = {}
    between: dict[str, Any] = {}
    questions = 0
    if full:
        values = pl.concat([test.results.values(figures["number"]) for figures in full], how="diagonal")
        questions = int(values[KNOWN].sum())
        if questions:
            means = overall(values, metrics, test.settings.seed)
            between = differences(values, test.reference, metrics, test.settings.seed)
    names = {name for figures in full for name in figures["rankers"]}
    return {
        "name": test.settings.name,
        "every": duration(test.plan.every),
        "resumed": taken,
        "cutoffs": list(test.cutoffs),
        **whole(
            found,
            means,
            between,
            variants=list(test.variants),
            baselines=[name for name in baseline_names(test.settings) if name in names],
            metric=test.metric,
            questions=questions,
        ),
        "notes": notes(test.settings, test.source, test.plan, found, repeats=test.repeats),
    }


def _dump(settings: Settings, *sections: str) -> list[str]:
    return [json.dumps(settings.model_dump(mode="json", include={name}), sort_keys=True) for name in sections]


def _hash(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _save(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_aside(path) as aside:
        write_json(aside, content)
