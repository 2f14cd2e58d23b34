"""An object store on loopback, one that fails when it is told to, and a machine's own folder for each test."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.servers import ObjectStore, answers, end, free_port, until


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a machine's states and mirrors."""
    folder = tmp_path / "machine"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def prefix(object_store: ObjectStore) -> str:
    """A prefix of the store that no other test uses; Delta, pyarrow and obstore find the store by the environment."""
    return f"s3://{object_store.bucket}/{uuid4().hex}"


class Faulty:
    """A server in front of the store; see tests/recsys/stores/faulty.py."""

    def __init__(self, upstream: str, folder: Path) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        folder.mkdir()
        command = [sys.executable, str(Path(__file__).with_name("faulty.py")), str(port), upstream]
        with (folder / "log").open("wb") as log:
            self.server = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: answers(port), self.server, folder / "log")

    def fails(self, how: str, what: str = ".", after: int = 0, times: int = -1) -> None:
        """Fail, `how` being a status or "close", for requests `METHOD path` that match, after so many, so often."""
        order = json.dumps({"how": how, "what": what, "after": after, "times": times}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/__fault__", data=order, method="PUT")).close()


@pytest.fixture(scope="session")
def faulty_server(object_store_server: ObjectStore, scratch: Path) -> Iterator[Faulty]:
    server = Faulty(object_store_server.endpoint, scratch / "faulty")
    yield server
    end(server.server)


@pytest.fixture
def faulty(faulty_server: Faulty, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    """The store behind a server that passes everything on until it is told to fail; the environment names it."""
    faulty_server.fails("", "$nothing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty_server.endpoint)
    return faulty_server
