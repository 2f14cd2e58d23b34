"""A machine that is killed in the middle of a step changes no bit of what the step makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import recsys.text.represent as text
from recsys.evaluation import ranking
from tests.recsys.compute.clusters import Machines
from tests.recsys.compute.ring import USERS, Ring

pytestmark = pytest.mark.slow


class Killing:
    """Progress, which kills a machine when it is told for the second time."""

    def __init__(self, machines: Machines) -> None:
        self.machines, self.told = machines, 0

    def __call__(self, *progress: Any) -> None:
        self.told += 1
        if self.told == 2:
            self.machines.kill_one()


def assert_killed(killing: Killing, steps: int) -> None:
    """In the middle: before the last shard, of so many, was done."""
    assert killing.told >= steps and killing.machines.count == 2


def test_text_encoding(ring: Ring, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CHUNK", 2)
    there = ring.with_compute(engine="ray", address=machines.address)
    killing = Killing(machines)
    expected = ring.vectors(ring.elsewhere(tmp_path / "here", ring.settings))
    assert ring.vectors(ring.elsewhere(tmp_path / "there", there), killing).equals(expected)
    assert_killed(killing, 30)


def test_candidates(ring: Ring, machines: Machines) -> None:
    there = ring.with_compute(engine="ray", address=machines.address)
    killing = Killing(machines)
    assert ring.candidates(there, killing).equals(ring.candidates(ring.settings))
    assert_killed(killing, USERS // 7)


def test_evaluation(ring: Ring, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "BLOCK_FLOATS", 400)
    monkeypatch.setattr(ranking, "USERS", 8)
    there = ring.with_compute(engine="ray", address=machines.address)
    killing = Killing(machines)
    assert ring.measured(there, killing) == ring.measured(ring.settings)
    assert_killed(killing, 6 * USERS // 8)
