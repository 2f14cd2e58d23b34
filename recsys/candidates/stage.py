"""The first stage: the union of what all sources propose, with what each of them says of every candidate.

Everything is computed for one block of users and for the items that a source knows something of, so memory does not
grow with users x items. Evaluation, retrieval and
answers call the same function, so what is measured is what is served.

Shapes: b users of a block, V items (arrays by code have V + 1 rows), P pairs of user and candidate, F features,
C context values, n proposals of one source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from recsys.candidates import tables
from recsys.candidates.base import Block, Source, TrainingData
from recsys.candidates.registry import SOURCES
from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.errors import RecsysError
from recsys.loops.choice import loops
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.products import searched_bytes
from recsys.retrieval.shelf import Shelf

USERS: Final = 256  # of a block, at most
SCORED: Final = 6  # scores of a block's users that are alive at once
SOURCE_BITS: Final = 6  # 64 sources fit into the bits of `Proposals.by`
OF_SCORE: Final = 8  # bytes: a column and its value
FAULTS: Final = (  # of proposals, see `recsys.loops.plain.fault`
    "keys that do not ascend, or that belong to no user",
    f"code {PADDING}, which is no item",
    "an item that was seen or may not be recommended",
)
EVENTS: Final = 10_000  # of their histories together, so that memory does not grow with them


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Proposals:
    """The candidates of a block of users.

    Attributes
    ----------
    rows, codes
        int64 [P], ascending by (row, code).
    by
        uint64 [P]: bit s is set where source s of those that were asked proposed the candidate.
    features, context
        float32 [P, F] and [P, C] in the order that was asked for.
    """

    rows: np.ndarray
    codes: np.ndarray
    by: np.ndarray
    features: np.ndarray
    context: np.ndarray


def block_bytes(items: int) -> int:
    """Memory that a block of users takes, of a catalogue of V items: scores, and a search among all items."""
    stored = EVENTS * tables.KEPT * tables.OF_ENTRY
    return SCORED * min(stored, USERS * OF_SCORE * (items + 1)) + searched_bytes(items)


def fit_sources(data: TrainingData, former: Source | None = None) -> tuple[Source, ...]:
    """Every registered source that the data hold something for; `former` stands in the place of its kind."""
    fitted = (
        former if isinstance(former, source) else _told(source, "fit", lambda s: s.fit(data))
        for source in SOURCES.values()
    )
    return tuple(source for source in fitted if source is not None)


def propose(
    sources: Sequence[Source], block: Block, *, n: int, features: Sequence[str], context: Sequence[str]
) -> Proposals:
    """The union of what the sources propose for a block of users, with features.

    Parameters
    ----------
    n
        Items that each source proposes, at most.
    features, context
        Names of the F and C columns wanted.

    Raises
    ------
    ValueError
        A source does not keep its contract, or none computes what is wanted.
    """
    stride = block.stride
    proposed = [_checked(source, _told(source, "propose", lambda s: s.propose(block, n)), block) for source in sources]
    keys, by = _union(proposed)
    rows = keys // stride
    codes = keys - rows * stride
    return Proposals(
        rows=rows,
        codes=codes,
        by=by,
        features=_features(sources, block, rows, codes, features),
        context=_context(sources, block, context)[rows],
    )


def blocks(
    index: ItemIndex,
    queries: np.ndarray,
    histories: Sequences,
    *,
    exclude_seen: bool = True,
    shelf: Shelf | None = None,
    hiding: Sequences | None = None,
) -> Iterator[tuple[slice, Block]]:
    """All users block by block: which of them, and the block.

    Parameters
    ----------
    queries
        float32 [U, D] of the U histories.
    hiding
        See `Block`.
    """
    start = 0
    while start < len(histories):
        fitting = np.searchsorted(histories.offsets, histories.offsets[start] + EVENTS, side="right") - 1
        part = slice(start, min(max(int(fitting), start + 1), start + USERS, len(histories)))
        start = part.stop
        own = histories.select(np.arange(part.start, part.stop))
        hidden = None if hiding is None else hiding.select(np.arange(part.start, part.stop))
        yield (
            part,
            Block(
                index=index,
                queries=queries[part],
                histories=own,
                exclude_seen=exclude_seen,
                shelf=shelf,
                hiding=hidden,
            ),
        )


def source_names(by: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Names of values of `Proposals.by`, str of their shape: "vector+transitions", for example; "" for 0.

    Parameters
    ----------
    names
        Of the sources that were asked, in their order.
    """
    values, place = np.unique(by, return_inverse=True)
    called = ["+".join(name for bit, name in enumerate(names) if int(value) >> bit & 1) for value in values]
    return np.array(called, dtype=str)[place].reshape(by.shape)


