"""Starting the service: one process, or several that share a port."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from recsys.errors import InputError, RecsysError, first_line
from recsys.observe.lines import VARIABLE, JsonLines, log
from recsys.service.limits import TOKEN, Limits, check_address
from recsys.service.metrics import MULTIPROCESS, Metrics

if TYPE_CHECKING:
    from recsys.service.following import Follower
    from recsys.service.middleware import Guard

_LOGGER: Final = logging.getLogger("recsys")
SECONDS_KEPT: Final = 75  # of an idle connection: longer than load balancers keep theirs, or requests meet closed ones
SECONDS_TO_END: Final = 30  # for requests that are under way when the service is told to end


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """Options of the service, handed to every process.

    Attributes
    ----------
    name
        A configuration file, a bundle's folder, or a bundle's name.
    overrides
        Of the configuration, `key=value`.
    host, port
        The address; port 0 is any that is free.
    no_token
        Answer other machines without a token.
    poll
        (s) between two looks at what is to be served.
    workers
        Processes.
    """

    name: str
    overrides: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    no_token: bool = False
    poll: float = 5.0
    workers: int = 1
    limits: Limits = field(default_factory=Limits)

    @property
    def token(self) -> str | None:
        """Return the token out of the environment."""
        return os.environ.get(TOKEN)


@dataclass(frozen=True, kw_only=True)
class Started:
    """Address of a service that answers; JSON-friendly.

    Attributes
    ----------
    bundle
        Label of the bundle; None: there is no release yet.
    """

    address: str
    bundle: str | None
    workers: int

    @property
    def sentence(self) -> str:
        """Return what a terminal shows."""
        bundle = self.bundle or "nothing yet, as there is no release,"
        several = f" by {self.workers} processes" if self.workers > 1 else ""
        docs = f"{self.address}/docs"
        return f"Serving {bundle} at {self.address}{several}; {docs} is a page to try it out. Ctrl-C ends it."


def run(options: ServiceOptions, started: Callable[[Started], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests that are under way are answered.

    Parameters
    ----------
    started
        Called when requests are answered.

    Raises
    ------
    InputError
        The name, the address or the token is wrong, or the bundle is damaged.
    RecsysError
        A table is damaged.
    """
    check_address(options.host, options.token, options.no_token)
    with _listening(options) as listening:
        if options.workers > 1:
            _run_several(options, listening, started)
            return
        _log()
        app, follower = make(options)
        follower.start()
        server = _Server(_config(options, app), lambda: started(_started(follower, listening)))
        with _ending_quietly():
            server.run(sockets=[listening])


def make(options: ServiceOptions) -> tuple[Guard, Follower]:
    """Make the application of a process, and its follower, which has opened nothing yet."""
    # before torch and FAISS read it: batches and processes fill the processors, and threads of one product would wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from recsys.service.app import create_app
    from recsys.service.following import Follower, source_of

    metrics = Metrics()
    follower = Follower(source_of(options.name, options.overrides), metrics)
    app = create_app(follower, metrics, limits=options.limits, token=options.token, poll=options.poll)
    return app, follower


def worker(options: ServiceOptions) -> Guard:
    """Make the application of one process of several; what cannot be opened ends them all."""
    _log()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        app, follower = make(options)
        follower.start()
    except RecsysError as error:
        _LOGGER.error("%s", error)
        sys.exit(STARTUP_FAILURE)
    return app


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, say: Callable[[], None]) -> None:
        super().__init__(config)
        self._say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._say()


class _Several(Multiprocess):
    """Says when all processes answer; one that dies is replaced."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, say: Callable[[], None]) -> None:
        super().__init__(config, [listening])
        self._say: Callable[[], None] | None = say

    @property
    def failed(self) -> bool:
        """Return whether a process could not start."""
        return any(process.exitcode == STARTUP_FAILURE for process in self.processes)

    def init_processes(self) -> None:
        """Start the processes."""
        with _no_interrupt():
            super().init_processes()

    def keep_subprocess_alive(self) -> None:
        """Replace dead processes, and report the first time that all are ready."""
        with _no_interrupt():
            super().keep_subprocess_alive()
        if self._say is not None and not self.should_exit.is_set() and all(map(_is_ready, self.processes)):
            self._say()
            self._say = None


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Start processes that hold Ctrl-C back until their server handles it, or it would end their imports by a trace."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_ready(process: Any) -> bool:
    return bool(process.is_ready(timeout=1))


def _run_several(options: ServiceOptions, listening: socket.socket, started: Callable[[Started], None]) -> None:
    from recsys.service.following import Follower, source_of

    follower = Follower(source_of(options.name, options.overrides), Metrics())
    with tempfile.TemporaryDirectory(prefix="recsys-metrics-") as folder:
        os.environ[MULTIPROCESS] = folder  # of the processes that are started now
        try:
            config = _config(options, partial(worker, options), factory=True, workers=options.workers)
            several = _Several(config, listening, lambda: started(_started(follower, listening, options.workers)))
            try:
                several.run()
            except BaseException:  # such as a closed stdout: the processes must not outlive this one
                several.terminate_all()
                several.join_all()
                raise
        finally:
            del os.environ[MULTIPROCESS]
        if several.failed:
            raise RecsysError("The processes could not start; the reason stands above.")


def _config(options: ServiceOptions, app: Any, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_config=None,
        log_level="warning",
        access_log=False,  # it would hold ids of users
        server_header=False,
        timeout_keep_alive=SECONDS_KEPT,
        timeout_graceful_shutdown=SECONDS_TO_END,
        **more,
    )


def _started(follower: Follower, listening: socket.socket, workers: int = 1) -> Started:
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    target = follower.source.target()
    return Started(address=address, bundle=None if target is None else target.bundle.name, workers=workers)


@contextmanager
def _listening(options: ServiceOptions) -> Iterator[socket.socket]:
    """A socket that listens at the address."""
    host, port = options.host, options.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host} is no address of this machine: {first_line(error)}.") from None
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(2048)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(f"Port {port} of {host} is in use; choose another one with --port.") from None
            raise InputError(f"{host}:{port} cannot be listened at: {error.strerror}; see --host and --port.") from None
        yield listening


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """Let the server end by SIGINT and SIGTERM as it should: it raises them again when it has ended."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log() -> None:
    """Switches and refusals go to stderr, a line each."""
    if log.json:  # the command writes them
        return
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    handler.setFormatter(JsonLines() if os.environ.get(VARIABLE) == "json" else text)
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
