"""Log lines of a command that works: text for people, JSON for what collects logs. Passwords are masked in both.

A line of JSON has `time` (ISO 8601, UTC), `level`, `run`, `night`, `step`, `logger` and `message`; null where there is
none. Figures are fields of their own: `seconds`, `rows` and others, see `recsys.observe.figures`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from recsys.running import current, failed, short
from recsys.storage.addresses import masked

Format = Literal["auto", "text", "json"]

VARIABLE: Final = "RECSYS_LOG_FORMAT"
LOGGER: Final = logging.getLogger("recsys")
_FIRST: Final = '{"time": '  # of every line
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_WARNINGS: Final = "py.warnings"


class JsonLines(logging.Formatter):
    """A record as one line of JSON, with what this process is at."""

    def format(self, record: logging.LogRecord) -> str:
        at = current()
        if at.run is None and record.levelno >= logging.ERROR:  # the command tells of an error when the run has ended
            at = failed()
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "run": None if at.run is None else short(at.run),
            "night": at.name,
            "step": at.step,
            "logger": record.name,
            "message": masked(record.getMessage().strip()),
        }
        line |= {name: value for name, value in getattr(record, "fields", {}).items() if name not in line}
        if record.exc_info:
            line["traceback"] = masked(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class Stream(io.TextIOBase):
    """A stream in the place of stderr: text that is no line of JSON, from whatever library, becomes one."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._rest = ""
        self._formatter = JsonLines()
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            if self._rest and text.startswith(_FIRST):  # a progress bar's line, which ends with the next one
                rest, self._rest = self._rest, ""
                self._give(rest)
            *lines, self._rest = (self._rest + text).replace("\r", "\n").split("\n")
            for line in lines:
                self._give(line)
        return len(text)

    def _give(self, line: str) -> None:
        if not (line.startswith(_FIRST) and line.endswith("}")):
            told = _COLOURS.sub("", line).strip()
            if not told:
                return
            line = self._formatter.format(logging.LogRecord("stderr", logging.INFO, "", 0, told, None, None))
        self.stream.write(line + "\n")

    def flush(self) -> None:
        self.stream.flush()

    def finish(self) -> None:
        """Give what has no end of line yet."""
        with self._lock:
            rest, self._rest = self._rest, ""
            self._give(rest)
            self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True


class Log:
    """The log of one command: nothing until it works, and text unless JSON was chosen."""

    def __init__(self) -> None:
        self._json = False  # chosen
        self._stream: Stream | None = None  # while lines are JSON
        self._before: list[tuple[logging.Handler, logging.Formatter | None]] = []
        self._kept: tuple[TextIO, TextIO, int, bool, bool] | None = None
        self._handler: logging.Handler | None = None
        self._noted: dict[str, Any] = {}
        self._held: tuple[str, Mapping[str, Any]] | None = None
        self.given = 0.0  # by the clock of `perf_counter`: when a line that was kept was written last
        self._variable = os.environ.get(VARIABLE)

    def choose(self, wanted: Format) -> None:
        """Choose the form of lines; "auto" is text at a terminal, and JSON elsewhere once there is work to tell of."""
        self._json = wanted == "json" or (wanted == "auto" and not sys.stderr.isatty())
        if wanted == "json":
            self._variable = os.environ.get(VARIABLE)
            os.environ[VARIABLE] = "json"  # for processes that the command starts
            self.begin()

    @property
    def json(self) -> bool:
        """Return whether lines are JSON now."""
        return self._stream is not None

    def begin(self) -> None:
        """Begin, as work does: from now on every line that this process writes to stderr is as chosen."""
        if not self._json or self._stream is not None:
            return
        warnings_logger = logging.getLogger(_WARNINGS)
        self._kept = (sys.stderr, sys.stdout, LOGGER.level, LOGGER.propagate, warnings_logger.propagate)
        self._stream = Stream(sys.stderr)
        if sys.stdout is sys.stderr:
            sys.stdout = self._stream
        sys.stderr = self._stream
        self._handler = logging.StreamHandler(self._stream)
        self._handler.setFormatter(JsonLines())
        LOGGER.setLevel(logging.INFO)
        for logger in (LOGGER, warnings_logger):
            logger.addHandler(self._handler)
            logger.propagate = False  # what a library puts on the root logger would tell it again
        logging.captureWarnings(True)
        self.sweep()

    def sweep(self) -> None:
        """Let the handlers that libraries have set up on stderr since write JSON, with their levels and names."""
        if self._stream is None:
            return
        known = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
        found = [handler for logger in known for handler in logger.handlers]
        for handler in [*found, logging.lastResort]:
            to_screen = isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
            if handler is not None and to_screen and not isinstance(handler.formatter, JsonLines):
                self._before.append((handler, handler.formatter))
                handler.setFormatter(JsonLines())

    def close(self) -> None:
        """End with the command, and leave everything as it was before."""
        self._json = False
        if self._stream is None or self._kept is None:
            return
        self.give()
        if self._variable is not None:
            os.environ[VARIABLE] = self._variable
        else:
            os.environ.pop(VARIABLE, None)
        self._stream.finish()
        logging.captureWarnings(False)
        warnings_logger = logging.getLogger(_WARNINGS)
        for logger in (LOGGER, warnings_logger):
            if self._handler is not None:
                logger.removeHandler(self._handler)
        for handler, formatter in self._before:
            handler.setFormatter(formatter)
        stderr, stdout, level, own, of_warnings = self._kept
        if sys.stdout is self._stream:
            sys.stdout = stdout
        sys.stderr = stderr
        LOGGER.setLevel(level)
        LOGGER.propagate, warnings_logger.propagate = own, of_warnings
        self._stream = self._kept = self._handler = None
        self._before = []

    def line(self, message: str, level: int = logging.INFO, fields: Mapping[str, Any] | None = None) -> None:
        """Write a line with fields of its own."""
        self.give()
        LOGGER.log(level, "%s", message, extra={"fields": dict(fields or {})})

    def hold(self, message: str, fields: Mapping[str, Any]) -> None:
        """Keep a line until its run has begun, so that it bears the run's id, or until another one is written."""
        self._held = (message, fields)

    def give(self) -> None:
        """Write the line that is kept, if there is one."""
        if self._held is not None:
            (message, fields), self._held = self._held, None
            self.given = time.perf_counter()
            self.line(message, fields=fields)

    def note(self, figures: Mapping[str, Any]) -> None:
        """Note figures of the step at work, for the line that ends it."""
        self._noted |= figures

    def noted(self) -> dict[str, Any]:
        """Return the figures that were noted since the last time."""
        found, self._noted = self._noted, {}
        return found


log: Final = Log()  # of this process
