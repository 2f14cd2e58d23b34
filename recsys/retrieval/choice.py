"""The choice of the search that serves: exact, or the cheapest approximate index that finds enough.

Candidates are built of the bundle's own vectors and asked real queries: a sample of the night's users, drawn by the
seed, with what they have seen left out. Each is swept over its search parameter; recall is the share of the exact k
best that its lists hold. Of the points whose recall, less its standard error, reaches `retrieve.recall`, the cheapest
is served: by `work.py`, which counts, so that equal input gives an equal choice. Measured CPU seconds are reported.

Shapes: U users of the sample, V items (arrays by code have V + 1 rows), M that can be found, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import faiss
import numpy as np

from recsys.data.sequences import Sequences
from recsys.errors import RecsysError
from recsys.retrieval.factory import AUTO, EXACT, PER_CELL, build_approximate, is_exact, norms_spread
from recsys.retrieval.index import FEW, Approximate, ItemIndex, build_index, inner_of, ivf_of
from recsys.retrieval.stored import parameters_of, set_parameters
from recsys.retrieval.top_k import top_k, wanted_of
from recsys.retrieval.work import build_work, cells_of, exact_work, search_work
from recsys.settings import RetrieveSettings

SAMPLE: Final = 512  # users whose queries are asked
PROBES: Final = (4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512)  # cells to look into, and
WIDTHS: Final = (64, 128, 192, 256, 384, 512, 768)  # of a search through a graph
FETCHES: Final = (1.0, 2.0, 4.0, 8.0)  # times as many as wanted, where codes are coarse
COARSE: Final = (
    "PQ",
    "RaBitQ",
    "LSQ",
    "RQ",
    "SQ4",
    "SQ6",
    "ITQ",
    "LSH",
)  # codes of whose ranks the first k are no judge
GAIN: Final = 0.005  # of recall, below which it does not pay to fetch still more, or to look further
ENOUGH: Final = 0.995  # of recall, from which on a curve needs no further point
SPREAD: Final = 0.05  # of the items' lengths, from which on a graph is made of lengthened vectors
PROMISE: Final = 0.1  # of the items, which an index of `auto` hopes to compare: what it cannot save is not tried
SHARE: Final = 0.1  # of the exact searches of a night, which building a candidate may take
KEPT_EXACT: Final = "The search is exact, as that of the measured bundle."


@dataclass(frozen=True, kw_only=True)
class Point:
    """An index with its parameters, and what it reached; JSON-friendly."""

    factory: str
    parameters: dict[str, int]
    fetch: float
    lengthened: bool
    recall: float
    error: float  # standard error of the recall
    compared: float  # items a user, whose codes are compared with the query
    work: float  # microseconds a user, estimated
    cpu: float  # microseconds a user, measured


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """The choice and its reason; JSON-friendly.

    Attributes
    ----------
    factory, parameters, fetch, lengthened
        What is served; "exact" for a comparison with every item.
    recall
        Share of the exact k best that it finds; 1 of an exact search.
    wanted, k
        Of the settings.
    asked, users
        Users of the sample, and those whom the night searches for.
    items, width
        What is searched.
    exact_work, exact_cpu
        Microseconds a user of a comparison with every item, estimated and measured.
    reason
        A sentence.
    points
        The sweep.
    """

    factory: str
    reason: str
    wanted: float
    k: int
    users: int
    items: int
    width: int
    asked: int = 0
    parameters: dict[str, int] = field(default_factory=dict)
    fetch: float = 1.0
    lengthened: bool = False
    recall: float = 1.0
    exact_work: float = 0.0
    exact_cpu: float = 0.0
    points: list[Point] = field(default_factory=list)
    seconds: float = 0.0  # of CPU, that the choice took

    @property
    def is_said(self) -> bool:
        """Return whether people should hear of it: something was tried."""
        return bool(self.points)


def choose_index(
    settings: RetrieveSettings,
    vectors: np.ndarray,
    allowed: np.ndarray,
    sample: Callable[[], tuple[np.ndarray, Sequences]],
    users: int,
    before: ItemIndex | None = None,
) -> tuple[ItemIndex, IndexReport]:
    """Choose the search of a bundle as `retrieve.index` and `retrieve.recall` say.

    Parameters
    ----------
    vectors, allowed
        float32 [V + 1, D] and bool [V + 1].
    sample
        Gives queries float32 [U, D] and what these users have seen; not called where nothing is to be measured.
    users
        Whom the night searches for; few do not pay for a long build.
    before
        The search that the same settings chose for nearly the same vectors: it is taken over, and an index is built
        and measured anew; others are tried only where it no longer finds enough.

    Raises
    ------
    RecsysError
        No item is allowed, or an allowed vector is not finite.
    """
    began = time.process_time()
    exact = build_index(vectors, allowed)
    items, width, wanted = len(exact.codes), vectors.shape[1], settings.recall
    about: dict[str, Any] = {"wanted": wanted, "k": settings.k, "users": users, "items": items, "width": width}
    about |= {"exact_work": exact_work(items, width)}
    candidates = list(_candidates(settings.index, exact, users))
    if reason := _needless(settings.index, exact, candidates, users):
        return exact, IndexReport(factory=EXACT, reason=reason, **about)
    if before is not None and before.exact:
        return exact, IndexReport(factory=EXACT, reason=KEPT_EXACT, **about)
    queries, histories = sample()
    asked = np.flatnonzero(queries.any(axis=1))
    if not len(asked):
        reason = "The search is exact: no user has a query vector by which an index could be measured."
        return exact, IndexReport(factory=EXACT, reason=reason, **about)
    sweep = _Sweep.of(exact, queries[asked], histories.select(asked), settings)
    about |= {"asked": len(asked), "exact_cpu": sweep.cpu}
    kept_on, tried = (None, []) if before is None else sweep.again(before)
    if kept_on is not None:
        about |= {"points": tried, "seconds": time.process_time() - began}
        return kept_on, _report(tried[-1], about)
    points, kept, best, failed = tried, exact, np.inf if settings.index != AUTO else about["exact_work"] * users, ""
    chosen, like, least = None, None, np.inf
    for factory in candidates:
        building = _building(factory, items, width)
        lengthened = _is_graph(factory) and norms_spread(vectors, exact.codes) > SPREAD
        try:
            built = build_approximate(vectors, exact.codes, factory, lengthened=lengthened, like=like)
        except RecsysError as error:
            failed = f" {error}"
            continue
        like = like or built
        found = list(sweep.points(built, np.inf if settings.index != AUTO else min(least, about["exact_work"])))
        points += found
        for point in found:
            total = point.work * users + building
            if point.recall - point.error >= wanted and total < best:
                best, chosen, least = total, point, point.work
                kept = replace(exact, approximate=replace(built, fetch=point.fetch))
    about |= {"points": points, "seconds": time.process_time() - began}
    if chosen is None:
        return exact, IndexReport(factory=EXACT, reason=_unreached(points, wanted, settings.k) + failed, **about)
    assert kept.approximate is not None
    set_parameters(kept.approximate.index, chosen.parameters)
    return kept, _report(chosen, about)


def _report(chosen: Point, about: dict[str, Any]) -> IndexReport:
    """Return what is said of a point that is served."""
    of = {name: getattr(chosen, name) for name in ("factory", "parameters", "fetch", "lengthened", "recall")}
    return IndexReport(reason=_said(chosen, about["k"], about["exact_work"]), **of, **about)


def _candidates(wanted: str, exact: ItemIndex, users: int) -> Iterator[str]:
    """Strings of the indexes to try, those that find most for their time first."""
    if wanted != AUTO:
        if not is_exact(wanted):
            yield wanted
        return
    items, width = len(exact.codes), exact.vectors.shape[1]
    cells = 1 << round(np.log2(3.2 * np.sqrt(items)))
    parts = max(part for part in range(1, width // 2 + 1) if width % part == 0)
    spent = exact_work(items, width) * users
    for factory in (f"IVF{cells},SQ8", f"IVF{cells},PQ{parts}x4fs", f"IVF{cells},RaBitQ", "HNSW32,SQ8", "HNSW32"):
        hoped = search_work(
            factory, width, cells=0 if _is_graph(factory) else cells, compared=PROMISE * items, fetched=0, again=0
        )
        building = _building(factory, items, width)
        if building <= SHARE * spent and building + (0 if _is_graph(factory) else hoped * users) < spent:
            yield factory


def _needless(wanted: str, exact: ItemIndex, candidates: list[str], users: int) -> str | None:
    """Return why nothing is tried; None: something is."""
    items = len(exact.codes)
    if wanted != AUTO and not candidates:
        return f'The search is exact, as retrieve.index = "{wanted}" says.'
    if wanted == AUTO and items < FEW:
        return f"The search is exact: {items:,} items are compared faster than an index is searched."
    if wanted == AUTO and not candidates:
        return f"The search is exact: {users:,} users are compared with {items:,} items before an index would pay."
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sweep:
    """Queries with their exact lists."""

    exact: ItemIndex
    queries: np.ndarray
    histories: Sequences
    settings: RetrieveSettings
    scores: np.ndarray  # float32 [U, k]
    cpu: float

    @classmethod
    def of(cls, exact: ItemIndex, queries: np.ndarray, histories: Sequences, settings: RetrieveSettings) -> _Sweep:
        k = min(settings.k, len(exact.codes))
        excluded = settings.exclude_seen
        top_k(exact, queries[:1], histories.select(np.arange(1)), k=k, exclude_seen=excluded)  # makes the products
        began = time.process_time()
        scores = top_k(exact, queries, histories, k=k, exclude_seen=excluded)[1]
        cpu = 1e6 * (time.process_time() - began) / len(queries)
        return cls(exact=exact, queries=queries, histories=histories, settings=settings, scores=scores, cpu=cpu)

    def again(self, before: ItemIndex) -> tuple[ItemIndex | None, list[Point]]:
        """Build an index as it was, and measure it; None where it finds too little now, or cannot be built."""
        assert before.approximate is not None
        was, parameters = before.approximate, parameters_of(before.approximate.index)
        try:
            built = build_approximate(self.exact.vectors, self.exact.codes, was.factory, lengthened=was.lengthened)
        except RecsysError:
            return None, []
        set_parameters(built.index, parameters)
        built = replace(built, fetch=was.fetch)
        point = self.point(built, parameters)
        enough = point.recall - point.error >= self.settings.recall
        return replace(self.exact, approximate=built) if enough else None, [point]

    def points(self, built: Approximate, most: float) -> Iterator[Point]:
        """Ask an index with every parameter, until it finds nearly all, no more, or costs more than `most`."""
        is_coarse = any(kind in built.factory for kind in COARSE)
        last = 0.0
        for parameters in _grid(built.index):
            set_parameters(built.index, parameters)
            best = 0.0
            for fetch in FETCHES if is_coarse else FETCHES[:1]:
                point = self.point(replace(built, fetch=fetch), parameters)
                yield point
                reached, gained, best = point.recall - point.error, point.recall - best, max(best, point.recall)
                if (fetch == FETCHES[0] and point.work > most) or reached >= max(self.settings.recall, ENOUGH):
                    return
                if reached >= self.settings.recall or point.work > most or gained < GAIN:
                    break
            if best - last < GAIN and best < self.settings.recall - GAIN:
                return
            last = best

    def point(self, built: Approximate, parameters: dict[str, int]) -> Point:
        """Ask an index as it is."""
        items = replace(self.exact, approximate=built)
        k, users = self.scores.shape[1], len(self.queries)
        began = time.process_time()
        own = top_k(items, self.queries, self.histories, k=k, exclude_seen=self.settings.exclude_seen)[1]
        cpu = 1e6 * (time.process_time() - began) / users
        recall, error = recall_of(own, self.scores)
        wanted = wanted_of(items, k)
        compared = compared_of(built, self.queries)
        ivf = ivf_of(built.index)
        cells = 0 if ivf is None else int(ivf.nlist)
        fetched = wanted + float(self.histories.lengths.mean())
        width = self.queries.shape[1]
        work = search_work(built.factory, width, cells=cells, compared=compared, fetched=fetched, again=wanted)
        return Point(
            factory=built.factory,
            parameters=dict(parameters),
            fetch=built.fetch,
            lengthened=built.lengthened,
            recall=recall,
            error=error,
            compared=compared,
            work=work,
            cpu=cpu,
        )


def recall_of(scores: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Mean share of the k best that lists hold, and its standard error over users; of equal scores any may be there.

    Parameters
    ----------
    scores, exact
        float32 [U, k], best first: exact scores of the lists' items, and those of the exact lists; minus infinity where
        nothing is left.

    >>> recall_of(np.array([[3.0, 1.0]]), np.array([[3.0, 2.0]]))
    (0.5, 0.0)
    """
    there = np.isfinite(exact)
    last = np.where(there, exact, np.inf).min(axis=1)
    hits = (np.isfinite(scores) & (scores >= last[:, None])).sum(axis=1)
    counts = there.sum(axis=1)
    shares = hits[counts > 0] / counts[counts > 0]
    if not len(shares):
        return 1.0, 0.0
    return float(shares.mean()), float(shares.std() / np.sqrt(len(shares)))


