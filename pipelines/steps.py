"""Shared parts of the flows: retries on I/O, JSON-friendly reports, and the newest tables and bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from recsys import processes
from recsys.bundles.store import find_bundle, latest_bundle
from recsys.errors import InputError, RecsysError, first_line
from recsys.ingestion.provenance import check_filled
from recsys.observe.figures import figures
from recsys.observe.lines import log
from recsys.pipelines import collecting
from recsys.pipelines.time_limit import within
from recsys.pipelines.watch import watch
from recsys.running import running
from recsys.settings import LimitSettings, RunSettings, Settings
from recsys.storage.addresses import masked
from recsys.storage.warehouse import TableVersions, commit_metadata, current_versions, latest_version, table_path
from recsys.table.naming import candidates_table
from recsys.tracking import log as tracking

if TYPE_CHECKING:
    from prefect import State, Task

# A second attempt can find these gone; a missing file or a closed door is still missing or closed.
_LASTING = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)


def is_transient(error: BaseException | None) -> bool:
    """Return whether an error comes from storage or network and may pass; also one that a sentence was made of."""
    if isinstance(error, RecsysError) and not isinstance(error, InputError):
        return is_transient(error.__cause__ or error.__context__)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and not full and not isinstance(error, _LASTING)


def retry_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Prefect's question after a failure: again? Only when storage or network failed, never on bad input."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)


class _Closed:
    """A value that Prefect does not look into: it takes equal small numbers and words for what a task has made."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True, eq=False)
class Step:
    """A step of a run: a plain function, and a task where Prefect records it.

    Attributes
    ----------
    fn
        The function; its first argument is the settings.
    io
        Whether it is tried again when storage or network fail, as often as `limits.retries` says.
    limit
        The step of a night whose limit of time it has; by default the function's name.
    """

    fn: Callable[..., dict[str, Any]]
    io: bool = False
    limit: str | None = None

    def __call__(self, settings: RunSettings, *arguments: Any) -> dict[str, Any]:
        """Do the work once, within the step's limit of time."""
        name = self.limit or self.fn.__name__
        with within(name, getattr(_limits(settings).timeout_minutes, name, None)):
            return self.fn(settings, *arguments)

    def waits(self, settings: RunSettings) -> list[float]:
        """Return the seconds before each further try."""
        return _limits(settings).waits if self.io else []

    @cached_property
    def task(self) -> Task[[_Closed], _Closed]:
        """The step as Prefect's task, under the function's name.

        Prefect keeps no results: reports hold paths and numbers, and what a step reads is in the tables.
        """
        from prefect import Task  # over a second of CPU, which a run that Prefect does not record is spared
        from prefect.cache_policies import NO_CACHE

        def work(given: _Closed) -> _Closed:
            try:
                return _Closed(self(*given.value))
            except RecsysError as error:  # its sentence goes into a state and a log on the server
                error.args = tuple(masked(part) if isinstance(part, str) else part for part in error.args)
                raise

        name = self.fn.__name__
        about = (self.fn.__doc__ or name).partition("\n")[0]
        return Task(
            work,
            name=name,
            description=about,
            task_run_name=name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retry_condition_fn=retry_transient,
        )


def _limits(settings: RunSettings) -> LimitSettings:
    """Limits of a configuration; those of one that has none, as for pre-training, are the defaults."""
    return settings.limits if isinstance(settings, Settings) else LimitSettings()


def compute_task(function: Callable[..., dict[str, Any]], limit: str | None = None) -> Step:
    """A step that computes: done once, because a second attempt would fail the same way an hour later."""
    return Step(function, limit=limit)


def io_task(function: Callable[..., dict[str, Any]], limit: str | None = None) -> Step:
    """A step that reads or writes outside the warehouse: tried again when storage or network fail."""
    return Step(function, io=True, limit=limit)


Run = Callable[..., dict[str, Any]]  # calls a step with the settings and its other arguments

# what a step reads of which others: the graph that Prefect's UI draws
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "represent": ("ingest",),
    "train": ("represent",),
    "evaluate": ("train",),
    "refit": ("train",),
    "retrieve": ("refit",),
    "judge": ("evaluate", "retrieve"),
    "publish": ("judge",),
    "export": ("publish",),
    "report": ("judge", "export"),
}
_DONE: ContextVar[dict[str, State[Any]] | None] = ContextVar("done", default=None)


@contextlib.contextmanager
def graph() -> Iterator[None]:
    """Let the tasks inside of the block wait for those that they read of."""
    token = _DONE.set({})
    try:
        yield
    finally:
        _DONE.reset(token)


def _upstream(name: str, done: Mapping[str, State[Any]]) -> list[State[Any]]:
    """States of the tasks that a step reads of; for one that an earlier run did, of those before it."""
    needed = [[done[need]] if need in done else _upstream(need, done) for need in _NEEDS.get(name, ())]
    return list({id(state): state for states in needed for state in states}.values())


def as_task(step: Step, settings: RunSettings, *arguments: Any) -> dict[str, Any]:
    """A step as a Prefect task: its state, its time and its retries are in Prefect."""
    watch().enter()
    done = _DONE.get()
    task = step.task.with_options(
        retries=len(step.waits(settings)), retry_delay_seconds=step.waits(settings) or 0, retry_jitter_factor=0.5
    )
    name, given = step.fn.__name__, _Closed((settings, *arguments))
    state: State[_Closed] = task(given, return_state=True, wait_for=_upstream(name, done or {}))
    if done is not None:
        done[name] = state
    report: dict[str, Any] = state.result().value
    return report


