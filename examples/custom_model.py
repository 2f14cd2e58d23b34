"""A kind of model of one's own: item vectors from a truncated SVD of what follows what.

    python examples/custom_model.py [FOLDER]

One class and one line; evaluation, the blend, the candidate table and the bundle follow.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.sparse.linalg import svds

import recsys
from recsys.candidates.transitions import transitions
from recsys.data.consumed import Consumed
from recsys.datasets.synthetic import generate
from recsys.models.base import Counted, Estimator, Fitted, Job, Parts
from recsys.models.history_mean import HistoryMean
from recsys.models.registry import register
from recsys.settings import KindSettings


class SvdSettings(KindSettings):
    """The keys of `[model]` for `kind = "svd"`."""

    kind: Literal["svd"] = "svd"
    dimensions: int = Field(default=32, ge=1)


class Svd(Estimator):
    """An item's vector: its row of the factors of the transition counts; a history is the mean of its newest items."""

    kind = "svd"
    recommender = HistoryMean

    def fit(self, job: Job) -> Fitted:
        """Factorise the counts of the training part."""
        model, train, size = self.settings.model, job.dataset.split.train, job.dataset.vocabulary.size
        assert isinstance(model, SvdSettings)
        counts = transitions(train.items, train.offsets, size)
        start = np.random.default_rng(self.settings.seed).normal(size=size + 1)  # the seed fixes the result
        left, strengths, _ = svds(counts + counts.T, k=model.dimensions, v0=start)
        vectors = (left * np.sqrt(strengths)).astype(np.float32)
        vectors[0] = 0  # padding
        learnt = Counted(trained=Consumed.of(train.items, train.offsets))
        return Fitted(parts=Parts(vectors=vectors, allowed=vectors.any(axis=1)), outcome=learnt)


# the names are of importable modules, so that reading a configuration imports no model
register("svd", f"{__name__}:Svd", f"{__name__}:SvdSettings")


def main(folder: Path) -> recsys.EvaluationReport:
    """Fit it, and return how it does beside the baselines."""
    shop = generate(folder / "shop", users=300, items=320)
    overrides = ['model={ kind = "svd", dimensions = 24 }', "blend.kind=never"]
    settings = recsys.configure(shop.interactions, shop.items, folder=folder, overrides=overrides)
    report = recsys.evaluate(settings, recsys.fit(settings))
    for name, metrics in [("svd", report.metrics), *report.baselines.items()]:
        print(f"{name:18} HR@10 {metrics['test/hr_at_10']:.3f}  NDCG@10 {metrics['test/ndcg_at_10']:.3f}")
    return report


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch))
