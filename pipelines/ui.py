"""MLflow's UI on a project's own store: which store, the command that opens it, and the server's life."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from recsys.errors import InputError, RecsysError
from recsys.storage.addresses import local_database, masked

DEFAULT_STORE = "sqlite:///mlruns/mlflow.db"
_SECONDS_TO_END = 10
_MODEL_TRAINING = "workflowType=machine_learning"  # without it MLflow opens its view for GenAI, which shows no metrics


def ui_command(uri: str) -> str | None:
    """The command that opens the UI of a store; None where a server has a UI of its own."""
    if uri.startswith(("http://", "https://")):
        return None
    ui = f"{program()} ui"
    return ui if uri == DEFAULT_STORE else f"{ui} --uri {shlex.quote(masked(uri))}"


def page(uri: str, port: int, experiment: str | None = None) -> str:
    """The address of an experiment's runs, in MLflow's view for model training.

    Parameters
    ----------
    experiment
        Its name; None: the one whose run began last. Where the store has none, or is no local file, the address is that
        of all experiments.
    """
    found = _experiment_id(uri, experiment)
    place = "experiments" if found is None else f"experiments/{found}/runs"
    return f"http://127.0.0.1:{port}/#/{place}?{_MODEL_TRAINING}"


def _experiment_id(uri: str, name: str | None) -> str | None:
    database = local_database(uri)
    if database is None:
        return None
    newest = "SELECT experiment_id FROM experiments JOIN runs USING (experiment_id) WHERE {} ORDER BY start_time DESC"
    named = "SELECT experiment_id FROM experiments WHERE {} AND name = ?"
    query = (newest if name is None else named).format("experiments.lifecycle_stage = 'active'")
    # straight from the file: MLflow's client takes seconds to import
    with contextlib.suppress(sqlite3.Error), contextlib.closing(
        sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    ) as store:  # fmt: skip
        row = store.execute(query, [] if name is None else [name]).fetchone()
        return None if row is None else str(row[0])
    return None


def program() -> str:
    """`recsys` as a shell here finds it: by name where it is on the PATH, else by its place in the environment."""
    installed = Path(sys.executable).with_name("recsys")
    if shutil.which("recsys") or not installed.exists():
        return "recsys"
    return shlex.quote(os.path.relpath(installed))


def check(uri: str, port: int) -> None:
    """The store can be served at the port.

    Raises
    ------
    InputError
        The address is a server's, the store's file does not exist, or the port is taken.
    """
    if uri.startswith(("http://", "https://")):
        raise InputError(f"{masked(uri)} is an MLflow server with a UI of its own; open it in a browser.")
    database = local_database(uri)
    if database is not None and not database.is_file():
        raise InputError(
            f"There is no MLflow store {uri.removeprefix('sqlite:///')} (looked in {Path.cwd()}); "
            "`recsys ui CONFIG` opens that of a configuration, and `--uri` names another."
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"Port {port} cannot be used ({error.strerror}); choose another, such as --port {port % 65535 + 1}."
            ) from None


def serve(uri: str, port: int) -> None:
    """Run MLflow's server until Ctrl-C or SIGTERM; all of its processes end with this one.

    Raises
    ------
    RecsysError
        The server stopped by itself.
    """
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # not as an argument: every user of the machine can read those
        "MLFLOW_REGISTRY_STORE_URI": uri,  # the same, or the server says so
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, 2 GB, for jobs that nobody sends
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]  # not a line for every request of the page
    # a session of its own, because MLflow's children outlive a signal that reaches only their parent
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            # polars takes SIGINT over so that a wait without an end is not interrupted by it
            while (code := server.poll()) is None:
                time.sleep(0.1)
        except (KeyboardInterrupt, SystemExit):  # SIGTERM is the latter: whoever asks the server to end has it end
            return
        finally:
            _end(server)
    raise RecsysError(f"MLflow's UI stopped with code {code}; its own words are above.")


def _end(server: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=_SECONDS_TO_END)