def compared_of(built: Approximate, queries: np.ndarray) -> float:
    """Items, on average, whose codes a search compares with one of these queries: counted, not timed."""
    given = np.pad(queries, ((0, 0), (0, int(built.lengthened)))) if built.lengthened else queries
    ivf, inner = ivf_of(built.index), inner_of(built.index)
    if ivf is not None:
        sizes = np.array([ivf.invlists.list_size(cell) for cell in range(ivf.nlist)] + [0])
        return float(sizes[ivf.quantizer.search(given, ivf.nprobe)[1]].sum(axis=1).mean())  # cell -1 is the last
    if isinstance(inner, faiss.IndexHNSW):
        graph: Any = inner.hnsw
        return float(graph.efSearch * graph.nb_neighbors(0) / 2)
    return float(built.index.ntotal)


def _grid(index: Any) -> Iterator[dict[str, int]]:
    names = parameters_of(index)
    if "nprobe" in names:
        cells = int(ivf_of(index).nlist)
        yield from ({"nprobe": probes} for probes in sorted({min(probes, cells) for probes in PROBES} | {cells}))
    elif "efSearch" in names:
        yield from ({"efSearch": width} for width in WIDTHS)
    else:
        yield {}


def _is_graph(factory: str) -> bool:
    return factory.startswith("HNSW")


def _building(factory: str, items: int, width: int) -> float:
    return build_work(factory, items, width, PER_CELL * cells_of(factory))


def _said(chosen: Point, k: int, exact: float) -> str:
    told = "".join(f", {name} {value}" for name, value in chosen.parameters.items())
    times = exact / chosen.work
    faster = f"for an estimated {1 / times:.0%} of the exact search's work"
    return f"The search is approximate ({chosen.factory}{told}): it finds {chosen.recall:.1%} of the {k} best {faster}."


def _unreached(points: list[Point], wanted: float, k: int) -> str:
    """A sentence on why a sweep chose nothing."""
    reached = [point for point in points if point.recall - point.error >= wanted]
    if reached:
        return f"The search is exact: no index finds {wanted:.1%} of the {k} best in less time for so many users."
    most = max(points, key=lambda point: point.recall, default=None)
    found = "" if most is None else f"; the most is {most.recall:.1%} ({most.factory})"
    return f"The search is exact: no index finds {wanted:.1%} of the {k} best of the users asked{found}."