def as_function(step: Step, settings: RunSettings, *arguments: Any) -> dict[str, Any]:
    """The step without Prefect: what Prefect would try again is tried again here."""
    for seconds in step.waits(settings):
        try:
            return step(settings, *arguments)
        except Exception as error:
            if not is_transient(error):
                raise
            watch().warn(f"{step.fn.__name__}: {first_line(error)}; trying again in {seconds:g} s.")
        time.sleep(seconds)
    return step(settings, *arguments)


def plain(value: Any) -> Any:
    """A report as dicts, lists, strings and finite numbers; what is not a number becomes None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def numbers(report: dict[str, Any], keys: Sequence[str]) -> dict[str, float]:
    """The report's numbers among some keys, for MLflow."""
    return {key: report[key] for key in keys if isinstance(report.get(key), (int, float))}


def table_versions(report: dict[str, Any]) -> TableVersions:
    """The table versions in an ingest report."""
    return TableVersions(**report["versions"])


_STORE: ContextVar[tracking.Store | None] = ContextVar("store", default=None)
RECORD: ContextVar[Callable[[str, dict[str, Any]], None] | None] = ContextVar("record", default=None)


@contextlib.contextmanager
def tracked(settings: RunSettings) -> Iterator[tracking.Store]:
    """The MLflow store, opened before any work and the same for all that happens inside of the block.

    What processes left that were killed is cleared away, their MLflow runs are closed. At the end, what MLflow has
    not taken is told; see `recsys.tracking.store`.

    Raises
    ------
    RecsysError
        The store does not answer.
    """
    outer = _STORE.get()
    if outer is not None:
        yield outer
        return
    display = watch()
    with processes.registered(settings.warehouse) as name, running(name=settings.name):
        store = tracking.open_store(settings, display.warn, name)
        for dead in processes.gone(settings.warehouse):
            tracking.end_runs_of(store, dead)
        token = _STORE.set(store)
        collecting.as_usual()
        try:
            yield store
        except BaseException:
            if name is not None:  # a signal may come between a run's begin and the block that ends it
                tracking.end_runs_of(store, name)
            raise
        finally:
            gc.unfreeze()  # of a night that follows in this process, this one's cycles would stay for ever
            _STORE.reset(token)
            store.close()
            if lacking := tracking.lacking(store):
                display.warn(lacking)


@dataclass(frozen=True)
class StepRun:
    """A step and its MLflow run."""

    name: str
    store: tracking.Store
    run_id: str
    parent: str | None = None

    @property
    def runs(self) -> tuple[str, ...]:
        """The step's run, and the night's that it is nested in: where what nights are compared by goes."""
        return (self.run_id,) if self.parent is None else (self.run_id, self.parent)

    def done(self, report: Any) -> dict[str, Any]:
        """The report of work that is done, JSON-friendly; a night records it now, before MLflow is told."""
        whole = {**plain(report), "mlflow_run": self.run_id}
        log.note(figures(self.name, whole))
        if record := RECORD.get():
            record(self.name, whole)
        return whole


@contextlib.contextmanager
def step_run(
    settings: RunSettings, step: str, parent: str | None = None, versions: TableVersions | None = None
) -> Iterator[StepRun]:
    """The MLflow run of a step, nested in the night's; a step alone logs settings and tables itself."""
    with tracked(settings) as store, tracking.step_run(store, step, parent) as run_id:
        log.give()
        if parent is None:
            tracking.log_settings(store, run_id, settings)
            if versions is not None:
                tracking.log_tables(store, run_id, settings.warehouse, plain(versions))
        yield StepRun(step, store, run_id, parent)


def newest_versions(settings: Settings) -> TableVersions:
    """The newest versions of the warehouse's tables.

    Raises
    ------
    InputError
        Nothing has been ingested, another configuration filled a table, or the log was read by other rules.
    """
    check_filled(settings)
    return current_versions(settings.warehouse)


def newest_bundle(settings: Settings) -> str:
    """The bundle that was published last under the configuration's name.

    Raises
    ------
    InputError
        There is none.
    """
    return str(latest_bundle(settings.warehouse, settings.name))


def chosen_bundle(settings: Settings, bundle: str | None) -> str:
    """The bundle that somebody named, see `find_bundle`; by default the newest of the configuration's name.

    Raises
    ------
    InputError
        There is none.
    """
    return newest_bundle(settings) if bundle is None else str(find_bundle(bundle))


def newest_candidates(settings: Settings) -> dict[str, Any]:
    """Path, newest version and run of the candidate table.

    Raises
    ------
    InputError
        There is none.
    """
    table = candidates_table(settings.warehouse, settings.name)
    version = latest_version(settings.warehouse, table)
    if version is None:
        raise InputError(
            f"There is no candidate table of {settings.name!r} in {settings.warehouse}; `recsys retrieve CONFIG` makes "
            "it."
        )
    run = commit_metadata(settings.warehouse, table).get("run")
    return {"path": table_path(settings.warehouse, table), "version": version, "run": run}


def candidates_of(report: dict[str, Any]) -> dict[str, Any]:
    """Path, version and run of the candidate table in the report of what was published."""
    return {name: report[name] for name in ("path", "version", "run")}
