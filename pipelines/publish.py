"""Publish: the candidates become the newest version of their table, the bundle the newest of its name, a release.

A sample of the candidates and the bundle itself go to the night's MLflow run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.bundles.bundle import read_bundle
from recsys.bundles.manifest import CATALOGUE
from recsys.columns import USER_ID
from recsys.pipelines.evaluate import private_names
from recsys.pipelines.steps import compute_task, plain, tracked
from recsys.releases.record import champion
from recsys.releases.switch import described, serve
from recsys.releases.telling import tell
from recsys.settings import Settings
from recsys.table import build as retrieval
from recsys.table.sample import candidate_sample
from recsys.tracking import log as tracking
from recsys.tracking import registry


def publish(
    settings: Settings,
    run_id: str,
    evaluated: dict[str, Any],
    refitted: dict[str, Any],
    retrieved: dict[str, Any],
    verdict: str | None = None,
) -> dict[str, Any]:
    """Serve what was built; then log a sample of it, and log and register the bundle.

    Parameters
    ----------
    verdict
        Sentence of the gate.
    """
    built = retrieval.BuiltCandidates.of(retrieved)
    served = champion(settings)
    # otherwise a restarted run finds its own release, or that of the run whose steps it took over
    if served is None or served.run not in (run_id, built.run):
        retrieval.check_not_empty(settings, built)
        release = described(
            settings, run_id, refitted["bundle"], "night", metrics=evaluated["metrics"], verdict=verdict
        )
        serve(settings, release, lambda said: retrieval.publish(settings, built, said), exporting=False)
    candidates = plain(retrieval.publish(settings, built))
    with tracked(settings) as store:
        model = log_run(settings, store, run_id, evaluated, refitted["bundle"])
        catalogue = Path(refitted["bundle"]) / CATALOGUE
        sample = candidate_sample(settings.warehouse, candidates, candidates["run"], catalogue)
        if (private := private_names(settings)) is not None:
            sample = {**sample, USER_ID: [private(user) for user in sample[USER_ID]]}
        tracking.log_table(store, run_id, "candidates.json", sample)
        tracking.log_text(store, run_id, "candidates.md", tracking.markdown_table(sample))
        tell(settings, store)
    return {"candidates": candidates, "model": model}


def log_run(
    settings: Settings,
    store: tracking.Store,
    run_id: str,
    evaluated: Mapping[str, Any],
    bundle: str,
) -> dict[str, str | None]:
    """Log the bundle of a run and register it; doing it again adds nothing."""
    example = read_bundle(bundle, verify=False).vocabulary.items.head(3).to_list()
    return registry.log_bundle(
        store,
        run_id,
        bundle,
        example=example,
        metrics=evaluated["metrics"],
        register_as=settings.name if settings.tracking.register_model else None,
    )


publish_task = compute_task(publish)
