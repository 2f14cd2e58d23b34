"""The engine of one machine: this process does the work, shard by shard, and copies nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from recsys.compute.base import Engine, Result, Shard


class Local(Engine):
    """Work in this process; a shard is taken when the result before it has been used."""

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """Yield the result of each shard; see `Engine.map`."""
        return map(work, shards)

    def check(self, warehouse: str, together: int = 1) -> None:
        """Do nothing: this machine sees what it sees."""


LOCAL: Final = Local()
