"""Publish: the candidates become the newest version of their table, the bundle the newest of its name.

Plots, a sample of the candidates and the bundle itself go to the night's MLflow run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.bundles.bundle import read_bundle
from recsys.bundles.manifest import CATALOGUE
from recsys.bundles.store import publish_bundle
from recsys.evaluation import plots
from recsys.pipelines.steps import compute_task, plain, tracked
from recsys.settings import Settings
from recsys.table import build as retrieval
from recsys.table.sample import candidate_sample
from recsys.tracking import log as tracking
from recsys.tracking import registry
from recsys.training.validation import PRIMARY


def publish(
    settings: Settings,
    run_id: str,
    trained: dict[str, Any],
    evaluated: dict[str, Any],
    refitted: dict[str, Any],
    retrieved: dict[str, Any],
) -> dict[str, Any]:
    """Publish what was built, log what people look at, and register the bundle under the configuration's name."""
    candidates = plain(retrieval.publish(settings, retrieval.BuiltCandidates.of(retrieved)))
    publish_bundle(settings.warehouse, refitted["bundle"])
    figures = {
        "metrics": plots.plot_curves(evaluated["curves"]),
        "popularity": plots.plot_popularity(evaluated["popularity"]),
    }
    if trained["history"]:
        figures["training"] = plots.plot_training(
            trained["history"], loss="loss", metric=PRIMARY, best_epoch=trained["best_epoch"]
        )
    with tracked(settings) as store:
        for name, figure in figures.items():
            tracking.log_figure(store, run_id, f"plots/{name}.png", figure)
        catalogue = Path(refitted["bundle"]) / CATALOGUE
        sample = candidate_sample(settings.warehouse, candidates, candidates["run"], catalogue)
        tracking.log_table(store, run_id, "candidates.json", sample)
        tracking.log_text(store, run_id, "candidates.md", tracking.markdown_table(sample))
        example = read_bundle(refitted["bundle"], verify=False).vocabulary.items.head(3).to_list()
        model = registry.log_bundle(
            store,
            run_id,
            refitted["bundle"],
            example=example,
            metrics=evaluated["metrics"],
            register_as=settings.name if settings.tracking.register_model else None,
        )
    return {"candidates": candidates, "model": model}


publish_task = compute_task(publish)
