"""Digest of the events that training read: counted and hashed there, compared with the split afterwards.

A split that is right proves nothing of a training that is handed something else. So each consumer digests the arrays
that it was really given, a bundle keeps the digests, and evaluation makes those that the split allows.

Shapes: U histories, N events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

from recsys.data.sequences import user_blocks
from recsys.data.splits import HeldOut

AT_ONCE: Final = 200_000  # events that are hashed together, so that memory stays small
# odd constants whose multiples fill 64 bits (splitmix64)
_PLACE: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, kw_only=True)
class Consumed:
    """Histories that were learnt from, or questions that were asked; JSON-friendly by `asdict`.

    Attributes
    ----------
    events, histories
        How many; histories without an event do not count.
    digest
        16 hex digits: the same for the same histories in any order, another one if any event, its place, or its
        company in a history differs.
    """

    events: int
    histories: int
    digest: str

    @classmethod
    def of(cls, items: np.ndarray, offsets: np.ndarray, targets: np.ndarray | None = None) -> Self:
        """Digest flat histories: `items` int [N], `offsets` int [U + 1], and the items asked for, int [U]."""
        blocks = ((part, items[offsets[part.start] : offsets[part.stop]]) for part in user_blocks(offsets, AT_ONCE))
        return cls._of(blocks, np.diff(offsets), targets)

    @classmethod
    def asked(cls, held_out: HeldOut) -> Self:
        """Digest the questions of a held-out set: its histories, each with the item that came next."""
        histories = held_out.histories
        blocks = ((part, block.items) for part, block in histories.blocks(AT_ONCE))
        return cls._of(blocks, histories.lengths, held_out.targets)

    @classmethod
    def _of(
        cls, blocks: Iterable[tuple[slice, np.ndarray]], lengths: np.ndarray, targets: np.ndarray | None = None
    ) -> Self:
        """Digest blocks of neighbouring histories, the items of each with whose they are; all `lengths`, int64 [U]."""
        total = np.zeros(1, dtype=np.uint64)
        for part, items in blocks:
            hashes = _of_histories(items, lengths[part])
            if targets is not None:
                hashes = _mixed(hashes + (targets[part].astype(np.uint64) + np.uint64(1)) * _PLACE)
            else:
                hashes = hashes[lengths[part] > 0]
            total += hashes.sum(dtype=np.uint64)
        return cls(
            events=int(lengths.sum()),
            histories=len(lengths) if targets is not None else int((lengths > 0).sum()),
            digest=f"{int(total[0]):016x}",
        )

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(events=int(found["events"]), histories=int(found["histories"]), digest=str(found["digest"]))

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.events:,} events of {self.histories:,} histories"


def _of_histories(items: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """uint64 [U]: a hash of each history, of its items and their places."""
    ends = np.cumsum(lengths)
    place = np.arange(len(items)) - np.repeat(ends - lengths, lengths)
    sums = np.zeros(len(items) + 1, dtype=np.uint64)
    np.cumsum(_mixed(items.astype(np.uint64) + (place.astype(np.uint64) + np.uint64(1)) * _PLACE), out=sums[1:])
    return _mixed(sums[ends] - sums[ends - lengths] + lengths.astype(np.uint64) * _FIRST)


def _mixed(values: np.ndarray) -> np.ndarray:
    """uint64, every bit of which depends on every bit of the value (splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
