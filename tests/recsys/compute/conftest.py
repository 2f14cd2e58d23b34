"""A small shop, and a cluster of three machines that a test may kill, once for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.recsys.compute.clusters import Machines, three_machines
from tests.recsys.compute.ring import Ring, make_ring


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Ring:
    return make_ring(tmp_path_factory.mktemp("ring"))


@pytest.fixture(scope="module")
def running() -> Iterator[Machines]:
    with three_machines() as cluster:
        yield cluster


@pytest.fixture
def machines(running: Machines) -> Machines:
    """Three machines, whatever the test before has killed."""
    running.replace()
    return running
