"""The bundle behind MLflow's `pyfunc`: this file is the model's code, the bundle's files are its data.

MLflow keeps a copy of it and runs that copy when the model is loaded (models from code); nothing is pickled.

    model = mlflow.pyfunc.load_model("models:/movielens-1m@candidate")
    model.predict([{"history": ["1193", "661"], "k": 10}])
"""

from __future__ import annotations

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel, ConfigDict

from recsys.errors import InputError
from recsys.serving.recommender import BundleRecommender, open_bundle


class Query(BaseModel):
    """A history of item ids as text or numbers, oldest first, and how many items are wanted."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    history: list[str]
    k: int = 10


class Answer(BaseModel):
    """Item ids as text, best first, with titles (empty where unknown) and scores.

    `unknown` are ids of the history that the bundle does not know; they were left out. `error` says why there is no
    item; the other answers of the batch do not suffer from it.
    """

    items: list[str]
    titles: list[str]
    scores: list[float]
    unknown: list[str] = []
    error: str = ""


class BundleModel(PythonModel):
    """Recommends from a bundle alone."""

    recommender: BundleRecommender

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle among the model's artifacts; every file is compared with its hash."""
        self.recommender = open_bundle(context.artifacts["bundle"])

    def predict(
        self, context: PythonModelContext, model_input: list[Query], params: dict[str, Any] | None = None
    ) -> list[Answer]:
        """The next items after each history."""
        return [self._answer(query) for query in model_input]

    def _answer(self, query: Query) -> Answer:
        try:
            found = self.recommender.answer(query.history, query.k)
        except InputError as error:
            return Answer(items=[], titles=[], scores=[], error=str(error))
        return Answer(
            items=[str(row["item_id"]) for row in found.items],
            titles=[row["title"] or "" for row in found.items],
            scores=[row["score"] for row in found.items],
            unknown=found.unknown,
        )


set_model(BundleModel())
