"""The contract of an engine: it maps work over shards, in their order, and trains in several processes.

Work is a pure, picklable function of one shard. Every process that helps unpickles it once and calls it for many
shards, so what it opens at its first call, such as a text encoder, is open for the next one. Shards and results go by
value, or as a path that every machine can read: a few thousand rows each, never a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from recsys.errors import RecsysError

Tell = Callable[[Any], None]

Shard = TypeVar("Shard")
Result = TypeVar("Result")


class Lost(RecsysError):
    """Another process of a group has ended, or cannot be reached."""


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

    def together(self, work: Callable[[Tell], None], count: int, told: Tell, lost: Tell) -> None:
        """Run `work` in several processes at once, which torch.distributed connects; this process waits for them.

        Where a process or its machine is lost, all begin again: the work has to find what it has done already.

        Parameters
        ----------
        work
            Picklable; what its argument is called with in the first process comes here, in order, and after a loss
            from the beginning again.
        count
            Of processes.
        told
            Called with it.
        lost
            Called with a sentence before all begin again.

        Raises
        ------
        Exception
            What the work of a process raises comes through as it is.
        RecsysError
            Processes were lost more often than the work is done again, or there is no room for them.
        """
        raise NotImplementedError(f"{type(self).__name__} trains in one process")

    @abstractmethod
    def check(self, warehouse: str, together: int = 1) -> None:
        """Refuse machines that could not do the work.

        Parameters
        ----------
        warehouse
            Folder or URL that each of them has to see.
        together
            Processes that have to have room at once.

        Raises
        ------
        InputError
            What is wrong, on which machine, and what to do.
        """
