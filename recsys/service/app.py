"""Endpoints, and errors as one sentence under `error`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.metadata import version
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from recsys.columns import PADDING
from recsys.errors import InputError, RecsysError
from recsys.service import models
from recsys.service.batching import Batcher, Busy
from recsys.service.failures import failure
from recsys.service.following import Follower
from recsys.service.limits import Limits
from recsys.service.metrics import Metrics
from recsys.service.middleware import Guard
from recsys.service.models import BatchRequest, RecommendRequest, SimilarRequest
from recsys.service.served import Served
from recsys.serving.recommender import Answer

Told = tuple[Answer | InputError, bool | None, str]  # with whether the log has the user, and the bundle's label

ANSWERS: Final = "Answers"  # headings of the page
OPERATION: Final = "Operation"
_PLACES: Final = ["i1", "i2", "i3"]  # placeholders of item ids
FAILED: Final = "The service failed at this request; its log says how."
_LOGGER: Final = logging.getLogger("recsys")
_ERRORS: Final = {
    400: "The body is not JSON.",
    401: "There is no token, or another one.",
    404: "There is no such user, item or page.",
    413: "The body is too large.",
    422: "A field is missing, unknown or out of its range.",
    503: "Nothing is served yet, or too many queries wait.",
}


class NotFound(RecsysError):
    """No such user or item; status 404."""


class Unavailable(RecsysError):
    """No answer for now; status 503."""


def create_app(follower: Follower, metrics: Metrics, *, limits: Limits, token: str | None, poll: float) -> Guard:
    """Make the ASGI application.

    Parameters
    ----------
    follower
        Holder of the serving state.
    token
        Bearer token that requests need; None: none.
    poll
        (s) between two polls of the follower.
    """

    def answer(queries: Sequence[RecommendRequest]) -> list[Told]:
        served = _served(follower)  # once for the batch
        metrics.batch.observe(len(queries))
        told: list[Told] = [(found, known, served.label) for found, known in served.answer(queries)]
        metrics.fallback.inc(sum(isinstance(found, Answer) and found.by_fallback for found, _, _ in told))
        metrics.unknown.inc(sum(len(found.unknown) for found, _, _ in told if isinstance(found, Answer)))
        return told

    batcher: Batcher[RecommendRequest, Told] = Batcher(answer, waiting=limits.waiting)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(follower.follow(poll))
        yield
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        batcher.close()

    app = FastAPIOffline(
        redoc_url=None,
        lifespan=lifespan,
        title="recsys",
        version=version("recsys"),
        description="Items that come next, by the bundle that is served.",
        responses={status: {"model": models.Error, "description": said} for status, said in _ERRORS.items()},
    )
    _declare(app, follower, secured=token is not None)
    _handle_errors(app)

    @app.post("/recommend", tags=[ANSWERS], response_model=models.RecommendResponse)
    async def recommend(query: RecommendRequest) -> Response:
        """Recommend the items that come next for a user of the log, or after a history, or both."""
        limits.check(query)
        return _json(_told(*await batcher.ask(query)))

    @app.post("/recommend/batch", tags=[ANSWERS], response_model=models.BatchResponse)
    async def recommend_batch(queries: BatchRequest) -> Response:
        """Answer several queries; one that cannot be answered has an `error` in its place."""
        if len(queries.queries) > limits.queries:
            raise InputError(f"{len(queries.queries)} queries are above this service's limit of {limits.queries}.")
        answers: list[Any] = [_checked(query, limits) for query in queries.queries]
        sound = [place for place, one in enumerate(answers) if isinstance(one, RecommendRequest)]
        found = await batcher.ask_each([answers[place] for place in sound])
        for place, told in zip(sound, found, strict=True):
            answers[place] = _told_in_place(answers[place], told)
        return _json({"answers": answers})

    @app.post("/similar", tags=[ANSWERS], response_model=models.SimilarResponse)
    def similar(asked: SimilarRequest) -> Response:
        """List the items that are most similar to an item."""
        limits.check(asked)
        served = _served(follower)
        if served.codes.of([str(asked.item)]) == [PADDING]:
            raise NotFound(f"There is no item {str(asked.item)!r} in {served.label}.")
        return _json({"items": served.recommender.similar(asked.item, asked.k), "bundle": served.label})

    @app.get("/users/{user:path}", tags=[ANSWERS], response_model=models.UserResponse)
    def user_rows(user: str, k: int | None = None) -> Response:
        """Read the rows of a user in the candidate table: as the last night wrote them."""
        served = _served(follower)
        if k is not None and k < 1:
            raise InputError(f"k = {k} must be at least 1.")
        try:
            rows = served.rows(user, k)
        except InputError as error:
            raise NotFound(str(error)) from None
        except RecsysError as error:
            raise Unavailable(str(error)) from None
        if rows is None:
            raise NotFound(f"The candidate table has no user {user!r}; ask POST /recommend.")
        return _json(rows)

    @app.get("/health", tags=[OPERATION], response_model=models.Status)
    async def health() -> Response:
        """Tell that the process lives."""
        return _json({"status": "ok"})

    @app.get("/ready", tags=[OPERATION], response_model=models.Status)
    async def ready() -> Response:
        """Tell whether a bundle is loaded."""
        _served(follower)
        return _json({"status": "ok"})

    @app.get("/version", tags=[OPERATION], response_model=models.VersionResponse)
    async def versions() -> Response:
        """Return the versions of program, bundle and tables."""
        return _json(_version(_served(follower)))

    @app.get("/metrics", tags=[OPERATION], responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
    def prometheus() -> Response:
        """Return metrics for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return Guard(app, limits=limits, token=token, metrics=metrics)


