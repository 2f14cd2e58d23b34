"""A bundle of an earlier night on today's test part: the ranks that it gives to today's targets.

Its own vocabulary codes the histories. A target that it does not know is a miss, as it is in what is served.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from recsys.bundles.bundle import read_bundle
from recsys.columns import PADDING
from recsys.data.asked import test_questions
from recsys.data.prepare import Dataset
from recsys.data.splits import HeldOut
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.evaluation.compare import Scorer
from recsys.evaluation.evaluate import blend_scorer
from recsys.evaluation.ranking import rank_targets
from recsys.retrieval.repeats import with_repeats
from recsys.serving.histories import recode
from recsys.serving.recommender import BundleRecommender, open_bundle
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.training.learned_before import learned_before
from recsys.training.origin import known_before


def former_ranks(settings: Settings, dataset: Dataset, bundle: str | Path) -> np.ndarray:
    """Return the ranks of today's test targets by a bundle of an earlier night, int64 [Q]; `MISS` without a rank.

    It ranks what it serves (the blend, if it has one) over its own items, by `evaluate.exclude_seen` of today.

    Raises
    ------
    InputError
        Not a sound bundle, one of other features, or one that may know events of today's test part.
    """
    served = open_bundle(bundle)
    served.check_features(settings)
    if known_before(served.bundle, settings, dataset.split) is not None:
        raise InputError(
            f"The bundle {served.bundle.label} may know events that are held out now: it was trained with another "
            "[split] or [filter], or on events after the cut-off."
        )
    asked = recode_questions(test_questions(settings, dataset), dataset.vocabulary, served.bundle.vocabulary)
    scorer = served_scorer(served, asked, settings)
    ranking = rank_targets(
        scorer.score_block, asked, scorer.allowed, exclude_seen=settings.evaluate.exclude_seen, top_k=1
    )
    return ranking.ranks


def ranks_beside(
    settings: Settings, versions: TableVersions, dataset: Dataset, bundle: str | Path, own: np.ndarray
) -> np.ndarray:
    """Return `former_ranks`, with a draw for each question whose target the bundle learned from.

    Parameters
    ----------
    own
        int64 [Q] ranks by the bundle of tonight, which a draw takes.

    Raises
    ------
    InputError
        As `former_ranks`.
    """
    ranks = former_ranks(settings, dataset, bundle)
    previous, asked = read_bundle(bundle, verify=False), test_questions(settings, dataset)
    return np.where(learned_before(previous, settings, versions, dataset, asked), own, ranks)


def recode_questions(asked: HeldOut, theirs: Vocabulary, ours: Vocabulary) -> HeldOut:
    """Return the same questions in another vocabulary's codes; a target that it does not know is 0, a miss."""
    if theirs.digest == ours.digest:
        return asked
    codes = np.concatenate([[PADDING], ours.encode(theirs.items)]).astype(np.int32)
    return replace(
        asked,
        histories=recode(asked.histories, theirs, ours)[0],
        targets=codes[asked.targets],
        others=None if asked.others is None else recode(asked.others, theirs, ours)[0],
    )


def served_scorer(served: BundleRecommender, asked: HeldOut, settings: Settings) -> Scorer:
    """Return what the bundle serves as a scorer: its blend, or the model alone."""
    histories = asked.histories
    queries, model = served.encode(histories), served.model
    if served.blended is not None:
        return blend_scorer(served.bundle, served.blended, queries, histories, settings)
    return Scorer(
        score_block=with_repeats(
            lambda start, stop: queries[start:stop] @ model.vectors.T, histories.items, histories.offsets, model.repeats
        ),
        allowed=model.allowed,
    )
