"""The price of a rule: what the lists lose in accuracy by it, and how many of their rows it moves.

Test users get the lists that the measured bundle serves, once with all rules, and once without each of them. The same
users are compared, so the difference is paired. Rules speak of today (the stock, the newest list of what is denied),
and the test asks for items of the past: an item that a rule rightly leaves out today counts as lost.

Shapes: Q questions, k items of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np

from recsys.data.prepare import Dataset
from recsys.data.splits import HeldOut, drawn_users
from recsys.evaluation.significance import paired_test
from recsys.retrieval.shelf import listed_items
from recsys.rules.apply import Rules, without
from recsys.serving.lists import floor, lists
from recsys.serving.recommender import BundleRecommender
from recsys.serving.shop import rules_for
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions

SAMPLE: Final = 1_000  # questions of the test part, drawn by the seed
FIRST: Final = 10  # places of a list that accuracy looks at
ALL: Final = "all rules"


def prices(
    settings: Settings, versions: TableVersions, served: BundleRecommender, dataset: Dataset, now: datetime
) -> dict[str, Any] | None:
    """Measure what each rule of a configuration costs; None: it has none.

    Parameters
    ----------
    served
        The measured bundle, with the codes of the data set.
    now
        The moment for rules on items. Rules on what users had look at the time of each question.

    Returns
    -------
    dict
        `questions`, `users`, `k`, and `prices`: for "all rules" (where there are several) and for each rule `name`,
        `kind`, `ndcg_at_10` and `hr_at_10` with `with`, `without`, `difference`, `low`, `high` (95% interval), and
        `moved` of `rows`: places of the lists that hold another item without the rule.

    Raises
    ------
    InputError
        A rule does not fit the catalogue or the log.
    """
    timed = dataset.split.serving.times is not None
    rules = rules_for(settings, served, now, versions, timed=timed)
    if rules is None or not len(dataset.split.test):
        return None
    asked = drawn_users(dataset.split.test, SAMPLE, np.random.default_rng((settings.seed, 6)))
    allowed = listed_items(settings, versions, served.bundle.vocabulary)

    def served_lists(obeyed: Rules | None) -> np.ndarray:
        return _lists(settings, served, asked, allowed, obeyed)

    whole = served_lists(rules)
    owner = np.unique(asked.histories.users.to_numpy(), return_inverse=True)[1]
    left_out: dict[str, tuple[str, Rules | None]] = {}
    if len(rules.rules) > 1:
        left_out[ALL] = ("", None)
    for rule in rules.rules:
        left_out[rule.name] = (rule.kind, without(rules, rule.name) if len(rules.rules) > 1 else None)
    found = [
        {"name": name, "kind": kind, **compared(whole, served_lists(others), asked, owner, settings.seed)}
        for name, (kind, others) in left_out.items()
    ]
    return {
        "questions": len(asked),
        "users": int(owner.max()) + 1,
        "k": settings.retrieve.k,
        "remarks": list(rules.remarks),
        "prices": found,
    }


def compared(
    lists_with: np.ndarray, lists_without: np.ndarray, asked: HeldOut, owner: np.ndarray, seed: int
) -> dict[str, Any]:
    """Compare lists of the same questions, int [Q, k] codes each, best first; 0 where nothing is left.

    Accuracy is measured as everywhere: what else the target's basket holds is passed over.
    """
    found: dict[str, Any] = {}
    both = [gains(_without_rest(one, asked), asked.targets) for one in (lists_with, lists_without)]
    for name, place in (("ndcg_at_10", 0), ("hr_at_10", 1)):
        own, other = (one[:, place] for one in both)
        test = paired_test(own - other, np.random.default_rng((seed, 7)), owner)
        found[name] = {
            "with": float(own.mean()),
            "without": float(other.mean()),
            "difference": test.mean,
            "low": test.low,
            "high": test.high,
        }
    k = max(lists_with.shape[1], lists_without.shape[1])
    one, two = (np.pad(x, ((0, 0), (0, k - x.shape[1]))) for x in (lists_with, lists_without))
    return found | {"moved": int((one != two).sum()), "rows": int(((one > 0) | (two > 0)).sum())}


def _without_rest(found: np.ndarray, asked: HeldOut) -> np.ndarray:
    """The lists, int [Q, k], without what else the target's basket holds; 0 at their ends."""
    rows, codes = asked.rest(0, len(asked))
    if not len(rows):
        return found
    width = int(max(found.max(initial=0), codes.max())) + 1
    passed = np.isin(np.arange(len(found))[:, None] * width + found, rows * width + codes)
    order = np.argsort(passed, axis=1, kind="stable")
    kept: np.ndarray = np.where(np.take_along_axis(passed, order, axis=1), 0, np.take_along_axis(found, order, axis=1))
    return kept


def gains(found: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return NDCG@10 and HR@10 of each question, float64 [Q, 2], for lists int [Q, k] with one target each.

    >>> gains(np.array([[4, 7], [4, 7], [0, 0]]), np.array([7, 1, 0]))[:, 1].tolist()
    [1.0, 0.0, 0.0]
    """
    hits = (found[:, :FIRST] == targets[:, None]) & (targets > 0)[:, None]
    discount = 1 / np.log2(np.arange(hits.shape[1]) + 2)
    return np.stack([(hits * discount).sum(axis=1), hits.any(axis=1).astype(np.float64)], axis=1)


def _lists(
    settings: Settings, served: BundleRecommender, asked: HeldOut, allowed: np.ndarray | None, rules: Rules | None
) -> np.ndarray:
    """int32 [Q, k] codes of the lists that are served to these questions' histories."""
    of = settings.retrieve
    shelf, fallback = floor(served, rules, allowed=allowed, fallback=served.fallback if of.fallback else None)
    parts: list[np.ndarray] = []
    for start in range(0, len(asked), of.batch_size):
        rows = np.arange(start, min(start + of.batch_size, len(asked)))
        found = lists(
            served,
            asked.histories.select(rows),
            k=of.k,
            exclude_seen=of.exclude_seen,
            shelf=shelf,
            fallback=fallback,
            rules=rules,
            now=None if asked.times is None else asked.times[rows],
        )
        parts.append(found.codes)
    return _stacked(parts)


def _stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    widest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, widest - part.shape[1]))) for part in parts])
