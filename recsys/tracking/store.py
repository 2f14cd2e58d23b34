"""An MLflow store that work never waits for: what it does not take is kept beside the run states and sent later.

A store must answer before any work begins. After that every operation goes through `Store.send`: where the store
does not answer, this one and all that follow go to a file (`recsys.tracking.spool`) until it does. It is asked again
from time to time, at the end of a night, and by the next start with the same warehouse.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shlex
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from recsys import runs
from recsys.errors import InputError, RecsysError
from recsys.settings import RunSettings
from recsys.storage.addresses import local_database, masked, without_login
from recsys.tracking import database as tracking_database
from recsys.tracking import telemetry
from recsys.tracking.operations import OPERATIONS
from recsys.tracking.owner import warehouse_ids
from recsys.tracking.spool import Spool, read

if TYPE_CHECKING:
    from mlflow import MlflowClient

telemetry.off()  # before MLflow is imported, which reads the switches

EXPERIMENT_TAGS: Final = {"mlflow.experimentKind": "custom_model_development"}  # in the UI: machine learning
PATIENCE: Final = 30.0  # seconds in all that a process waits for a store that has stopped to answer
FIRST_PAUSE: Final = 5.0  # seconds before it is asked again; doubles each time
LONGEST_PAUSE: Final = 300.0
_BUSY: Final = 20.0  # seconds that a writer waits for another
# of a server that is there and cannot now, or does not know us any more; the same request may pass later
_LATER: Final = {
    "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED",
    "PERMISSION_DENIED", "UNAUTHENTICATED", "ABORTED", "IO_ERROR",
}  # fmt: skip


def _log(sentence: str) -> None:
    logging.getLogger("recsys").warning(sentence)


@dataclass(kw_only=True)
class Store:
    """An MLflow store and the experiment in it.

    Attributes
    ----------
    uri
        The tracking URI as configured; show it only through `masked`.
    process
        Name of this process, a tag of the runs that it begins.
    warehouses
        Ids of the warehouse, the first of which is a tag of its runs; none where nobody has written it down.
    spool
        Where records go while the store does not answer; None: they are lost.
    warn
        Is told what must be seen.
    ids
        Ids of runs that were begun while the store did not answer, to the store's own.
    repeating
        Whether records are sent that may have arrived before.
    """

    client: MlflowClient
    uri: str
    experiment: str
    experiment_id: str
    process: str | None = None
    warehouses: tuple[str, ...] = ()
    spool: Spool | None = None
    warn: Callable[[str], None] = _log
    pause: float = FIRST_PAUSE
    ids: dict[str, str] = field(default_factory=dict)
    repeating: bool = False
    begun: str | None = None  # the run of a night of which nobody knows yet whether it goes on with an earlier one
    alone: list[str] = field(default_factory=list)  # runs of its steps
    lost: str | None = None  # why the store does not answer; None: it does
    _ask_at: float = 0.0
    _waited: float = 0.0
    _refused: set[str] = field(default_factory=set)

    def send(self, operation: str, **content: Any) -> Any:
        """Do an operation of `tracking_operations`, now or later; returns its result, None where it is kept."""
        record = {"operation": operation, **content}
        if not self.answers():
            self._keep(record)
            return None
        handled = sys.exc_info()[1]  # of the night, which is recorded while it fails
        try:
            with self._waiting():
                return OPERATIONS[operation](self, **content)
        except Exception as error:
            if unavailable(error):
                self._lose(error, handled)
                self._keep(record)
            else:
                self._refuse(operation, error, handled)
            return None

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """Ask the store for what is done now or not at all; one that does not answer is asked no more for a while.

        Raises
        ------
        RecsysError
            The store does not answer, or refuses.
        """
        from mlflow.exceptions import MlflowException

        # a database on this machine's disk may have room again by now, and tells at once
        if not (self.answers() if local_database(self.uri) is None else self.ask()):
            raise RecsysError(f"The MLflow store {masked(self.uri)} does not answer ({self.lost}).")
        try:
            with self._waiting():
                yield
        except (MlflowException, OSError) as error:
            if not unavailable(error):
                raise RecsysError(f"The MLflow store {masked(self.uri)} refuses: {origin(error)}.") from error
            if self._is_there():
                raise RecsysError(f"The MLflow store {masked(self.uri)} fails ({origin(error)}).") from error
            self.lost, self._ask_at = origin(error), time.monotonic() + self.pause
            raise RecsysError(f"The MLflow store {masked(self.uri)} does not answer ({self.lost}).") from error

    def answers(self) -> bool:
        """Return whether the store answers, as far as is known; one that did not is asked again after a pause."""
        if self.lost is None:
            return True
        return time.monotonic() >= self._ask_at and self.ask()

    def ask(self) -> bool:
        """Ask a store that did not answer once more, if there is patience left; if it does, send what was kept."""
        if self.lost is None:
            return True
        if self._waited >= PATIENCE:
            return False
        try:
            with self._waiting(), _brief():
                self.client.get_experiment(self.experiment_id)
        except Exception as error:
            self._lose(error)
            return False
        before = self.lost
        self.lost = None
        if self.spool is not None and not self._repeat(self.spool.records()):
            self.lost = self.lost or before
            return False
        if self.spool is not None:
            self.spool.clear()
        self.pause = FIRST_PAUSE
        return True

    def send_left_over(self) -> int:
        """Send what ended processes have left for this store; returns the number of records."""
        sent = 0
        for path in self.spool.left_by_others() if self.spool else ():
            records = read(path)
            if not self._repeat(records):
                break
            path.unlink(missing_ok=True)
            sent += len(records)
        return sent

    def unsent(self) -> dict[str, Any] | None:
        """Return what the store lacks: `records`, `file` and `reason`; None if it has all."""
        if self.spool is None or not self.spool.kept + self.spool.dropped:
            return None
        file = str(self.spool.path) if self.spool.kept else None
        return {"records": self.spool.kept + self.spool.dropped, "file": file, "reason": self.lost}

    def close(self) -> None:
        """Ask a last time, and let go of the file of what is still unsent."""
        self.ask()
        if self.spool is not None:
            self.spool.close()

    def _repeat(self, records: list[dict[str, Any]]) -> bool:
        """Send records again in their order; False where the store stops to answer."""
        self.repeating = True
        try:
            for record in records:
                content = {key: value for key, value in record.items() if key != "operation"}
                try:
                    with self._waiting():
                        OPERATIONS[record["operation"]](self, **content)
                except Exception as error:
                    if unavailable(error) and not self._poisoned(error):
                        self._lose(error)
                        return False
                    self._refuse(str(record.get("operation")), error)
            return True
        finally:
            self.repeating = False

    def _poisoned(self, error: BaseException) -> bool:
        """Return whether a server that answers fails at one record, each time."""
        if _code(error) != "INTERNAL_ERROR" or _cause(error, OSError) is not None:
            return False
        return self._is_there()

    def _is_there(self) -> bool:
        """Return whether the server answers a question at all."""
        try:
            with _brief():
                self.client.get_experiment(self.experiment_id)
        except Exception:
            return False
        return True

    def _lose(self, error: BaseException, handled: BaseException | None = None) -> None:
        first, self.lost = self.lost is None, origin(error, handled)
        self._ask_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        if first and not self.repeating and not (self.spool and self.spool.kept):
            place = f"is kept in {self.spool.folder} and sent when it does" if self.spool else "is lost"
            self.warn(f"MLflow ({masked(self.uri)}) does not answer any more ({self.lost}); what it misses {place}.")

    def _refuse(self, operation: str, error: BaseException, handled: BaseException | None = None) -> None:
        if operation not in self._refused:  # once for each kind
            self._refused.add(operation)
            self.warn(f"MLflow refused a record of the kind {operation} ({origin(error, handled)}); it lacks that.")

    def _keep(self, record: Mapping[str, Any]) -> None:
        if self.spool is not None:
            self.spool.add(record)

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Count the time that a store takes to fail; MLflow's own account of the failure is not shown."""
        began = time.monotonic()
        try:
            with telemetry.quiet("mlflow"):
                yield
        except Exception as error:
            if unavailable(error):
                self._waited += time.monotonic() - began
            raise


