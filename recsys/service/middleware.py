"""ASGI middleware in front of every request: token, size of the body, metrics, and errors that nothing else handles.

It reads the body before the application does, up to the limit.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.errors import first_line
from recsys.service.failures import failure
from recsys.service.limits import Limits, is_allowed
from recsys.service.metrics import Metrics

_LOGGER: Final = logging.getLogger("recsys")
_ENDPOINTS: Final = frozenset(
    ("/recommend", "/recommend/batch", "/similar", "/health", "/ready", "/version", "/metrics", "/docs")
)


_BODY: Final = "recsys.body"  # key of the scope


class _TooLarge(Exception):
    """The body exceeds the limit."""


class _Gone(Exception):
    """The client has closed the connection."""


class Guard:
    """Middleware around the application."""

    def __init__(self, app: ASGIApp, *, limits: Limits, token: str | None, metrics: Metrics) -> None:
        self.app, self.limits, self.token, self.metrics = app, limits, token, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = await self._refusal(scope, receive, counted)
            if refusal is not None:
                await refusal(scope, receive, counted)
        except _Gone:
            status = 499
        except Exception as error:  # the application has sent a 500
            _LOGGER.error("%s failed: %s.", _endpoint(scope["path"]), failure(error, _given(scope)))
            _LOGGER.debug("%s", first_line(error), exc_info=error)
        endpoint = _endpoint(scope["path"])
        self.metrics.requests.labels(endpoint, str(status)).inc()
        self.metrics.seconds.labels(endpoint).observe(time.perf_counter() - began)

    async def _refusal(self, scope: Scope, receive: Receive, send: Send) -> JSONResponse | None:
        headers = dict(scope["headers"])
        if not is_allowed(self.token, scope["path"], headers.get(b"authorization")):
            answer = _error(401, "The request bears no token, or another one; send `Authorization: Bearer TOKEN`.")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        if scope["method"] == "POST":
            try:
                body = await self._body(headers.get(b"content-length"), receive)
            except _TooLarge:
                answer = _error(413, f"The body is above this service's limit of {self.limits.body:,} bytes.")
                answer.headers["Connection"] = "close"  # what is still to come is not read
                return answer
            scope[_BODY] = body
            receive = _replayed(body, receive)
        await self.app(scope, receive, send)
        return None

    async def _body(self, length: bytes | None, receive: Receive) -> bytes:
        if length is not None and length.isdigit() and int(length) > self.limits.body:
            raise _TooLarge
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body:
                raise _TooLarge
            if not message.get("more_body", False):
                return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _endpoint(path: str) -> str:
    """The endpoint of a path without what it holds: ids of users stay out of metrics and logs."""
    if path.startswith("/users/"):
        return "/users/{user}"
    return path if path in _ENDPOINTS else "other"


def _given(scope: Scope) -> list[Any]:
    """Contents of a request: the parts of its path and of its query, and its body."""
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
    try:
        body = orjson.loads(scope.get(_BODY, b"null"))
    except orjson.JSONDecodeError:
        body = scope[_BODY].decode("utf-8", "replace")
    path = scope["path"]
    return [body, [value for _, value in query], path.removeprefix("/users/") if path not in _ENDPOINTS else None]


def _error(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status)
