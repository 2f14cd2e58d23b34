"""RecTools' side of the benchmarks; runs in the environment of `make peers`, never in ours.

Reads one JSON object from standard input and prints one: `{"task": ..., "arrays": FILE.npz, ...}`. RecTools is used as
its documentation shows; what is measured is stated at each task.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel
from rectools.models.rank import Distance, ImplicitRanker, TorchRanker
from rectools.version import VERSION
from scipy import sparse

MODELS = {"BERT4RecModel": BERT4RecModel, "SASRecModel": SASRecModel}


class EpochEnds(Callback):
    """The moment at which each training epoch ended."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_train_epoch_end(self, *_: Any) -> None:
        self.moments.append(time.perf_counter())


def train(job: dict[str, Any], arrays: Any) -> dict[str, Any]:
    """Seconds from the end of one training epoch to the end of the next: collating, steps, Lightning's bookkeeping.

    The first epoch, and with it the preparation of the data, is the warm-up and not among them.
    """
    model = _model(job, max_epochs=job["epochs"] + 1)
    model.fit(_dataset(arrays["items"], arrays["offsets"]))
    ends = next(callback for callback in model.fit_trainer.callbacks if isinstance(callback, EpochEnds))
    prepared = model.data_preparator.train_dataset
    return {
        "seconds": np.diff(ends.moments).tolist(),
        "events": len(prepared.interactions.df),
        "items": prepared.item_id_map.size - model.data_preparator.n_item_extra_tokens,
    }


def recommend(job: dict[str, Any], arrays: Any) -> dict[str, Any]:
    """Seconds of `recommend` for all users: preparing, encoding, ranking, making the table.

    The model has made one training step; how well it ranks does not matter for how long it takes.
    """
    dataset = _dataset(arrays["items"], arrays["offsets"])
    model = _model(job, max_epochs=1, limit_train_batches=1)
    model.fit(dataset)
    users = np.arange(len(arrays["offsets"]) - 1)
    seconds, rows = _times(
        job["runs"], lambda: len(model.recommend(users=users, dataset=dataset, k=job["k"], filter_viewed=True))
    )
    return {"seconds": seconds, "rows": rows}


def rank(job: dict[str, Any], arrays: Any) -> dict[str, Any]:
    """Seconds and CPU seconds of both rankers on given vectors, and their lists; row 0 of the vectors is padding."""
    queries, vectors, items, offsets = (arrays[name] for name in ("queries", "vectors", "items", "offsets"))
    users = np.arange(len(queries))
    seen = sparse.csr_matrix(
        (np.ones(len(items), dtype=np.float32), (np.repeat(users, np.diff(offsets)), items)),
        shape=(len(queries), len(vectors)),
    )
    known = np.arange(1, len(vectors))
    answer: dict[str, Any] = {}
    for ranker in (TorchRanker(Distance.DOT, "cpu", queries, vectors), ImplicitRanker(Distance.DOT, queries, vectors)):
        cpu: list[float] = []

        def ranked(ranker: Any = ranker, cpu: list[float] = cpu) -> Any:
            began = time.process_time()
            found = ranker.rank(users, job["k"], seen, known)
            cpu.append(time.process_time() - began)
            return found

        seconds, (_, codes, _) = _times(job["runs"], ranked)
        lists = np.asarray(codes).reshape(len(users), -1)
        answer[type(ranker).__name__] = {"seconds": seconds, "cpu": cpu[1:], "lists": lists.tolist()}
    return answer


def _model(job: dict[str, Any], **trainer: Any) -> Any:
    model = MODELS[job["model"]](**job["arguments"])
    model._trainer = Trainer(  # the documented way to a trainer of one's own
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[EpochEnds()],
        **trainer,
    )
    return model


def _dataset(items: np.ndarray, offsets: np.ndarray) -> Dataset:
    """Interactions of flat histories; the place in the array is the time."""
    users = np.arange(len(offsets) - 1)
    return Dataset.construct(
        pd.DataFrame(
            {
                Columns.User: np.repeat(users, np.diff(offsets)),
                Columns.Item: items,
                Columns.Weight: 1.0,
                Columns.Datetime: pd.to_datetime(np.arange(len(items)), unit="s"),
            }
        )
    )


def _times(runs: int, work: Any) -> tuple[list[float], Any]:
    """Seconds of each run, after one that is not counted, and the last result."""
    seconds, result = [], work()
    for _ in range(runs):
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    return seconds, result


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    job = json.load(sys.stdin)
    arrays = np.load(job["arrays"], allow_pickle=False)
    task = {"train": train, "recommend": recommend, "rank": rank}[job["task"]]
    print(json.dumps({"rectools": VERSION} | task(job, arrays)))


if __name__ == "__main__":
    main()