def _served(follower: Follower) -> Served:
    served = follower.current
    if served is None:
        raise Unavailable("Nothing is served yet: there is no release; run `recsys run CONFIG`.")
    return served


def _checked(query: RecommendRequest | str, limits: Limits) -> RecommendRequest | dict[str, str]:
    if isinstance(query, str):
        return {"error": query}
    try:
        limits.check(query)
    except InputError as error:
        return {"error": str(error)}
    return query


def _told(found: Answer | InputError, known: bool | None, label: str) -> dict[str, Any]:
    if isinstance(found, InputError):
        raise found
    return {
        "items": found.items,
        "unknown": found.unknown,
        "by_fallback": found.by_fallback,
        "known_user": known,
        "bundle": label,
    }


def _told_in_place(query: RecommendRequest, told: Told | Exception) -> dict[str, Any]:
    """An answer or an error of one query of several; it fails no other."""
    if isinstance(told, Unavailable):  # nothing is served, so no query has an answer
        raise told
    try:
        if isinstance(told, Exception):
            raise told
        return _told(*told)
    except RecsysError as error:
        return {"error": str(error)}
    except Exception as error:
        _LOGGER.error("/recommend/batch failed at a query: %s.", failure(error, query.model_dump(exclude_unset=True)))
        return {"error": FAILED}


def _version(served: Served) -> dict[str, Any]:
    bundle, versions = served.recommender.bundle, served.versions
    return {
        "program": version("recsys"),
        "name": bundle.settings.name,
        "bundle": served.label,
        "kind": bundle.kind,
        "run": served.target.run,
        "released": served.target.released,
        "since": served.since,
        "table": None if served.table is None else served.table.path.rstrip("/").rpartition("/")[2],
        "table_version": None if served.table is None else served.table.version,
        "interactions_version": None if versions is None else versions.interactions,
        "items_version": None if versions is None else versions.items,
    }


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _handle_errors(app: FastAPI) -> None:
    def handler(status: int) -> Callable[[Request, Exception], Response]:
        return lambda request, error: _json({"error": str(error)}, status)

    for kind, status in ((NotFound, 404), (Unavailable, 503), (InputError, 422), (RecsysError, 503)):
        app.add_exception_handler(kind, handler(status))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _json({"error": FAILED}, 500)

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        return _json({"error": "Too many queries wait; ask again in a moment."}, 503)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = error.errors()
        status = 400 if problems[0]["type"] == "json_invalid" else 422
        return _json({"error": models.sentence(list(problems))}, status)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        said = {
            400: "The body is not JSON.",
            404: "There is no such page; /docs lists those that there are.",
            405: f"{request.method} is not for this page; /docs says what is.",
        }
        answer = _json({"error": said.get(error.status_code, f"{error.detail}.")}, error.status_code)
        answer.headers.update(error.headers or {})
        return answer


def _declare(app: FastAPI, follower: Follower, *, secured: bool) -> None:
    """Give the OpenAPI page examples: of what is served now, or placeholders where that is not for everybody.

    The page is open, so with a token it must show no id.
    """

    def declared() -> dict[str, Any]:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = made["components"]["schemas"]
        items, user = (_PLACES, "u1") if secured else _some_ids(follower.current)
        for name, example in _examples(items, user).items():
            schemas[name]["example"] = example
        if secured:
            made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"token": []}]
        for parameter in made["paths"]["/users/{user}"]["get"]["parameters"]:
            if parameter["name"] == "user" and user is not None:
                parameter["example"] = user
        return made

    app.openapi = declared  # type: ignore[method-assign]


def _some_ids(served: Served | None) -> tuple[list[Any], str | int | None]:
    """Ids of up to three items, and of a user whom both the log and the table have."""
    if served is None:
        return [], None
    items = served.recommender.bundle.vocabulary.items.head(3).to_list()
    return items, None if served.table is None or served.log is None else served.table.first


def _examples(items: list[Any], user: str | int | None) -> dict[str, Any]:
    if not items:
        return {}
    query: dict[str, Any] = {"history": items, "k": 5}
    second = {"history": items[:1], "k": 5} if user is None else {"user": user, "k": 5}
    return {
        "RecommendRequest": query,
        "BatchRequest": {"queries": [query, second]},
        "SimilarRequest": {"item": items[0], "k": 5},
    }
