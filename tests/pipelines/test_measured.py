"""Metrics and marks that a night leaves for those who watch it, however it ends."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from recsys import runs
from recsys.errors import InputError, RecsysError
from recsys.pipelines.measured import earlier, measured, said, tell_metrics, with_budget
from recsys.pipelines.status import show_status, status
from recsys.pipelines.watch import Watch, watching
from recsys.report.page import page
from recsys.running import running
from recsys.runs import RunState
from recsys.settings import Settings
from recsys.settings.read import parse_settings

RUN = "3f9a01c2" + 24 * "0"


class Told(Watch):
    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def told() -> Iterator[Told]:
    with watching(display := Told()):
        yield display


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tree = {"name": "shop", "interactions": {"source": "log.csv"}, "warehouse": str(tmp_path / "warehouse")}
    return parse_settings({**tree, "metrics": {"textfile": str(tmp_path / "shop.prom")}})


def night(settings: Settings, day: int, seconds: float = 100.0, **more: Any) -> RunState:
    """A finished night of a day, that has trained; it is saved."""
    state = RunState(
        key=f"{settings.name}-{day}",
        run_id=f"{day:032x}",
        started=f"2026-11-{day:02}T03:00:00+00:00",
        status="finished",
        finished=f"2026-11-{day:02}T04:00:00+00:00",
        name=settings.name,
        steps={"train": {"report": {}, "seconds": seconds}},
    )
    state = RunState(**{**vars(state), **more})
    runs.save(runs.state_folder(settings.warehouse), state)
    return state


def published(settings: Settings, day: int) -> RunState:
    step = {"report": {"candidates": {"rows": 5}}, "seconds": 1.0}
    return night(settings, day, steps={"publish": step})


def numbers(settings: Settings) -> dict[tuple[str, ...], float]:
    text = Path(str(settings.metrics.textfile)).read_text()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *(v for k, v in sample.labels.items() if k != "name")): sample.value for sample in samples}


def state_of(settings: Settings) -> str:
    found = numbers(settings)
    (state,) = [key[1] for key, value in found.items() if key[0] == "recsys_night_state" and value]
    return state


def test_a_night_that_is_published_and_one_that_is_kept_back(settings: Settings) -> None:
    tell_metrics(settings, published(settings, 1).run_id)
    assert state_of(settings) == "published" and numbers(settings)[("recsys_rows_published",)] == 5
    success = numbers(settings)[("recsys_night_last_success_timestamp_seconds",)]
    tell_metrics(settings, night(settings, 2).run_id)
    assert state_of(settings) == "kept back"
    assert numbers(settings)[("recsys_night_last_success_timestamp_seconds",)] == success
    assert ("recsys_rows_published",) not in numbers(settings)


def test_a_night_that_fails_before_it_has_a_record_gets_one(settings: Settings) -> None:
    published(settings, 1)
    with pytest.raises(ValueError), measured(settings), running(run=RUN, name="shop"):
        raise ValueError("https://ann:secret@host is not there")
    assert state_of(settings) == "failed" and ("recsys_night_info", "3f9a01c2") in numbers(settings)
    assert ("recsys_night_last_success_timestamp_seconds",) in numbers(settings)
    failed, good = status(settings, 7)["nights"]
    assert failed["state"] == "failed after the start" and good["state"] == "published"
    assert failed["sentence"] == "ValueError: https://***@host is not there."


def test_a_night_that_fails_later_has_its_own_record(settings: Settings) -> None:
    with pytest.raises(ValueError), measured(settings), running(run=RUN, name="shop"):
        night(settings, 3, run_id=RUN, status="failed")
        raise ValueError
    assert state_of(settings) == "failed" and numbers(settings)[("recsys_step_seconds", "train")] == 100
    assert len(list(runs.states(runs.state_folder(settings.warehouse)))) == 1


@pytest.mark.parametrize(
    ("steps", "state"), [({"publish": {"report": {}, "seconds": 1.0}}, "published"), ({}, "kept back")]
)
def test_a_night_that_is_stopped_after_its_end_has_not_failed(
    settings: Settings, steps: dict[str, Any], state: str
) -> None:
    with pytest.raises(SystemExit), measured(settings), running(run=RUN, name="shop"):
        night(settings, 3, run_id=RUN, steps=steps)
        raise SystemExit(143)
    assert state_of(settings) == state and ("recsys_night_info", "3f9a01c2") in numbers(settings)


def test_a_night_that_never_began_makes_no_warehouse(settings: Settings) -> None:
    with pytest.raises(ValueError), measured(settings), running(run=RUN):
        raise ValueError  # of an earlier night in this process
    assert not Path(settings.warehouse).exists() and not Path(str(settings.metrics.textfile)).exists()
    published(settings, 1)
    with pytest.raises(ValueError), measured(settings):
        raise ValueError("MLflow does not answer")
    assert state_of(settings) == "failed" and len(status(settings, 7)["nights"]) == 1


def test_a_night_that_another_one_keeps_out_leaves_nothing(settings: Settings) -> None:
    with runs.locked(settings.warehouse), pytest.raises(RecsysError), measured(settings):
        raise RecsysError("Another run is writing.")
    assert not Path(str(settings.metrics.textfile)).exists()


def test_a_folder_that_takes_no_file_costs_no_night(settings: Settings, tmp_path: Path, told: Told) -> None:
    (tmp_path / "file").touch()
    metrics = settings.metrics.model_copy(update={"textfile": str(tmp_path / "file" / "x.prom")})
    tell_metrics(settings.model_copy(update={"metrics": metrics}), published(settings, 1).run_id)
    (warning,) = told.warnings
    assert "x.prom" in warning and warning.endswith("Prometheus is not told of this night.")


def test_a_step_over_its_budget_is_said_everywhere(settings: Settings, told: Told) -> None:
    folder = runs.state_folder(settings.warehouse)
    for day in range(1, 5):
        night(settings, day)
    night(settings, 5, 1e6, status="failed")  # neither what failed, nor another configuration's, is a measure
    night(settings.model_copy(update={"name": "other"}), 6, 1e6)
    before = earlier(settings, folder)
    now = night(settings, 7, 301.0)
    assert [state.started[8:10] for state in before] == ["04", "03", "02", "01"]
    over = with_budget(settings, now, "train", before)
    sentence = "The step train took 5.0 min, 3.0 times the median of the last 4 nights (1.7 min)."
    assert told.warnings == [sentence]
    runs.save(folder, over)
    report = status(settings, 1)
    assert report["nights"][0]["over_budget"] == [sentence]
    show_status(Console(file=(file := io.StringIO()), width=300), report)
    assert sentence in file.getvalue() and "5.0 over" in file.getvalue()
    assert sentence in page({"name": "shop", "started": now.started, "steps": over.steps})
    tell_metrics(settings, now.run_id)
    assert numbers(settings)[("recsys_step_over_budget", "train", "seconds")] == 1
    assert with_budget(settings, night(settings, 8, 300.0), "train", before).steps["train"].get("over") is None


def test_nights_are_in_order_and_told_of_though_the_clock_jumps_back(settings: Settings) -> None:
    folder = runs.state_folder(settings.warehouse)
    night(settings, 20)  # of an earlier version, without a number
    for number, day in enumerate((28, 9, 12), 1):
        assert runs.next_number(folder) == number
        night(settings, day, number=number)
    assert [one["started"][8:10] for one in status(settings, 9)["nights"]] == ["12", "09", "28", "20"]
    assert [state.started[8:10] for state in earlier(settings, folder)] == ["12", "09", "28", "20"]
    tell_metrics(settings, f"{12:032x}")
    assert ("recsys_night_info", f"{12:032x}"[:8]) in numbers(settings) and state_of(settings) == "kept back"


def test_a_signal_is_a_sentence_in_the_record() -> None:
    assert said(SystemExit(143)) == "Stopped from outside." and said(KeyboardInterrupt()) == "Interrupted."
    assert said(InputError("bad.")) == "InputError: bad."
