"""A real server on loopback: switches and bad bundles under requests, and a clean end."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recsys.bundles.manifest import WEIGHTS
from recsys.errors import InputError
from recsys.service.run import ServiceOptions, run
from tests.recsys.service.shops import AnsweringShop

PATIENCE = 120  # (s) nothing waits as long, whatever else the machine does


@contextmanager
def started(name: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`recsys serve` and its port."""
    command = [sys.executable, "-m", "recsys", "serve", str(name), "--port", "0", "--poll", "0.1", *options]
    environment = {key: value for key, value in os.environ.items() if key != "RECSYS_TOKEN"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            said = process.stdout.readline()
            found = re.match(r"Serving \S+ at http://127\.0\.0\.1:(\d+)", said)
            assert found, said + process.stderr.read()
            yield process, int(found[1])
        finally:
            if process.poll() is None:
                process.kill()


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    headers = {"content-type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, json.loads(content) if answer.headers["content-type"] == "application/json" else content


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


class Clients(threading.Thread):
    """A client that asks again and again; what went wrong is kept."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.over = port, threading.Event()
        self.answers: list[tuple[str, str]] = []
        self.wrong: list[Any] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        while not self.over.is_set():
            try:
                status, said = ask(connection, "POST", "/recommend", {"history": [1, 2], "k": 2})
                if status != 200:
                    self.wrong.append(said)
                else:
                    self.answers.append((said["bundle"], said["items"][0]["title"]))
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(type(error).__name__)
                connection.close()
        connection.close()


def test_no_request_fails_while_bundles_are_switched_and_bad_ones_refused(tmp_path: Path) -> None:
    shop = AnsweringShop(tmp_path / "w")
    good = {content: shop.bundle(content) for content in ("one", "two")}
    shop.point(good["one"])
    with started(shop.root / "bundles" / "shop") as (process, port):
        control = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

        def serves(content: str) -> Callable[[], bool]:
            return lambda: ask(control, "GET", "/version")[1]["bundle"] == good[content].name

        def refused(times: int) -> Callable[[], bool]:
            return lambda: f"recsys_refused_bundles_total {times}.0" in ask(control, "GET", "/metrics")[1].decode()

        clients = [Clients(port) for _ in range(3)]
        for client in clients:
            client.start()
        until(lambda: all(len(client.answers) > 3 for client in clients))
        shop.point(good["two"])
        until(serves("two"))
        damaged = shop.bundle("three")
        content = bytearray((damaged / WEIGHTS).read_bytes())
        (damaged / WEIGHTS).write_bytes(content[:-1] + b"?")
        shop.point(damaged)
        until(refused(1))
        shutil.rmtree(damaged)  # now it is missing
        until(refused(2))
        assert serves("two")()
        shop.point(good["one"])  # the way back
        until(serves("one"))
        control.close()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=PATIENCE)[1]
        for client in clients:
            client.over.set()
            client.join(PATIENCE)
    assert process.returncode == 0, said
    lines = said.splitlines()
    assert [line.split(" ", 1)[1].split(" ")[0] for line in lines] == ["Switched", "Refused", "Refused", "Switched"]
    assert "its sha256 differs" in lines[1] and "is gone" in lines[2] and "Traceback" not in said
    answers = [answer for client in clients for answer in client.answers]
    titles = {good["one"].name: "one 3", good["two"].name: "two 3"}
    assert {bundle for bundle, _ in answers} == set(titles)
    assert all(title == titles[bundle] for bundle, title in answers)  # one bundle from end to end
    # the server has gone: nothing else went wrong, and nothing before that
    assert {str(wrong) for client in clients for wrong in client.wrong} <= {
        "ConnectionRefusedError", "RemoteDisconnected", "ConnectionResetError", "BrokenPipeError",
    }  # fmt: skip
    assert len(answers) > 50


def test_a_port_in_use_and_a_wrong_host_are_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} of 127.0.0.1 is in use"):
            run(ServiceOptions(name=str(tmp_path), port=port), lambda _: None)
    with pytest.raises(InputError, match=r"203\.0\.113\.1:0 cannot be listened at"):
        run(ServiceOptions(name=str(tmp_path), host="203.0.113.1", port=0, no_token=True), lambda _: None)


def test_a_damaged_bundle_at_the_start_is_a_sentence(tmp_path: Path) -> None:
    bundle = AnsweringShop(tmp_path).bundle("one")
    (bundle / WEIGHTS).write_bytes(b"?")
    with pytest.raises(InputError, match="is not the one that was written"):
        run(ServiceOptions(name=str(bundle), port=0), lambda _: None)


@pytest.mark.slow
def test_no_process_outlives_one_that_fails(tmp_path: Path) -> None:
    shop = AnsweringShop(tmp_path / "w")
    bundle = shop.bundle("one")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "recsys", "serve", str(bundle), "--workers", "2", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()  # nobody reads that it serves
        assert process.wait(PATIENCE) == 141
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.slow
def test_several_processes_share_a_port_and_their_numbers(tmp_path: Path) -> None:
    shop = AnsweringShop(tmp_path / "w")
    shop.point(shop.bundle("one"))
    with started(shop.root / "bundles" / "shop", "--workers", "2") as (process, port):
        for _ in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            assert ask(connection, "POST", "/recommend", {"history": [1]})[0] == 200
            connection.close()
        numbers = ask(connection, "GET", "/metrics")[1].decode()
        connection.close()
        assert 'recsys_requests_total{endpoint="/recommend",status="200"} 20.0' in numbers
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
