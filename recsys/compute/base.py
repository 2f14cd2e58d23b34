"""The contract of an engine: it maps work over shards, in their order.

Work is a pure, picklable function of one shard. Every process that helps unpickles it once and calls it for many
shards, so what it opens at its first call, such as a text encoder, is open for the next one. Shards and results go by
value, or as a path that every machine can read: a few thousand rows each, never a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Shard = TypeVar("Shard")
Result = TypeVar("Result")


class Engine(ABC):
    """An engine that does the work of a run; results do not depend on which one it is."""

    @abstractmethod
    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """Yield the result of each shard, in the order of the shards.

        A few shards are taken ahead of the result that is waited for, so memory does not grow with their number.
        Nothing begins before the first result is asked for.

        Raises
        ------
        Exception
            What the work of a shard raises comes through as it is, in its turn; later shards may have been worked on.
        RecsysError
            A shard's machine was lost more often than the work is done again.
        """

    @abstractmethod
    def check(self, warehouse: str) -> None:
        """Refuse machines that could not do the work.

        Parameters
        ----------
        warehouse
            Folder or URL that each of them has to see.

        Raises
        ------
        InputError
            What is wrong, on which machine, and what to do.
        """
