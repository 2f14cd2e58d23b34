"""Micro-batches, and the cache of history vectors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from recsys.data.sequences import Sequences
from recsys.models.base import Parts
from recsys.models.history_mean import HistoryMean
from recsys.service.batching import Batcher, Busy
from recsys.serving.vector_cache import CachedRecommender
from recsys.settings.read import parse_settings


def test_what_waits_is_answered_together_in_order_and_each_gets_its_own() -> None:
    batches: list[list[int]] = []
    free = threading.Event()

    def answer(questions: Sequence[int]) -> list[int]:
        free.wait()
        batches.append(list(questions))
        return [10 * question for question in questions]

    async def run() -> None:
        batcher = Batcher(answer, waiting=100, together=4)
        first = [asyncio.create_task(batcher.ask(number)) for number in range(6)]
        several = asyncio.create_task(batcher.ask_each([6, 7, 8]))
        await asyncio.sleep(0)  # all have asked
        free.set()
        assert [await task for task in first] == [0, 10, 20, 30, 40, 50]
        assert await several == [60, 70, 80]
        batcher.close()

    asyncio.run(run())
    assert batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]  # the first went alone: nothing waits for others


def test_one_that_fails_costs_the_others_nothing() -> None:
    def answer(questions: Sequence[int]) -> list[int]:
        if 3 in questions:
            raise ZeroDivisionError
        return list(questions)

    async def run() -> list[object]:
        batcher = Batcher(answer, waiting=100)
        tasks = [asyncio.create_task(batcher.ask(number)) for number in range(6)]
        found = [*await asyncio.gather(*tasks, return_exceptions=True), *await batcher.ask_each(range(6))]
        batcher.close()
        return found

    found = asyncio.run(run())
    for several in (found[:6], found[6:]):
        assert isinstance(several.pop(3), ZeroDivisionError) and several == [0, 1, 2, 4, 5]


def test_too_many_that_wait_are_refused_and_those_who_have_gone_are_not_answered() -> None:
    asked: list[int] = []
    free = threading.Event()

    def answer(questions: Sequence[int]) -> list[int]:
        free.wait()
        asked.extend(questions)
        return list(questions)

    async def run() -> None:
        batcher = Batcher(answer, waiting=2)
        tasks = [asyncio.create_task(batcher.ask(number)) for number in range(3)]  # one is being answered, two wait
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await batcher.ask(9)
        tasks[1].cancel()
        await asyncio.sleep(0)
        free.set()
        assert await tasks[2] == 2
        batcher.close()

    asyncio.run(run())
    assert asked == [0, 2]


class Counting(HistoryMean):
    """Counts the histories that it encodes."""

    encoded = 0

    def encode(self, histories: Sequences) -> np.ndarray:
        self.encoded += len(histories)
        return super().encode(histories)


def histories(*items: list[int], context: list[str] | None = None) -> Sequences:
    flat = [item for own in items for item in own]
    return Sequences(
        users=pl.Series("user_id", range(len(items))),
        items=np.array(flat, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(own) for own in items])]).astype(np.int64),
        context=None if context is None else pl.DataFrame({"event": context}),
    )


def test_a_history_is_encoded_once_and_the_oldest_are_forgotten() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    settings = parse_settings({"name": "x", "interactions": {"source": "x.csv"}})
    model = Counting(settings, Parts(vectors=vectors, allowed=np.arange(6) > 0))
    remembered = CachedRecommender(model, held=3)
    some = histories([1, 2], [], [2, 1], [1, 2])
    assert np.array_equal(remembered.encode(some), HistoryMean.encode(model, some))
    assert model.encoded == 4  # of one batch all
    assert np.array_equal(remembered.encode(some), HistoryMean.encode(model, some)) and model.encoded == 4
    mixed = histories([3], [1, 2], [4])
    assert np.array_equal(remembered.encode(mixed), HistoryMean.encode(model, mixed)) and model.encoded == 6
    remembered.encode(histories([2, 1]))  # three newer ones have come
    assert model.encoded == 7
    # the same items in another context are another history
    remembered.encode(histories([1, 2], context=["view", "buy"]))
    remembered.encode(histories([1, 2], context=["view", "view"]))
    remembered.encode(histories([1, 2], context=["view", "buy"]))
    assert model.encoded == 9
