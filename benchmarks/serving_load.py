"""Load for an HTTP service: POST requests over kept connections, each as soon as the one before is answered.

    python benchmarks/serving_load.py '{"port": 8000, "path": "/recommend", "file": "bodies.jsonl", "connections": 12,
                                "requests": 10000}'

The standard library alone, in a process of its own: it shares the processors with the service, so a request must cost
it little. Every request is made before the clock starts, and an answer is looked at only as far as its status and
length.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any


class Connection(asyncio.Protocol):
    """Sends the next request when an answer has come."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.held = bytearray()
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self._send()

    def _send(self) -> None:
        request = self.load.next()
        if request is None:
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.held += data
        end = self.held.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.held[:end]).lower()
        start = head.index(b"content-length:") + 15
        length = int(head[start : head.find(b"\r", start) if b"\r" in head[start:] else end])
        if len(self.held) < end + 4 + length:
            return
        self.load.answered(head[9:12], bytes(self.held[end + 4 :]), time.perf_counter() - self.began)
        self.held.clear()
        if self.load.pause:
            asyncio.get_running_loop().call_later(self.load.pause, self._send)
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self.load.lost()


class Load:
    """Requests in turn, and what became of them."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        bodies = Path(job["file"]).read_bytes().splitlines()
        token = f"Authorization: Bearer {job['token']}\r\n" if job.get("token") else ""
        head = f"POST {job['path']} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{token}"
        self.requests = [head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
        self.wanted, self.sent = int(job["requests"]), 0
        self.pause = float(job.get("pause", 0.0))  # (s) of a connection between an answer and the next request
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.bundles: Counter[str] = Counter()
        self.open = 0
        self.done = asyncio.get_running_loop().create_future()

    def next(self) -> bytes | None:
        if self.sent >= self.wanted:
            return None
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]

    def answered(self, status: bytes, body: bytes, seconds: float) -> None:
        self.seconds.append(seconds)
        self.statuses[status.decode()] += 1
        named = body.rpartition(b'"bundle":"')[2].partition(b'"')[0]
        self.bundles[named.decode(errors="replace")] += 1

    def lost(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.done.done():
            self.done.set_result(None)


async def run(job: dict[str, Any]) -> dict[str, Any]:
    load = Load(job)
    load.open = int(job["connections"])
    loop = asyncio.get_running_loop()
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(load.open):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", int(job["port"]))
    await load.done
    seconds = time.perf_counter() - began
    ordered = sorted(load.seconds)
    at = {f"p{share}_ms": 1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 95, 99)}
    return {
        "requests": load.sent,
        "answered": len(ordered),
        "failed": load.sent - load.statuses["200"],
        "statuses": dict(load.statuses),
        "bundles": dict(load.bundles),
        "seconds": seconds,
        "a_second": len(ordered) / seconds,
        **at,
        "slowest_ms": 1000 * ordered[-1],
        "cpu_seconds": time.process_time() - cpu,
    }


def main() -> None:
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    print(json.dumps(asyncio.run(run(json.loads(sys.argv[1])))))


if __name__ == "__main__":
    main()
