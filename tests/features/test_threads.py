"""Products side by side: the order of the jobs, one torch thread each, nothing left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from recsys.features.threads import processors, side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_processors_are_counted_also_where_nobody_says_which_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert processors() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1


def in_a_new_thread(found: list[int]) -> None:
    found.append(torch.get_num_threads())


@pytest.mark.usefixtures("two_threads")
def test_results_come_in_the_order_of_the_jobs_and_two_run_at_once() -> None:
    both = threading.Barrier(2)  # nobody would pass it, were they to run one after the other

    def work(job: int) -> tuple[int, int]:
        both.wait()
        return job, torch.get_num_threads()

    assert list(side_by_side(work, range(4))) == [(job, 1) for job in range(4)]


@pytest.mark.usefixtures("two_threads")
def test_torch_has_its_threads_again_whatever_happens() -> None:
    def fails(job: int) -> int:
        raise ValueError(f"job {job}")

    with pytest.raises(ValueError, match="job 0"):
        list(side_by_side(fails, range(3)))
    found = [torch.get_num_threads()]
    later = threading.Thread(target=in_a_new_thread, args=(found,))
    later.start()
    later.join()
    assert found == [2, 2]


def test_one_thread_needs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    here = threading.get_ident()
    assert list(side_by_side(lambda job: threading.get_ident(), range(2))) == [here, here]
