"""Real servers on loopback, each started once and ended with the tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

OWNER, PASSWORD = "owner", "p@ss word/1"  # an address must write it as p%40ss%20word%2F1
WRITTEN = "p%40ss%20word%2F1"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def program(name: str, package: str, folders: str = "") -> str:
    found = shutil.which(name) or next((str(path) for path in sorted(Path("/").glob(folders))[-1:]), None)
    if found is None:
        pytest.fail(
            f"These tests need the program {name}: install Debian's package {package} (apt-get install {package})."
        )
    return found


def until(ready: Callable[[], bool], server: subprocess.Popen[Any], log: Path) -> None:
    for _ in range(1_200):
        with contextlib.suppress(Exception):
            if ready():
                return
        assert server.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{server.args} does not answer: {log.read_text()}")


def answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def end(server: subprocess.Popen[Any]) -> None:
    server.kill()
    server.wait()


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder that another user may enter, as PostgreSQL refuses to run as root."""
    folder = Path(tempfile.mkdtemp(prefix="recsys-servers-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Postgresql:
    """A server of PostgreSQL."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        binary = program("postgres", "postgresql", "usr/lib/postgresql/*/bin/postgres")
        self.bin = Path(binary).resolve().parent
        folder.mkdir()
        secret = folder / "secret"
        secret.write_text(PASSWORD + "\n")
        for path in (folder, secret):
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        options = [
            "-A",
            "scram-sha-256",
            "-U",
            OWNER,
            f"--pwfile={secret}",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ]
        self._run([str(self.bin / "initdb"), "-D", str(folder / "data"), *options]).communicate()
        self.start()

    def _run(self, command: list[str]) -> subprocess.Popen[Any]:
        as_user = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **as_user)  # type: ignore[call-overload]

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "32MB",
            "deadlock_timeout": "100ms",
        }
        given = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self.server = self._run(
            [str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *given]
        )
        until(lambda: answers(self.port) and bool(self.query("select 1")), self.server, self.folder / "log")

    def stop(self) -> None:
        """End it at once, with all of its connections."""
        with contextlib.suppress(ProcessLookupError):
            self.server.send_signal(3)  # SIGQUIT: no waiting for clients
        self.server.wait()

    def address(self, user: str = OWNER, password: str = WRITTEN, database: str = "postgres") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def query(self, *statements: str, user: str = OWNER, password: str = WRITTEN) -> list[Any]:
        """Run statements, each by itself; the rows of the last one."""
        from adbc_driver_postgresql import dbapi

        rows: list[Any] = []
        with contextlib.closing(dbapi.connect(self.address(user, password), autocommit=True)) as connection:
            for statement in statements:
                with contextlib.closing(connection.cursor()) as cursor:
                    cursor.execute(statement)
                    rows = list(cursor.fetchall()) if cursor.description else []
        return rows


@pytest.fixture(scope="session")
def postgresql_server(scratch: Path) -> Iterator[Postgresql]:
    server = Postgresql(scratch / "postgresql")
    yield server
    server.stop()  # not killed: it frees its shared memory


@pytest.fixture
def postgresql(postgresql_server: Postgresql) -> Postgresql:
    """The server, with an empty schema "public"."""
    if postgresql_server.server.poll() is not None:
        postgresql_server.start()
    postgresql_server.query("drop schema if exists public cascade", "create schema public")
    return postgresql_server


class Redis:
    """A server of Redis."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.binary = program("redis-server", "redis-server")
        folder.mkdir()
        self.start()

    def start(self, *options: str) -> None:
        given = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        command = [self.binary, *given, "--requirepass", PASSWORD, *options]
        with (self.folder / "log").open("ab") as log:
            self.server = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: bool(self.client().ping()), self.server, self.folder / "log")

    def stop(self) -> None:
        end(self.server)

    @property
    def address(self) -> str:
        return f"redis://:{WRITTEN}@127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        import redis

        return redis.Redis.from_url(self.address, decode_responses=True)


@pytest.fixture(scope="session")
def redis_server(scratch: Path) -> Iterator[Redis]:
    server = Redis(scratch / "redis")
    yield server
    end(server.server)


@pytest.fixture
def redis(redis_server: Redis) -> Redis:
    """The server, empty."""
    if redis_server.server.poll() is not None:
        redis_server.start()
    redis_server.client().flushall()
    return redis_server


class ObjectStore:
    """An S3 store of moto's, with one bucket."""

    bucket = "shop"

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        folder.mkdir()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with (folder / "log").open(
            "wb"
        ) as log:  # in a process of its own: a library may wait for it with Python's lock
            self.server = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: answers(port), self.server, folder / "log")
        request = urllib.request.Request(f"{self.endpoint}/{self.bucket}", method="PUT")
        urllib.request.urlopen(request).close()


@pytest.fixture(scope="session")
def object_store_server(scratch: Path) -> Iterator[ObjectStore]:
    store = ObjectStore(scratch / "objects")
    yield store
    end(store.server)


@pytest.fixture
def object_store(object_store_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The store; credentials, and for Delta its address, are in the environment."""
    given = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": object_store_server.endpoint,
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return object_store_server
