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


class Given(BaseModel):
    """What a request may hold; an unknown field is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(Given):
    """Something that the user did."""

    item: Id
    time: AwareDatetime | None = Field(default=None, description="ISO 8601 with a zone, or seconds since 1970 (UTC).")
    event: Annotated[StrictStr, Field(max_length=1024)] | None = Field(
        default=None, description='Its kind, as the log has it: "view", "purchase".'
    )
    weight: Annotated[float, Field(allow_inf_nan=False, strict=True)] | None = Field(
        default=None, description="A rating or a count, as the log has it."
    )


class Question(Given):
    """Whose next items are wanted."""

    user: Id | None = Field(default=None, description="A user of the log. What the log knows comes before `history`.")
    history: list[Id | Event] = Field(
        default=[], description="Item ids or events, oldest first. Items that the bundle does not know are left out."
    )
    k: StrictInt = Field(default=10, ge=1, le=10**9, description="Items wanted.")
    exclude: list[Id] = Field(default=[], description="Items that must not come.")
    exclude_seen: StrictBool | None = Field(
        default=None, description="Leave out the history's own items; null: as the configuration says."
    )
    attributes: dict[str, Value | list[Value]] | None = Field(
        default=None, description="What is known of the user, by the names of [users]; it goes before the log's."
    )
    rules: list[StrictStr] | None = Field(
        default=None, description="Names of the configuration's rules that hold; null: all of them; []: none."
    )


def _refused(value: Any, read: Callable[[Any], Question]) -> Question | str:
    """Return a question, or why it is none: the others of a batch are answered all the same."""
    try:
        return read(value)
    except ValidationError as error:
        return sentence(error.errors(), value)


class Questions(Given):
    """Several questions, answered in their order."""

    queries: list[Annotated[Question, WrapValidator(_refused)]] = Field(min_length=1)


class LikeWhat(Given):
    """An item that others shall be similar to."""

    item: Id
    k: StrictInt = Field(default=10, ge=1, le=10**9, description="Items wanted.")


class Item(BaseModel):
    """An item of a list, best first."""

    rank: int
    item_id: str | int
    title: str | None
    score: float
    source: str | None = Field(
        default=None, description='Who proposed it: "vector+transitions", "fallback-popularity".'
    )


class Answer(BaseModel):
    """The items that come next."""

    items: list[Item]
    unknown: list[str] = Field(description="Ids of the history that the bundle does not know; they were left out.")
    by_fallback: bool = Field(description="The model had nothing to say: these items are what sells now.")
    known_user: bool | None = Field(description="Whether the log has the user; null where none was given.")
    bundle: str


class Refused(BaseModel):
    """Why there is no answer, in one sentence."""

    error: str


class Answers(BaseModel):
    """An answer for each question, in their order."""

    answers: list[Answer | Refused]


class Similar(BaseModel):
    """Items whose vectors point the same way; `score` is the cosine."""

    items: list[Item]
    bundle: str


class UserRows(BaseModel):
    """Rows of the candidate table."""

    user: str | int
    items: list[Item]
    run: str
    bundle: str
    as_of: datetime


class Alive(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Version(BaseModel):
    """What answers."""

    program: str
    name: str
    bundle: str
    kind: str
    run: str | None
    released: str | None = Field(description="When the release was switched in, for all readers.")
    since: datetime = Field(description="When this process began to answer by it.")
    table: str | None
    table_version: int | None
    interactions_version: int | None = Field(description="Of the log whose histories `user` means.")
    items_version: int | None = Field(description="Of the catalogue that says which items may be recommended.")


def events_of(history: list[str | int | Event]) -> list[queries.Event]:
    """Return a history as `recsys.serving` takes it."""
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


def sentence(problems: list[Any], value: Any = None) -> str:
    """One sentence about the first of pydantic's problems."""
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
        return f"There is no field {where!r}; see /docs for those that there are."
    if named[:1] == ["history"] and len(named) == 2:
        return f'{where} is no item id (text or a whole number) and no event such as {{"item": "i1"}}.'
    message = str(first["msg"])
    return f"{where or 'The body'}: {message[0].lower()}{message[1:].rstrip('.')}."
