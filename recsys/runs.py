"""Records of what a night has finished, kept beside the tables, so that a killed one goes on where it stopped.

A run's key is a hash of its name and what it works on: table versions, content digests of the sources and the
program's own code. `<warehouse>/runs/<key>.json` holds the status, the MLflow run and each finished step's report with
the step's own key, a hash of the settings that the step depends on. Starting with a key whose run is not finished takes
the finished steps from there: all of them where the settings are the same, else those whose keys are, in a new MLflow
run. A finished run is followed by a new one. A lock file in the same folder keeps a second night out.

For a warehouse that is not a local folder the state lies in `$XDG_STATE_HOME/recsys/<hash of the root>`
(`~/.local/state` by default), because object stores have neither locks nor atomic renames. Reports, values per user and
a copy of the bundles lie there, too: see `local_folder`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

from recsys.errors import InputError, RecsysError
from recsys.settings import Settings
from recsys.storage.files import file_aside, write_json, writing
from recsys.storage.locks import Held, is_held, lock_file
from recsys.storage.remote import is_url

Status = Literal["running", "failed", "finished"]

_OF_TABLE: Final = ("retrieve", "rules", "gate")
# sections of the settings that neither a step nor one before it reads
_UNREAD: Final[Mapping[str, tuple[str, ...]]] = {
    "represent": ("seed", "filter", "split", "train", "evaluate", *_OF_TABLE, "export", "tracking", "tune"),
    "train": (*_OF_TABLE, "export", "tracking", "tune"),
    "refit": (*_OF_TABLE, "export", "tracking", "tune"),
    "evaluate": ("retrieve", "gate", "export", "tracking", "tune"),
    "retrieve": ("gate", "export", "tracking", "tune"),
    "judge": ("export", "tracking", "tune"),
    "export": ("gate", "tracking", "tune"),
}


class WarehouseBusy(RecsysError):
    """Another run holds the warehouse; it does the work, or the next start does."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One night's state.

    Attributes
    ----------
    run_id
        The MLflow run.
    started
        ISO 8601, UTC; kept over restarts, so that a resumed run's output carries the same time.
    number
        Of the night among all of its folder, from 1, by which they are in order: a clock may jump back. 0 in records of
        earlier versions.
    settings
        Digest of the settings.
    name
        Of the configuration; empty in records of earlier versions.
    warehouse
        The folder above these records, as the process named it that wrote them.
    seconds
        Of the whole night, from its begin to its end, with the steps of a stopped start that it went on with; None
        before its end, and in records of earlier versions.
    steps
        Finished step to `{"report": ..., "seconds": ..., "key": ...}`; `peak_bytes` where memory was followed, `over`
        where it took more than its budget.
    """

    key: str
    run_id: str
    started: str
    number: int = 0
    status: Status = "running"
    finished: str | None = None
    error: str | None = None
    settings: str = ""
    name: str = ""
    warehouse: str = ""
    seconds: float | None = None
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, str]:
        """Greater for the later one of two nights."""
        return self.number, self.started

    def with_step(
        self, name: str, report: Mapping[str, Any], seconds: float, key: str = "", peak_bytes: int | None = None
    ) -> RunState:
        """The state after a step; `peak_bytes` is the most memory that the process held meanwhile."""
        peak = {} if peak_bytes is None else {"peak_bytes": peak_bytes}
        done = {"report": dict(report), "seconds": seconds, "key": key, **peak}
        return replace(self, steps={**self.steps, name: done})

    def noting(self, step: str, **facts: Any) -> RunState:
        """The state with more facts about a step that is done."""
        return replace(self, steps={**self.steps, step: {**self.steps[step], **facts}})

    def without(self, *names: str) -> RunState:
        """The state as if these steps had not been done."""
        return replace(self, steps={name: done for name, done in self.steps.items() if name not in names})

    def ended(self, status: Status, error: str | None = None) -> RunState:
        """The state after the last step, or after a failure."""
        return replace(self, status=status, finished=_now(), error=error)


def local_folder(warehouse: str | Path) -> Path:
    """The folder of this machine that keeps files of a warehouse besides its tables: the warehouse's own, if local."""
    root = str(warehouse)
    if not is_url(root):
        return Path(root)
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home / "recsys" / hashlib.sha256(root.rstrip("/").encode()).hexdigest()[:16]


