"""Many small products side by side: a thread for each, instead of all threads for each.

A product of a few thousand rows is too small to be shared: torch's threads then wait for each other at the end of every
operation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def processors() -> int:
    """Processors that this process may use; where the system does not tell (macOS), those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """`work` of each job, in the order of the jobs; as many at once as torch has threads, each on one of them.

    Meant for work without gradients, which has to say so itself: `torch.no_grad` holds for one thread. The first error
    ends it and is raised.
    """
    import torch  # here: who only counts processors does without it

    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, jobs)
        return
    pool = ThreadPoolExecutor(threads, "recsys-products", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(work, jobs)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # threads begun from now on would have one otherwise