def open_store(
    settings: RunSettings, warn: Callable[[str], None] = _log, process: str | None = None
) -> Store:  # fmt: skip
    """Open the store that `tracking.uri` names, find or create the experiment, and send what was kept for it.

    Raises
    ------
    InputError
        The URI is of a kind that MLflow no longer supports, or the experiment was deleted.
    RecsysError
        The store does not answer or cannot be written; one sentence, without passwords.
    """
    check_uri(settings)
    uri = settings.tracking.uri
    experiment = settings.tracking.experiment or settings.name
    database = local_database(uri)
    artifacts: str | None = None
    if database is not None:
        if done := tracking_database.prepare(database):
            warn(done)
        _need_writable(database)
        artifacts = (database.parent / "artifacts").as_uri()
    address = without_login(uri)[0]
    try:
        with telemetry.quiet("mlflow"):
            client = open_client(uri)
            experiment_id = _experiment(client, experiment, artifacts, uri)
    except RecsysError:
        raise
    except Exception as error:
        raise RecsysError(
            f"The MLflow store {masked(uri)} does not answer ({origin(error)}); start it or change tracking.uri."
        ) from error
    short = hashlib.sha256(f"{address} {experiment_id}".encode()).hexdigest()[:12]
    spool = Spool(runs.state_folder(settings.warehouse) / "unsent", short)
    store = Store(
        client=client,
        uri=uri,
        experiment=experiment,
        experiment_id=experiment_id,
        process=process,
        warehouses=warehouse_ids(runs.state_folder(settings.warehouse)),
        spool=spool,
        warn=warn,
    )
    store.send_left_over()
    return store