def state_folder(warehouse: str) -> Path:
    """Return the folder of a warehouse's run states; created by `locked` and `save`."""
    folder = local_folder(warehouse)
    return folder if is_url(warehouse) else folder / "runs"


def need_warehouse(warehouse: str) -> None:
    """Refuse to look after a warehouse of this machine that nothing has been written to, which a wrong path names.

    Raises
    ------
    InputError
        There is no such folder.
    """
    if not is_url(warehouse) and not Path(warehouse).is_dir():
        raise InputError(
            f"There is no warehouse {warehouse} yet; `recsys run CONFIG` makes it, or correct warehouse or state_root."
        )


def run_key(settings: Settings, versions: Mapping[str, int | None], digests: Mapping[str, str]) -> str:
    """The hash of a run's name, the data that it works on and the program, 32 hex digits."""
    parts = [settings.name, sorted(versions.items()), digest_of(digests), code_version()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def step_key(settings: Settings, step: str) -> str:
    """The hash of the settings that a step and the steps before it depend on, 32 hex digits.

    Settings that a step does not read are named, not those that it reads: one that is new counts until it is named.
    """
    tree = settings.model_dump(
        mode="json", exclude={"report", "retention", "metrics", "budget", "limits", *_UNREAD.get(step, ())}
    )
    if step == "evaluate":  # the one step that works for the page
        tree["report"] = settings.report.described
    if step in ("train", "refit", "retrieve"):  # validation and the blend ask as evaluation does
        tree["evaluate"] = settings.evaluate.exclude_seen
        for name in ("target", "new_users", "cold_items"):  # what test asks; neither training nor the table reads it
            tree["split"].pop(name)
    if step in ("train", "evaluate", "refit"):
        tree["train"].pop("checkpoint_minutes")
    if step not in ("represent", "train", "refit") and settings.rules.by_name:
        tree["rule_lists"] = _lists_of_rules(settings)
        tree["retrieve"] = settings.retrieve.model_dump(mode="json")  # the price of a rule is of the lists
    if step in ("train", "evaluate", "refit"):  # a bundle holds its index
        tree["index"] = [settings.retrieve.index, settings.retrieve.recall]
    if step in ("train", "evaluate"):  # what is served is made of what was measured
        tree["train"].pop("refit")
    return hashlib.sha256(json.dumps([step, tree], sort_keys=True).encode()).hexdigest()[:32]


def _lists_of_rules(settings: Settings) -> dict[str, str | None]:
    """The sha256 (hex) of each file of ids that a rule names, by the rule; what a database holds is not looked at."""
    found: dict[str, str | None] = {}
    for name, rule in settings.rules.by_name.items():
        given = getattr(rule, "items", None)
        source = given if isinstance(given, str) else getattr(given, "source", None)
        if source is not None and "://" not in source and "://" not in settings.data_root:
            path = Path(settings.data_root, source)
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return found


def digest_of(digests: Mapping[str, str]) -> str:
    """One sha256 (hex) for the content digests of many files, whatever their names."""
    return hashlib.sha256(json.dumps(sorted(digests.values())).encode()).hexdigest()


@functools.cache
def code_version() -> str:
    """sha256 (hex) of the program's own source files."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    # a checkout holds features/ and pipelines/ by links, which rglob does not follow
    for package in (root, root / "features", root / "pipelines"):
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def load(folder: Path, key: str) -> RunState | None:
    """The recorded state; None where there is none or where it cannot be read.

    Paths inside the warehouse are as this process sees them: it may work in another folder, or the warehouse was moved.
    """
    try:
        state = RunState(**json.loads((folder / f"{key}.json").read_text(encoding="utf-8")))
        datetime.fromisoformat(state.started)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(state.steps, dict):
        return None
    if not isinstance(state.number, int):  # as in records of earlier versions
        state = replace(state, number=0)
    now = str(folder.parent)
    if state.warehouse in ("", now):
        return state
    return replace(state, warehouse=now, steps=_elsewhere(state.steps, state.warehouse, now))


def _elsewhere(value: Any, before: str, now: str) -> Any:
    """A report with the paths below one folder as paths below another."""
    if isinstance(value, dict):
        return {key: _elsewhere(inner, before, now) for key, inner in value.items()}
    if isinstance(value, list):
        return [_elsewhere(inner, before, now) for inner in value]
    below = isinstance(value, str) and value.startswith(f"{before}/")
    return now + value.removeprefix(before) if below else value


def states(folder: Path) -> Iterator[RunState]:
    """The recorded states of a folder, newest first; what cannot be read is left out."""
    found = [state for path in folder.glob("*.json") if (state := load(folder, path.stem)) is not None]
    yield from sorted(found, key=lambda state: state.order, reverse=True)


def next_number(folder: Path) -> int:
    """Return the number of the night that begins now."""
    return 1 + max((state.number for state in states(folder)), default=0)


def state_of(folder: Path, run_id: str) -> RunState | None:
    """The state of an MLflow run; None where it is not recorded, or was followed by a later run on the same data."""
    return next((state for state in states(folder) if state.run_id == run_id), None)


def save(folder: Path, state: RunState) -> None:
    """Write a state so that a kill leaves the old file or the new one."""
    path = folder / f"{state.key}.json"
    with writing(f"The run's record {path}"):
        folder.mkdir(parents=True, exist_ok=True)
        with file_aside(path) as aside:
            write_json(aside, asdict(state))


def begin(
    folder: Path,
    key: str,
    new_run: Callable[[], str],
    still_there: Callable[[RunState], bool],
    *,
    settings: str = "",
    name: str = "",
    usable: Callable[[str, Mapping[str, Any]], bool] = lambda *_: False,
) -> tuple[RunState, bool]:
    """The state to go on from, and whether it is an earlier run's.

    Parameters
    ----------
    settings
        Their digest: an earlier run with others is not gone on with, but its steps may be used.
    name
        Of the configuration.
    usable
        Whether a finished step of an earlier run (its name and record) is what this run would do.
    new_run
        Creates an MLflow run and returns its id.
    still_there
        Whether an earlier run can be taken up again (its MLflow run and its files exist).
    """
    earlier = load(folder, key)
    stopped = earlier if earlier is not None and earlier.status != "finished" else None
    if stopped is not None and stopped.settings == settings and still_there(stopped):
        state, resumed = replace(stopped, status="running", finished=None, error=None), True
    else:
        done = {} if stopped is None else {name: step for name, step in stopped.steps.items() if usable(name, step)}
        here = str(folder.parent)
        number = next_number(folder)
        state = RunState(
            key=key,
            run_id=new_run(),
            started=_now(),
            number=number,
            settings=settings,
            name=name,
            warehouse=here,
            steps=done,
        )
        resumed = False
    save(folder, state)
    return state, resumed


@contextlib.contextmanager
def locked(warehouse: str) -> Iterator[Path]:
    """Hold the warehouse for one writer; yields the folder of run states.

    The operating system drops the lock when the process ends, however it ends.

    Raises
    ------
    InputError
        The warehouse is a URL, and the library for object stores is not installed.
    RecsysError
        The folder cannot be written.
    WarehouseBusy
        Another process holds it.
    """
    folder = state_folder(warehouse)
    if is_url(warehouse):  # before any work: bundles need its library
        import_module("recsys.storage.objects")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stack = contextlib.ExitStack()
        stack.enter_context(lock_file(folder / "lock"))
    except OSError as error:
        raise RecsysError(f"The folder {folder} of run states cannot be written: {error.strerror}.") from None
    except Held as holder:
        process = f" (process {holder})" if str(holder) else ""
        raise WarehouseBusy(
            f"Another run{process} is writing to the warehouse {warehouse}; wait for it or choose another warehouse."
        ) from None
    with stack:
        yield folder


def is_busy(warehouse: str) -> bool:
    """Return whether a process holds the warehouse at this moment."""
    return is_held(state_folder(warehouse) / "lock")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
