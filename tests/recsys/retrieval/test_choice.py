"""The choice of an index: what is served finds what it promises, the same every time, and is exact where none does."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pytest

from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.evaluation.plots import plot_index
from recsys.report.night import Night
from recsys.report.search import search
from recsys.retrieval.choice import IndexReport, choose_index
from recsys.retrieval.factory import EXACT, build_approximate, check_factory
from recsys.retrieval.index import Approximate, ItemIndex, build_index
from recsys.retrieval.stored import set_parameters
from recsys.retrieval.top_k import top_k
from recsys.settings import RetrieveSettings

ITEMS, WIDTH, USERS, K = 3000, 16, 64, 20
RNG = np.random.default_rng(0)
CENTRES = RNG.standard_normal((40, WIDTH)) * 2
VECTORS = (CENTRES[RNG.integers(0, 40, ITEMS + 1)] + RNG.standard_normal((ITEMS + 1, WIDTH)) / 2).astype(np.float32)
VECTORS[0] = 0
ALLOWED = np.arange(ITEMS + 1) > 0
QUERIES = (CENTRES[RNG.integers(0, 40, USERS)] + RNG.standard_normal((USERS, WIDTH)) / 2).astype(np.float32)
HAD = Sequences.nameless(RNG.integers(1, ITEMS + 1, USERS * 5).astype(np.int32), np.arange(USERS + 1) * 5)


def choose(index: str, recall: float = 0.9, users: int = 10**6) -> tuple[ItemIndex, IndexReport]:
    settings = RetrieveSettings(index=index, recall=recall, k=K)
    return choose_index(settings, VECTORS, ALLOWED, lambda: (QUERIES, HAD), users)


@pytest.mark.parametrize("factory", ["IVF32,Flat", "HNSW16,Flat", "IVF32,SQ8"])
def test_what_is_served_finds_what_it_promises(factory: str) -> None:
    index, report = choose(factory)
    assert (index.exact, report.factory) == (False, factory) and report.recall >= 0.9 and factory in report.reason
    lists, scores = top_k(index, QUERIES, HAD, k=K)
    exact, best = top_k(build_index(VECTORS, ALLOWED), QUERIES, HAD, k=K)
    found = np.mean([len(np.intersect1d(own, true)) / K for own, true in zip(lists, exact, strict=True)])
    assert found == pytest.approx(report.recall, abs=1e-6)
    assert (lists > 0).all() and (scores <= best).all()
    assert not any(set(own) & set(HAD.items[5 * row : 5 * row + 5]) for row, own in enumerate(lists))


def test_equal_input_gives_an_equal_choice_and_equal_lists() -> None:
    (one, said), (other, again) = choose("IVF32,Flat"), choose("IVF32,Flat")
    assert (said.parameters, said.recall, said.fetch) == (again.parameters, again.recall, again.fetch)
    assert np.array_equal(top_k(one, QUERIES, HAD, k=K)[0], top_k(other, QUERIES, HAD, k=K)[0])


def test_a_choice_is_kept_for_nearly_the_same_vectors_and_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    index, first = choose("IVF32,SQ8")
    built: list[str] = []

    def counted(*args: Any, **more: Any) -> Approximate:
        built.append(args[2])
        return build_approximate(*args, **more)

    monkeypatch.setattr("recsys.retrieval.choice.build_approximate", counted)
    moved = (VECTORS + np.float32(0.01) * RNG.standard_normal(VECTORS.shape, dtype=np.float32)).astype(np.float32)
    settings = RetrieveSettings(index="IVF32,SQ8", recall=0.9, k=K)
    chosen_again = partial(choose_index, settings, moved, ALLOWED, lambda: (QUERIES, HAD), 10**6)
    kept, report = chosen_again(before=index)
    assert built == ["IVF32,SQ8"] and len(report.points) == 1
    assert (report.factory, report.parameters) == (first.factory, first.parameters)
    exact, found = build_index(moved, ALLOWED), top_k(kept, QUERIES, HAD, k=K)[0]
    best = top_k(exact, QUERIES, HAD, k=K)[0]
    shares = [len(np.intersect1d(own, true)) / K for own, true in zip(found, best, strict=True)]
    assert np.mean(shares) == pytest.approx(report.recall, abs=1e-6) and report.recall >= 0.9
    again, said = chosen_again(before=exact)
    assert again.exact and said.factory == EXACT and len(built) == 1


def test_a_choice_that_finds_too_little_now_is_made_anew() -> None:
    index, _ = choose("IVF32,Flat")
    assert index.approximate is not None
    set_parameters(index.approximate.index, {"nprobe": 1})
    settings = RetrieveSettings(index="IVF32,Flat", recall=0.99, k=K)
    found, report = choose_index(settings, VECTORS, ALLOWED, lambda: (QUERIES, HAD), 10**6, before=index)
    assert not found.exact and report.recall >= 0.99 and len(report.points) > 1


def test_a_recall_that_nothing_reaches_is_said_and_served_exactly() -> None:
    index, report = choose("IVF32,PQ1x4", recall=1.0)
    assert index.exact and report.factory == EXACT and report.recall == 1.0
    assert report.points and "100" in report.reason and "exact" in report.reason.lower()


def test_a_small_catalogue_is_not_tried() -> None:
    index, report = choose("auto")
    assert index.exact and not report.points


@pytest.mark.parametrize("factory", ["HNSWX", "IVF32,Flat,Nonsense", "flat ", "PQ8x99"])
def test_a_string_that_faiss_does_not_know_is_refused(factory: str) -> None:
    with pytest.raises(InputError, match=r"retrieve\.index"):
        check_factory(factory)


def test_the_sweep_is_shown_and_drawn() -> None:
    _, report = choose("IVF32,Flat")
    shown = search(Night({"steps": {"refit": {"report": {"index": asdict(report)}}}}))
    assert shown is not None and "served" in shown["svg"] and len(shown["rows"]) == 1 + len(report.points)
    assert shown["rows"][0]["index"] == "every item"
    assert len(plot_index(asdict(report)).axes) == 1
    _, report = choose("exact")
    assert search(Night({"steps": {"refit": {"report": {"index": asdict(report)}}}})) is None
