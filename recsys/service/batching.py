"""Micro-batching: one thread answers together the queries that arrive while it works.

A query never waits for others to arrive: as soon as the thread is free, it takes all queries of the queue. A lone query
is answered at once, and under load batches grow until the model keeps up, as b queries of one batch cost far less than
b batches of one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

TOGETHER: Final = 64  # queries of a batch; more take longer and save little


class Busy(Exception):
    """The queue is full."""


class Batcher(Generic[Item, Result]):
    """Queue in front of one thread that answers batches.

    Parameters
    ----------
    answer
        Answers up to `together` queries, in their order.
    waiting
        Longest queue.
    """

    def __init__(
        self, answer: Callable[[Sequence[Item]], Sequence[Result]], *, waiting: int, together: int = TOGETHER
    ) -> None:
        self._answer, self._together, self._most = answer, together, waiting
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._works = False

    async def ask(self, item: Item) -> Result:
        """Answer one query.

        Raises
        ------
        Busy
            The queue is full.
        Exception
            As `answer` raises.
        """
        return await self._enqueue([item])[0]

    async def ask_each(self, items: Sequence[Item]) -> list[Result | Exception]:
        """Answer queries, in their order; a query that fails has its exception in its place.

        Raises
        ------
        Busy
            The queue is full.
        """
        found: list[Result | Exception] = []
        for one in await asyncio.gather(*self._enqueue(items), return_exceptions=True):
            if isinstance(one, BaseException) and not isinstance(one, Exception):
                raise one
            found.append(one)
        return found

    def _enqueue(self, items: Sequence[Item]) -> list[asyncio.Future[Result]]:
        if self._waiting and len(self._waiting) + len(items) > self._most:
            raise Busy
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Result]] = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        if not self._works:
            self._next(loop)
        return futures

    def close(self) -> None:
        """Wait for the present batch, then end the thread."""
        self._thread.shutdown()

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._together:
            item, future = self._waiting.popleft()
            if not future.cancelled():  # otherwise the client has gone
                batch.append((item, future))
        self._works = bool(batch)
        if batch:
            self._thread.submit(self._work, loop, batch)

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results = self._results([item for item, _ in batch])
        loop.call_soon_threadsafe(self._deliver, loop, batch, results)

    def _results(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        """Answers or errors: after an error each query is answered alone, so that it fails no other."""
        try:
            return self._answer(items)
        except Exception as error:
            if len(items) == 1:
                return [error]
        return [self._results([item])[0] for item in items]

    def _deliver(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[Item, asyncio.Future[Result]]],
        results: Sequence[Result | Exception],
    ) -> None:
        self._next(loop)  # first, so that the thread works while these answers are sent
        for (_, future), one in zip(batch, results, strict=True):
            if future.cancelled():
                continue
            if isinstance(one, Exception):
                future.set_exception(one)
            else:
                future.set_result(one)
