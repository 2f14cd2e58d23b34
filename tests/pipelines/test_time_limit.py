"""A step that takes longer than its limit ends, says which setting, and leaves alarms of others as they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import InputError
from recsys.pipelines import steps, time_limit
from recsys.pipelines.time_limit import StepOverran, within
from recsys.settings import Settings
from recsys.settings.read import parse_settings

SOON = 0.001  # (minutes)


@pytest.fixture(autouse=True)
def no_other_alarm() -> Iterator[None]:
    """The alarm of the test runner's own time-out is put aside."""
    outer = signal.setitimer(signal.ITIMER_REAL, 0.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, *outer)


def settings(**minutes: Any) -> Settings:
    tree = {"name": "shop", "interactions": {"source": "log.csv"}, "limits": {"timeout_minutes": minutes}}
    return parse_settings(tree)


def train(_: Settings) -> dict[str, Any]:
    time.sleep(30)
    return {}


@pytest.mark.parametrize("io", [False, True])
def test_a_step_that_overran_says_which_how_long_and_what_to_set(io: bool) -> None:
    with pytest.raises(StepOverran) as caught:
        steps.as_function(steps.Step(train, io=io), settings(train=SOON))  # and is not tried again
    assert str(caught.value) == (
        "The step train was ended after 0.001 min, its limit; what is done stays done, and the next start goes on "
        "from there. If the step needs longer, raise limits.timeout_minutes.train."
    )
    assert not steps.is_transient(caught.value)


def test_work_that_takes_every_exception_for_its_own_ends_all_the_same() -> None:
    with pytest.raises(StepOverran), within("report", SOON):
        while True:
            try:
                time.sleep(30)
            except Exception:
                continue


def test_what_is_done_in_time_is_not_disturbed() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with within("ingest", SOON):
        pass
    time.sleep(SOON * 60 * 2)
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and thread.is_alive()]


def test_an_alarm_of_somebody_else_is_there_afterwards_and_one_that_comes_first_stays() -> None:
    signal.setitimer(signal.ITIMER_REAL, 5000.0)
    with within("ingest", 1):
        assert signal.getitimer(signal.ITIMER_REAL)[0] <= 60
    assert 1000 < signal.getitimer(signal.ITIMER_REAL)[0] <= 5000
    with within("ingest", 1000):
        assert signal.getitimer(signal.ITIMER_REAL)[0] <= 5000
    assert signal.getitimer(signal.ITIMER_REAL)[0] <= 5000


def test_other_threads_have_no_alarm() -> None:
    done: list[bool] = []

    def work() -> None:
        with within("ingest", SOON):
            time.sleep(SOON * 60 * 2)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_no_limit_where_none_is_set_and_days_are_the_defaults() -> None:
    assert settings(train="none").limits.timeout_minutes.train is None
    assert settings().limits.timeout_minutes.train == 24 * 60
    with pytest.raises(InputError, match=r"limits\.timeout_minutes\.train = 0: .* greater than 0"):
        settings(train=0)
    with pytest.raises(InputError, match=r"there is no setting limits\.timeout_minutes\.trian; did you mean .*train\?"):
        settings(trian=1)


DEAF = """
import sys, signal
from recsys.pipelines import time_limit
from recsys.pipelines.terminal.console import Show
from recsys.pipelines.watch import watching
time_limit.GRACE = 0.1
time_limit.may_end_process()
with watching(Show()), time_limit.within("export", 0.001):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # as a library that does not come back to Python
    sys.stdin.read()
"""


def test_a_step_that_hears_no_alarm_is_ended_with_its_process() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(time_limit.__file__).parents[2])}
    command = [sys.executable, "-c", DEAF]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.wait() == 1
    assert process.stderr is not None
    assert "Warning: The step export was ended after 0.001 min" in process.stderr.read()
    for stream in (process.stdin, process.stderr):
        assert stream is not None
        stream.close()
