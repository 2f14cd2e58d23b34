"""recsys: a nightly table of top-k items for each user, from an interaction log and an item catalogue.

The names below are the public API. They are imported when they are first used, so `import recsys` is fast.

>>> import tempfile
>>> import polars as pl
>>> import recsys
>>> events = pl.DataFrame(  # 100 users who each go through six of ten items in a ring
...     [(user, (user + step) % 10, 1_700_000_000 + 60 * step) for user in range(100) for step in range(6)],
...     schema=["user_id", "item_id", "timestamp"],
...     orient="row",
... )
>>> settings = recsys.configure(events, folder=tempfile.mkdtemp(), overrides=["train.epochs=2"])
>>> model = recsys.fit(settings)  # ingest, represent, train; no MLflow, no Prefect
>>> model.recommend([[3, 4], [7, 8, 9]], k=1)["item_id"].to_list()
[5, 0]
>>> report = recsys.evaluate(settings, model)
>>> report.metrics["test/ndcg_at_10"] > report.baselines["popularity"]["test/ndcg_at_10"]
True

`recsys.run(settings)` runs the whole night and records it in MLflow; `recsys.load_settings("recsys.toml")` reads the
command's configurations.

Everything else may change between versions without notice, except the contracts that `docs/how-to/` describes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.api import configure, evaluate, fit, load, run
    from recsys.errors import InputError, RecsysError
    from recsys.evaluation.compare import EvaluationReport
    from recsys.serving.model import Model
    from recsys.settings import Settings
    from recsys.settings.read import load_settings

__version__ = "0.1.0"

_HOMES = {
    "configure": "recsys.api",
    "evaluate": "recsys.api",
    "fit": "recsys.api",
    "load": "recsys.api",
    "run": "recsys.api",
    "EvaluationReport": "recsys.evaluation.compare",
    "InputError": "recsys.errors",
    "Model": "recsys.serving.model",
    "RecsysError": "recsys.errors",
    "Settings": "recsys.settings",
    "load_settings": "recsys.settings.read",
}

__all__ = [
    "EvaluationReport",
    "InputError",
    "Model",
    "RecsysError",
    "Settings",
    "configure",
    "evaluate",
    "fit",
    "load",
    "load_settings",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
