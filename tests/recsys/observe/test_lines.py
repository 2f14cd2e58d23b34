"""Lines of a log: each one a JSON object, whoever wrote it; nothing stays changed afterwards."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from recsys.observe.lines import LOGGER, Log
from recsys.running import current, in_step, last, running


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def logged(wanted: Any = "auto", stream: io.StringIO | None = None) -> Iterator[tuple[Log, io.StringIO]]:
    """A log that has begun, and its stream."""
    file = io.StringIO() if stream is None else stream
    with contextlib.redirect_stderr(file), contextlib.closing(Log()) as log:
        log.choose(wanted)
        log.begin()
        yield log, file


def lines(file: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_a_line_says_when_what_and_where_with_its_figures() -> None:
    with logged() as (log, file), running(run="3f9a01c2" + 24 * "0", name="shop-a"), in_step("ingest"):
        log.line("ingest done in 0.7 s", fields={"seconds": 0.7, "rows": 12, "message": "not mine"})
    (line,) = lines(file)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "run": "3f9a01c2",
        "night": "shop-a",
        "step": "ingest",
        "logger": "recsys",
        "message": "ingest done in 0.7 s",
        "seconds": 0.7,
        "rows": 12,
    }


def test_an_error_told_after_the_run_bears_its_id() -> None:
    with logged() as (log, file):
        with pytest.raises(ValueError), running(run="3f9a01c2" + 24 * "0", name="shop-a"), in_step("train"):
            raise ValueError
        log.line("The disk is full.", logging.ERROR)
        log.line("The next command's own.")
    told, after = lines(file)
    assert (told["run"], told["night"], told["step"]) == ("3f9a01c2", "shop-a", "train") and after["run"] is None


def test_what_libraries_write_is_json_too_and_without_passwords() -> None:
    library = logging.getLogger("some.library")
    with logged() as (log, file):
        handler = logging.StreamHandler()  # as a library sets one up when it is imported, in the middle of a night
        library.addHandler(handler)
        log.sweep()
        library.warning("postgresql://ann:secret@db/x is slow")
        sys.stderr.write("\x1b[31mhalf")
        sys.stderr.write(" a line\x1b[0m\r10%\r\n\ncut")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old and password=hunter2", UserWarning, stacklevel=1)
        LOGGER.error("it failed", exc_info=ValueError("token=abcdef"))
    library.removeHandler(handler)
    text = file.getvalue()
    assert not [word for word in ("ann:", "secret", "hunter2", "abcdef", "\x1b") if word in text]
    found = {line["message"].partition("\n")[0]: line for line in lines(file)}
    assert found["postgresql://***@db/x is slow"]["level"] == "warning"
    assert found["postgresql://***@db/x is slow"]["logger"] == "some.library"
    assert {"half a line", "10%", "cut"} <= set(found)
    (warned,) = [line for line in lines(file) if line["logger"] == "py.warnings"]
    assert warned["level"] == "warning" and "old and password=***" in warned["message"]
    assert "ValueError" in found["it failed"]["traceback"]


def test_everything_is_as_before_when_the_log_ends() -> None:
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(formatter := logging.Formatter("%(message)s"))
    logging.getLogger("some.library").addHandler(handler)
    before = (sys.stderr, sys.stdout, LOGGER.level, LOGGER.propagate, list(LOGGER.handlers), warnings.showwarning)
    with logged():
        assert sys.stderr is not before[0] and handler.formatter is not formatter
    after = (sys.stderr, sys.stdout, LOGGER.level, LOGGER.propagate, list(LOGGER.handlers), warnings.showwarning)
    assert after == before and handler.formatter is formatter
    logging.getLogger("some.library").removeHandler(handler)


@pytest.mark.parametrize(
    ("wanted", "terminal", "json_lines"),
    [("auto", True, False), ("auto", False, True), ("text", False, False), ("json", True, True)],
)
def test_people_at_a_terminal_read_text(wanted: str, terminal: bool, json_lines: bool) -> None:
    with logged(wanted, Terminal() if terminal else io.StringIO()) as (log, _):
        assert log.json is json_lines


def test_a_command_that_only_reads_leaves_stderr_as_it_is() -> None:
    file = io.StringIO()
    with contextlib.redirect_stderr(file), contextlib.closing(Log()) as log:
        log.choose("auto")
        sys.stderr.write("a sentence\n")
    assert file.getvalue() == "a sentence\n"


def test_figures_that_were_noted_are_told_once() -> None:
    log = Log()
    log.note({"rows": 3})
    log.note({"users": 2})
    assert log.noted() == {"rows": 3, "users": 2} and log.noted() == {}


def test_a_line_that_is_held_comes_before_any_other_one_and_once() -> None:
    with logged() as (log, file):
        log.hold("train ...", {"event": "step begins"})
        assert not file.getvalue()
        with running(run="3f9a01c2" + 24 * "0"):
            log.line("Reading.")
            log.give()
        log.hold("refit ...", {})
    assert [(line["message"], line["run"]) for line in lines(file)] == [
        ("train ...", "3f9a01c2"),
        ("Reading.", "3f9a01c2"),
        ("refit ...", None),
    ]


def test_the_run_that_a_step_began_is_known_until_the_next_step() -> None:
    with in_step("train"):
        with running(run="3f9a", name="shop-a"):
            assert last() == current()
        assert (last().run, last().name, current().run) == ("3f9a", "shop-a", None)
        with in_step("export"):
            assert last().run is None


def test_a_kept_line_says_when_it_was_written() -> None:
    with logged() as (log, file):
        log.hold("ingest ...", {"event": "step begins"})
        assert log.given == 0.0 and not file.getvalue()
        log.give()
        assert log.given > 0.0 and lines(file)[0]["message"] == "ingest ..."
