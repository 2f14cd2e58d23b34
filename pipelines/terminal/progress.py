"""Progress of work on stderr: bars at a terminal; elsewhere lines of JSON, or of text where that is chosen."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from recsys.observe.lines import log
from recsys.pipelines.watch import Watch
from recsys.running import current, in_step, last, running
from recsys.storage.addresses import masked

_QUIET_SECONDS: Final = 10.0  # between two lines of one step where there is no terminal


class Show(Watch):
    """Shows progress; the command's log begins with it."""

    def __init__(self) -> None:
        super().__init__()
        log.begin()
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._bar: TaskID | None = None
        self._step = ""
        self._told = 0.0  # when the last plain line was written

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        self._step, self._told = name, began
        log.noted()
        with in_step(name):
            if self._console.is_terminal and not log.json:
                columns = (
                    SpinnerColumn(),
                    TextColumn("{task.description:<10}"),
                    BarColumn(bar_width=30),
                    TimeElapsedColumn(),
                    TextColumn("{task.fields[text]}"),
                )
                with Progress(*columns, console=self._console, transient=True) as bars:
                    self._bars, self._bar = bars, bars.add_task(name, total=None, text="")
                    try:
                        yield
                    finally:
                        self._bars = self._bar = None
            else:
                self._begins(name)
                log.sweep()
                try:
                    yield
                    began = max(began, log.given)  # a step alone: starting up is no part of its work
                finally:
                    log.give()
            seconds = time.perf_counter() - began
            ended = {"event": "step ends", "seconds": round(seconds, 3), **log.noted()}
            with running(run=last().run, name=last().name):
                self._line(f"{name} done in {seconds:.1f} s", ended)

    def _begins(self, name: str) -> None:
        if log.json and current().run is None:  # a step alone: its run begins with its work
            log.hold(f"{name} ...", {"event": "step begins"})
        else:
            self._line(f"{name} ...", {"event": "step begins"})

    def advance(self, done: int, total: int | None, text: str = "") -> None:
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=done, total=total, text=escape(text))
        elif time.perf_counter() - self._told >= _QUIET_SECONDS:
            self._told = time.perf_counter()
            share = f"{done} of {total}" if total else f"{done}"
            self._line(f"{self._step} {share} {text}".rstrip(), {"done": done, "total": total})

    def say(self, text: str) -> None:
        self._line(masked(text))

    def warn(self, text: str) -> None:
        if log.json:
            log.line(text, logging.WARNING)
        else:
            self._console.print(f"[yellow]Warning:[/] {escape(masked(text))}")

    def _line(self, text: str, fields: Mapping[str, Any] | None = None) -> None:
        if log.json:
            log.line(text, fields=fields)
        else:
            self._console.print(escape(text))
