"""The search among a bundle's vectors, in MLflow: recall, and the indexes that were tried as a table and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from recsys.tracking import log as tracking
from recsys.tracking.store import Store

_COLUMNS: Final = ("factory", "parameters", "fetch", "recall", "error", "compared", "work", "cpu")


def log_index(store: Store, runs: Sequence[str], index: Mapping[str, Any] | None) -> None:
    """Log a report on the choice of an index to a step's run and its night's; None: no choice was made."""
    if index is None:
        return
    for run in runs:
        tracking.log_metrics(store, run, {"index/recall": index["recall"], "index/choice_seconds": index["seconds"]})
    points = index["points"]
    if points:
        from recsys.evaluation.plots import plot_index  # matplotlib, for the few that have a plot

        columns = {
            name: [str(point[name]) if name == "parameters" else point[name] for point in points] for name in _COLUMNS
        }
        tracking.log_table(store, runs[0], "index_sweep.json", columns)
        tracking.log_figure(store, runs[0], "plots/index.png", plot_index(index))
