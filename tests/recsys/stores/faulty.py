"""A server in front of an S3 store, in a process of its own: it passes requests on, and fails as it is told to.

It is told by `PUT /__fault__` with `{"how": "403", "what": "PUT .*part-", "after": 1, "times": 2}`. "how" is a status,
"close", which ends the connection instead of doing what is asked, or "lost", which ends it afterwards.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ERRORS = {
    "403": "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
    "503": "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
}
UPSTREAM = urlsplit(sys.argv[2]).netloc
order: dict[str, Any] = {"how": "", "what": "$nothing", "after": 0, "times": -1}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()  # the client waits for it
        return True

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def answer(self) -> None:
        body = self.body()
        if self.path == "/__fault__":
            order.update(json.loads(body))
            self.reply(200, {}, b"")
            return
        how = self.fault()
        if how == "close":
            self.close_connection = True
            return
        if how in ERRORS:
            self.reply(int(how), {"Content-Type": "application/xml"}, ERRORS[how].encode())
            return
        connection = http.client.HTTPConnection(UPSTREAM, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect")}
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        found = connection.getresponse()
        if how == "lost":
            found.read()
            self.close_connection = True
            return
        passed = {k: v for k, v in found.getheaders() if k.lower() not in ("transfer-encoding", "connection", "date")}
        self.reply(found.status, passed, found.read())
        connection.close()

    def fault(self) -> str:
        """Failure of this request; empty: none."""
        if not order["times"] or not re.search(order["what"], f"{self.command} {self.path}"):
            return ""
        order["after"] -= 1
        if order["after"] >= 0:
            return ""
        order["times"] -= 1
        return str(order["how"])

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def log_message(self, *_: Any) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
