"""What happens when Prefect fails, and when the work does; the flows themselves are in test_night.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsys.errors import InputError, RecsysError
from recsys.pipelines import steps
from recsys.pipelines.orchestration import launch
from recsys.pipelines.watch import WATCH, Watch, watch, watching
from recsys.settings import Settings
from recsys.settings.read import parse_settings


class Ear(Watch):
    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def failing(error: Exception, entered: bool, summary: dict[str, Any] | None = None) -> Callable[[], Any]:
    """A flow that fails at a stage: before its body, inside it, or after it."""

    def flow() -> dict[str, Any]:
        looking = watch()
        looking.entered, looking.summary = entered, summary
        raise error

    return flow


def go(flow: Callable[[], Any], ear: Ear) -> dict[str, Any]:
    return launch._launch(flow, lambda: {"by": "function"}, ear, True)


@pytest.mark.parametrize(
    ("error", "entered"),
    [
        (ValueError("no server"), False),
        (RuntimeError("timed out"), False),
        (httpx.ConnectError("gone"), True),
    ],
)
def test_without_prefect_the_functions_do_the_work(error: Exception, entered: bool) -> None:
    ear = Ear()
    assert go(failing(error, entered), ear) == {"by": "function"}
    (warning,) = ear.warnings
    assert type(error).__name__ in warning and warning.endswith("going on without it.")


def test_a_night_that_is_complete_is_not_done_again() -> None:
    ear = Ear()
    assert go(failing(httpx.ReadTimeout("late"), True, {"by": "flow"}), ear) == {"by": "flow"}
    assert ear.warnings == ["Prefect does not answer (ReadTimeout); the run itself is complete."]


@pytest.mark.parametrize("error", [InputError("bad file."), RecsysError("locked."), ValueError("a bug")])
def test_the_works_own_errors_come_out_as_they_are(error: Exception) -> None:
    ear = Ear()
    with pytest.raises(type(error)) as caught:
        go(failing(error, True), ear)
    assert caught.value is error and ear.warnings == []


@pytest.mark.parametrize("error", [MemoryError(), ValueError("a bug")])
def test_a_step_alone_that_fails_is_not_done_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.pipelines import flows, ingest

    tried: list[str] = []

    def ingest_alone(*_: object) -> None:
        tried.append("ingest")
        raise error

    monkeypatch.setattr(ingest, "ingest_alone", ingest_alone)
    ear = Ear()
    with pytest.raises(type(error)) as caught:
        go(lambda: flows._alone("ingest", limited()), ear)
    assert caught.value is error and tried == ["ingest"] and ear.warnings == []


def test_the_commands_watch_hears_that_a_task_of_a_flow_has_begun() -> None:
    from recsys.pipelines.orchestration.run_log import recorded

    ear = Ear()
    with watching(ear), recorded():
        watch().enter()
    assert ear.entered


def test_an_error_in_the_configuration_is_not_prefects() -> None:
    with pytest.raises(InputError, match="bad"):
        go(failing(InputError("bad file."), False), Ear())


def test_the_watch_is_there_inside_and_gone_after() -> None:
    ear = Ear()
    assert launch._launch(lambda: {"same": watch() is ear}, dict, ear, True) == {"same": True}
    assert WATCH.get() is None


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError("reset"), True),
        (TimeoutError("late"), True),
        (OSError(5, "input/output error"), True),
        (FileNotFoundError("none"), False),
        (PermissionError("closed"), False),
        (InputError("bad rows."), False),
        (RecsysError("locked."), False),
        (ValueError("a bug"), False),
        (None, False),
    ],
)
def test_only_storage_and_network_are_tried_again(error: BaseException | None, again: bool) -> None:
    assert steps.is_transient(error) is again


def test_a_sentence_made_of_a_passing_error_is_tried_again() -> None:
    def sentence(kind: type[RecsysError], reason: OSError) -> RecsysError:
        try:
            try:
                raise reason
            except OSError:
                raise kind("The disk did not answer.") from None
        except RecsysError as error:
            return error

    assert steps.is_transient(sentence(RecsysError, OSError(5, "input/output error")))
    assert not steps.is_transient(sentence(RecsysError, PermissionError("closed")))
    assert not steps.is_transient(sentence(InputError, OSError(5, "input/output error")))


def limited(**limits: Any) -> Settings:
    return parse_settings({"name": "shop", "interactions": {"source": "log.csv"}, "limits": limits})


@pytest.mark.parametrize(("io", "tries"), [(True, 4), (False, 1)])
def test_only_reading_and_writing_outside_is_tried_again_and_as_often_as_set(io: bool, tries: int) -> None:
    made: list[int] = []

    def step(settings: Settings) -> dict[str, Any]:
        made.append(1)
        raise ConnectionResetError("The server has gone")

    ear = Ear()
    with watching(ear), pytest.raises(ConnectionResetError):
        steps.as_function(steps.Step(step, io=io), limited(retries=3, retry_seconds=0))
    assert len(made) == tries
    assert ear.warnings == ["step: The server has gone; trying again in 0 s."] * (tries - 1)
    assert limited(retries=3, retry_seconds=5).limits.waits == [5, 10, 20]


def test_wrong_input_is_not_tried_again() -> None:
    made: list[int] = []

    def step(settings: Settings) -> dict[str, Any]:
        made.append(1)
        raise InputError("bad rows.")

    with pytest.raises(InputError):
        steps.as_function(steps.io_task(step), limited())
    assert made == [1]


def test_reports_become_plain_json() -> None:
    import numpy as np

    value = {1: np.float32(0.5), "a": np.arange(2), "b": float("nan"), "c": (True, None, float("inf"))}
    assert steps.plain(value) == {"1": 0.5, "a": [0, 1], "b": None, "c": [True, None, None]}


ROOT = Path(__file__).parents[2]
HUSHED = """
import logging
from recsys.pipelines.orchestration.launch import _hush_prefect
from recsys.pipelines.orchestration.run_log import TOLD
_hush_prefect()
logger = logging.getLogger("prefect.flow_runs")
logger.setLevel(logging.INFO)
of = {"flow_run_name": "shop-a 2026-11-28"}
logger.info("told at the terminal", extra={TOLD: True, **of})
logger.warning("told at the terminal", extra={TOLD: True, **of})
logger.info("Finished in state Completed()", extra=of)
logger.warning("Prefect's own warning", extra=of)
"""


def test_what_the_command_tells_prefect_does_not_tell_again() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    done = subprocess.run([sys.executable, "-c", HUSHED], env=environment, capture_output=True, text=True, check=True)
    told = [line.rpartition(" - ")[2] for line in (done.stdout + done.stderr).splitlines()]
    assert told == ["Prefect's own warning"]