def check_uri(settings: RunSettings) -> None:
    """Refuse the address of a kind of store that MLflow no longer writes to.

    Raises
    ------
    InputError
        It is a plain folder.
    """
    uri = settings.tracking.uri
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file") or len(scheme) == 1:
        raise InputError(
            f"tracking.uri = {masked(uri)!r} is a plain folder, which MLflow no longer writes to; "
            "use a database such as sqlite:///mlruns/mlflow.db or the address of an MLflow server."
        )


def open_client(uri: str) -> MlflowClient:
    """Open a client of a store; a login in the address goes into the environment, where MLflow reads it."""
    from mlflow import MlflowClient  # a second of CPU, which who opens no store is spared

    address, user, password = without_login(uri)
    if user is not None:  # not in the address, which MLflow puts into its own messages
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = user, password or ""
    return MlflowClient(tracking_uri=address, registry_uri=address)


def _need_writable(database: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=_BUSY)) as connection:
            connection.execute("begin immediate")
            connection.rollback()
    except sqlite3.Error as error:
        raise RecsysError(
            f"The MLflow store {database} cannot be written ({error}); make it writable or change tracking.uri."
        ) from None
    for place in (database, database.parent, database.parent / "artifacts"):
        if place.exists() and not os.access(place, os.W_OK):
            raise RecsysError(
                f"The MLflow store {place} cannot be written (it is read-only for this user); "
                "make it writable or change tracking.uri."
            )


def _experiment(client: MlflowClient, name: str, artifacts: str | None, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=EXPERIMENT_TAGS))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        database = local_database(uri)
        address = masked(uri) if database is None else f"sqlite:///{database}"
        program = "mlflow" if shutil.which("mlflow") else shlex.quote(str(Path(sys.executable).with_name("mlflow")))
        raise InputError(
            f"The MLflow experiment {name!r} was deleted; restore it with `MLFLOW_TRACKING_URI={shlex.quote(address)} "
            f"{program} experiments restore --experiment-id {found.experiment_id}` or set tracking.experiment."
        )
    for key, value in EXPERIMENT_TAGS.items():  # an older one, or one that others made, says nothing of its kind
        if key not in found.tags:
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


@contextlib.contextmanager
def _brief() -> Iterator[None]:
    """A question that only asks whether somebody is there waits for seconds."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def unavailable(error: BaseException) -> bool:
    """Return whether the store did not answer, or could not write; the same may pass later."""
    gone = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # of what was to be sent
    return _cause(error, OSError, but=gone) is not None or _code(error) in _LATER


def _code(error: BaseException) -> str | None:
    from mlflow.exceptions import MlflowException

    return error.error_code if isinstance(error, MlflowException) else None


def _cause(
    error: BaseException | None, kind: type[BaseException], but: tuple[type[BaseException], ...] = ()
) -> BaseException | None:
    while error is not None:
        if isinstance(error, kind) and not isinstance(error, but):
            return error
        error = error.__cause__ or error.__context__
    return None


def origin(error: BaseException, handled: BaseException | None = None) -> str:
    """The error at the bottom: MLflow's own words wrap several libraries' accounts of it.

    Parameters
    ----------
    handled
        An error that was there before MLflow was asked, and is no reason of MLflow's.
    """
    while (cause := error.__cause__ or error.__context__) and cause is not handled:
        error = cause
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """A message's first line without its end stop, shortened, without secrets."""
    lines = str(error).strip().splitlines() or [""]
    return masked(lines[0])[:200].rstrip(". ")
