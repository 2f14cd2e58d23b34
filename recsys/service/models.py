"""Requests and responses, as the OpenAPI page shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    WrapValidator,
)

from recsys.serving import queries

Id = Annotated[StrictStr, Field(max_length=1024)] | Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Value = StrictStr | StrictInt | Annotated[float, Field(allow_inf_nan=False, strict=True)] | StrictBool | None


class Request(BaseModel):
    """Base of requests: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(Request):
    """Event of a history."""

    item: Id
    time: AwareDatetime | None = Field(default=None, description="ISO 8601 with a zone, or seconds since 1970 (UTC).")
    event: Annotated[StrictStr, Field(max_length=1024)] | None = Field(
        default=None, description='Its kind, as the log has it: "view", "purchase".'
    )
    weight: Annotated[float, Field(allow_inf_nan=False, strict=True)] | None = Field(
        default=None, description="A rating or a count, as the log has it."
    )


class RecommendRequest(Request):
    """Query for the next items of a user or of a history."""

    user: Id | None = Field(default=None, description="A user of the log, whose events precede `history`.")
    history: list[Id | Event] = Field(
        default=[], description="Item ids or events, oldest first. Items that the bundle does not know are left out."
    )
    k: StrictInt = Field(default=10, ge=1, le=10**9, description="Length of the list.")
    exclude: list[Id] = Field(default=[], description="Items to leave out.")
    exclude_seen: StrictBool | None = Field(
        default=None, description="Leave out the history's own items; null: as the configuration says."
    )
    attributes: dict[str, Value | list[Value]] | None = Field(
        default=None, description="Attributes of the user, by the names of [users]; they override those of the log."
    )
    rules: list[StrictStr] | None = Field(
        default=None, description="Rules of the configuration to apply, by name; null: all of them; []: none."
    )


def _refused(value: Any, read: Callable[[Any], RecommendRequest]) -> RecommendRequest | str:
    """Return a query, or the sentence of its error: one bad query fails no other of its batch."""
    try:
        return read(value)
    except ValidationError as error:
        return sentence(error.errors())


class BatchRequest(Request):
    """Several queries, answered in their order."""

    queries: list[Annotated[RecommendRequest, WrapValidator(_refused)]] = Field(min_length=1)


class SimilarRequest(Request):
    """Query for similar items."""

    item: Id
    k: StrictInt = Field(default=10, ge=1, le=10**9, description="Length of the list.")


class Item(BaseModel):
    """An item of a list, best first."""

    rank: int
    item_id: str | int
    title: str | None
    score: float
    source: str | None = Field(default=None, description='Sources of the item, such as "vector+transitions".')


class RecommendResponse(BaseModel):
    """Next items."""

    items: list[Item]
    unknown: list[str] = Field(description="Ids of the history that the bundle does not know; they were left out.")
    by_fallback: bool = Field(description="The model knows nothing of the history: the list is by popularity.")
    known_user: bool | None = Field(description="Whether the log has the user; null where none was given.")
    bundle: str


class Error(BaseModel):
    """Error, in one sentence."""

    error: str


class BatchResponse(BaseModel):
    """An answer for each query, in their order."""

    answers: list[RecommendResponse | Error]


class SimilarResponse(BaseModel):
    """Items whose vectors point the same way; `score` is the cosine."""

    items: list[Item]
    bundle: str


class UserResponse(BaseModel):
    """Rows of the candidate table."""

    user: str | int
    items: list[Item]
    run: str
    bundle: str
    as_of: datetime


class Status(BaseModel):
    """Status of the process."""

    status: Literal["ok"] = "ok"


class VersionResponse(BaseModel):
    """Versions of program, bundle and tables."""

    program: str
    name: str
    bundle: str
    kind: str
    run: str | None
    released: str | None = Field(description="Time of the release.")
    since: datetime = Field(description="Time at which this process loaded the bundle.")
    table: str | None
    table_version: int | None
    interactions_version: int | None = Field(description="Version of the log that `user` refers to.")
    items_version: int | None = Field(description="Version of the catalogue that may be recommended.")


def events_of(history: list[str | int | Event]) -> list[queries.Event]:
    """Convert a history for `recsys.serving`."""
    return [
        queries.Event(
            item=str(one.item),
            time=None if one.time is None else queries.microseconds(one.time),
            event=one.event,
            weight=one.weight,
        )
        if isinstance(one, Event)
        else queries.Event(item=str(one))
        for one in history
    ]


def sentence(problems: list[Any]) -> str:
    """Return one sentence about the first of pydantic's errors."""
    first: Mapping[str, Any] = problems[0]
    place = [part for part in first["loc"] if part != "body"]
    named = [str(part) for part in place if isinstance(part, int) or str(part).islower()]
    named = [part for part in named if not part.startswith(("constrained-", "function-", "str", "int", "list["))]
    where = ".".join(named)
    if first["type"] == "json_invalid":
        return f"The body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}."
    if first["type"] == "missing":
        return f"{where or 'The body'} is missing; see /docs for the fields."
    if first["type"] == "extra_forbidden":
        return f"There is no field {where!r}; see /docs for the fields."
    if named[:1] == ["history"] and len(named) == 2:
        return f'{where} is no item id (text or a whole number) and no event such as {{"item": "i1"}}.'
    if not where:
        return "The body is no JSON object; send one, with `Content-Type: application/json`."
    message = str(first["msg"])
    return f"{where}: {message[0].lower()}{message[1:].rstrip('.')}."
