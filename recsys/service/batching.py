"""Questions that come while the model works are answered together, in one thread.

A question is never kept waiting for others: the thread takes all that wait as soon as it is free. So a lone question is
answered at once, and under load batches grow until the model keeps up; b questions together cost far less than b times
one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

Asked = TypeVar("Asked")
Said = TypeVar("Said")

TOGETHER: Final = 64  # questions of a batch; more take longer and save little


class Busy(Exception):
    """Too many questions wait."""


class Batcher(Generic[Asked, Said]):
    """One thread that answers batches.

    Parameters
    ----------
    answer
        Answers up to `together` questions, in their order.
    waiting
        Questions that may wait.
    """

    def __init__(
        self, answer: Callable[[Sequence[Asked]], Sequence[Said]], *, waiting: int, together: int = TOGETHER
    ) -> None:
        self._answer, self._together, self._most = answer, together, waiting
        self._waiting: deque[tuple[Asked, asyncio.Future[Said]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._works = False

    async def ask(self, questions: Sequence[Asked]) -> list[Said]:
        """Answer questions, in their order.

        Raises
        ------
        Busy
            Too many wait already.
        Exception
            As `answer` raises.
        """
        if self._waiting and len(self._waiting) + len(questions) > self._most:
            raise Busy
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Said]] = [loop.create_future() for _ in questions]
        self._waiting.extend(zip(questions, futures, strict=True))
        if not self._works:
            self._next(loop)
        return await asyncio.gather(*futures) if len(futures) > 1 else [await futures[0]]

    def close(self) -> None:
        """End the thread after the batch that it answers."""
        self._thread.shutdown()

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        batch: list[tuple[Asked, asyncio.Future[Said]]] = []
        while self._waiting and len(batch) < self._together:
            question, future = self._waiting.popleft()
            if not future.cancelled():  # whoever asked has gone
                batch.append((question, future))
        self._works = bool(batch)
        if batch:
            self._thread.submit(self._work, loop, batch)

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[tuple[Asked, asyncio.Future[Said]]]) -> None:
        said = self._said([question for question, _ in batch])
        loop.call_soon_threadsafe(self._tell, loop, batch, said)

    def _said(self, questions: Sequence[Asked]) -> Sequence[Said | Exception]:
        """Answers, or why there is none: what fails one question must not fail those that came with it."""
        try:
            return self._answer(questions)
        except Exception as error:
            if len(questions) == 1:
                return [error]
        return [self._said([question])[0] for question in questions]

    def _tell(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[Asked, asyncio.Future[Said]]],
        said: Sequence[Said | Exception],
    ) -> None:
        self._next(loop)  # the thread goes on while these answers are sent
        for (_, future), one in zip(batch, said, strict=True):
            if future.cancelled():
                continue
            if isinstance(one, Exception):
                future.set_exception(one)
            else:
                future.set_result(one)
