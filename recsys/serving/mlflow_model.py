"""The bundle behind MLflow's `pyfunc`: this file is the model's code, the bundle's files are its data.

MLflow keeps a copy of it and runs that copy when the model is loaded (models from code); nothing is pickled.

    model = mlflow.pyfunc.load_model("models:/movielens-1m@candidate")
    model.predict([{"history": ["1193", "661"], "k": 10}])

A query has the fields of the service's `POST /recommend`, and is answered as there. What is not in a bundle is not here
either: users of a log, and rules, which read a catalogue. Ids are text, and an answer has a list for each column, so
that MLflow can say its types.
"""

from __future__ import annotations

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel, field_validator

from recsys.errors import InputError
from recsys.serving.answers import Policy, answer_many
from recsys.serving.queries import CodeLookup, microseconds
from recsys.serving.queries import Event as Given
from recsys.serving.queries import Query as ServingQuery
from recsys.serving.recommender import BundleRecommender, open_bundle

TOGETHER = 256  # queries that are answered at once


def _text(value: Any) -> Any:
    """Numbers as text: MLflow reads input strictly."""
    if isinstance(value, list):
        return [_text(one) for one in value]
    if isinstance(value, dict):
        return {key: _text(one) for key, one in value.items()}
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class Event(BaseModel):
    """Something that the user did; `time` is ISO 8601 with a zone."""

    item: str
    time: str = ""
    event: str = ""
    weight: float | None = None

    _as_text = field_validator("item", mode="before")(_text)


class Query(BaseModel):
    """A history of item ids as text or numbers, oldest first, and how many items are wanted.

    `events` come after `history`, for models that read when and how something happened. `exclude` are items that must
    not come; `attributes` is what is known of the user, by the names of [users].
    """

    history: list[str] = []
    k: int = 10
    events: list[Event] = []
    exclude: list[str] = []
    exclude_seen: bool = True
    attributes: dict[str, str] = {}

    _as_text = field_validator("history", "exclude", "attributes", mode="before")(_text)


class Answer(BaseModel):
    """Item ids as text, best first, with titles (empty where unknown), scores, and who proposed each.

    `unknown` are ids of the history that the bundle does not know; they were left out. `by_fallback` tells that the
    model had nothing to say, and the items are what sells now. `error` says why there is no item; the other answers of
    the batch do not suffer from it.
    """

    items: list[str]
    titles: list[str]
    scores: list[float]
    sources: list[str] = []
    unknown: list[str] = []
    by_fallback: bool = False
    error: str = ""


class BundleModel(PythonModel):
    """Recommends from a bundle alone."""

    recommender: BundleRecommender
    codes: CodeLookup
    policy: Policy

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle among the model's artifacts; every file is compared with its hash."""
        self.recommender = open_bundle(context.artifacts["bundle"])
        self.codes = CodeLookup(self.recommender.bundle.vocabulary)
        self.policy = Policy(fallback=self.recommender.fallback)

    def predict(
        self, context: PythonModelContext, model_input: list[Query], params: dict[str, Any] | None = None
    ) -> list[Answer]:
        """The next items after each history."""
        found: list[Answer] = []
        for start in range(0, len(model_input), TOGETHER):
            found += self._answers(model_input[start : start + TOGETHER])
        return found

    def _answers(self, queries: list[Query]) -> list[Answer]:
        asked: list[ServingQuery | InputError] = []
        for query in queries:
            try:
                asked.append(_serving_query(query))
            except InputError as error:
                asked.append(error)
        sound = [one for one in asked if isinstance(one, ServingQuery)]
        found = iter(answer_many(self.recommender, self.codes, sound, lambda names: self.policy))
        return [_told(one if isinstance(one, InputError) else next(found)) for one in asked]


def _serving_query(query: Query) -> ServingQuery:
    events = [Given(item=item) for item in query.history]
    events += [
        Given(
            item=one.item,
            time=microseconds(one.time) if one.time else None,
            event=one.event or None,
            weight=one.weight,
        )
        for one in query.events
    ]
    return ServingQuery(
        history=events,
        k=query.k,
        exclude=query.exclude,
        exclude_seen=query.exclude_seen,
        attributes=query.attributes or None,
    )


def _told(found: Any) -> Answer:
    if isinstance(found, InputError):
        return Answer(items=[], titles=[], scores=[], error=str(found))
    return Answer(
        items=[str(row["item_id"]) for row in found.items],
        titles=[row["title"] or "" for row in found.items],
        scores=[row["score"] for row in found.items],
        sources=[row["source"] for row in found.items],
        unknown=found.unknown,
        by_fallback=found.by_fallback,
    )


set_model(BundleModel())