def _union(proposed: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ascending distinct keys of all sources, and uint64 bits of the sources that proposed each."""
    places = np.repeat(np.arange(len(proposed), dtype=np.int64), [len(own) for own in proposed])
    both = np.sort((np.concatenate(proposed) << SOURCE_BITS) | places)  # one sort: by key, then by source
    keys = both >> SOURCE_BITS
    new = np.flatnonzero(np.diff(keys, prepend=-1))
    bits = np.uint64(1) << (both & ((1 << SOURCE_BITS) - 1)).astype(np.uint64)
    by = np.bitwise_or.reduceat(bits, new) if len(new) else bits
    return keys[new], by


def _told(source: type[Source] | Source, act: str, do: Callable[[Any], Any]) -> Any:
    """Let a source act; an error that it lets through names the source."""
    try:
        return do(source)
    except (RecsysError, MemoryError):
        raise
    except Exception as error:
        raise RecsysError(
            f"The candidate source {source.name!r} failed in `{act}`: {type(error).__name__}: {error}."
        ) from error


def _checked(source: Source, keys: np.ndarray, block: Block) -> np.ndarray:
    """The proposals of a source, if they are what the contract says."""
    if keys.dtype != np.int64 or keys.ndim != 1:
        raise ValueError(f"the source {source.name!r} proposed {keys.dtype} {list(keys.shape)}, not int64 keys [P]")
    fault = loops(len(block)).fault(keys, block.hidden, block.allowed, block.stride, len(block))
    if fault:
        raise ValueError(f"the source {source.name!r} proposed {FAULTS[fault - 1]}")
    return keys


def _features(
    sources: Sequence[Source], block: Block, rows: np.ndarray, codes: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """float32 [P, F]."""
    found = np.empty((len(rows), len(names)), dtype=np.float32)
    column = {name: place for place, name in enumerate(names)}
    for source in sources:
        wanted = [feature for feature in source.FEATURES if feature.name in column]
        said = _told(source, "features", lambda s: s.features(block, rows, codes)) if wanted else {}
        for feature in wanted:
            values = _said(source, said, feature.name, len(rows))
            found[:, column.pop(feature.name)] = _signed_root(values) if feature.rooted else values
    if column:
        raise ValueError(f"no source that was asked computes {', '.join(map(repr, column))}")
    if not np.isfinite(found).all():
        bad = names[int(np.argmin(np.isfinite(found).all(axis=0)))]
        raise ValueError(f"the feature {bad!r} is not finite for some candidates")
    return found


def _context(sources: Sequence[Source], block: Block, names: Sequence[str]) -> np.ndarray:
    """float32 [b, C]."""
    found = np.empty((len(block), len(names)), dtype=np.float32)
    column = {name: place for place, name in enumerate(names)}
    for source in sources:
        said = source.context(block)
        for name in source.CONTEXT:
            if name in column:
                found[:, column.pop(name)] = _said(source, said, name, len(block))
    if column:
        raise ValueError(f"no source that was asked knows {', '.join(map(repr, column))} of a user")
    return found


def _said(source: Source, said: Mapping[str, np.ndarray], name: str, length: int) -> np.ndarray:
    if name not in said or np.shape(said[name]) != (length,):
        raise ValueError(f"the source {source.name!r} declares {name!r} and does not give {length} values of it")
    return said[name]


def _signed_root(values: np.ndarray) -> np.ndarray:
    """The square root of each value's distance from 0, with its sign."""
    return np.sign(values) * np.sqrt(np.abs(values))
