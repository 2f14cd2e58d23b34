"""The questions of a night: all held-out ones of a small shop, some of a large one, drawn once by the seed.

Ranking a question among all items costs as much as the catalogue is large. A sample of questions, each ranked among all
items, gives the same figures but for its interval; a sample of items would not.
"""

from __future__ import annotations

from typing import Final

from recsys.data.prepare import Dataset
from recsys.data.splits import HeldOut, some_users
from recsys.settings import Settings

FEWEST: Final = 2_000  # questions that are asked by default, however large the catalogue
TEST_SCORES: Final = 10_000_000_000  # of questions and items that a test computes by default, for each ranker
VALIDATION_SCORES: Final = 2_000_000_000  # the same for each validation


def test_questions(settings: Settings, dataset: Dataset) -> HeldOut:
    """The test part that is ranked, by `evaluate.users`."""
    return _drawn(dataset.split.test, settings.evaluate.users, dataset.vocabulary.size, TEST_SCORES, settings.seed)


def validation_questions(settings: Settings, dataset: Dataset) -> HeldOut:
    """The validation part that is ranked, by `train.validation_users`."""
    held_out, count = dataset.split.validation, settings.train.validation_users
    return _drawn(held_out, count, dataset.vocabulary.size, VALIDATION_SCORES, settings.seed)


def most_asked(settings: Settings, items: int) -> int:
    """Return the largest number of test questions that are ranked among so many items."""
    return _most(settings.evaluate.users, items, TEST_SCORES)


def most_validated(settings: Settings, items: int) -> int:
    """Return the same of a validation's questions."""
    return _most(settings.train.validation_users, items, VALIDATION_SCORES)


def _drawn(held_out: HeldOut, count: int | None, items: int, scores: int, seed: int) -> HeldOut:
    return some_users(held_out, _most(count, items, scores), seed)


def _most(count: int | None, items: int, scores: int) -> int:
    return max(FEWEST, scores // max(items, 1)) if count is None else count
