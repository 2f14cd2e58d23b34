"""The `recsys` command: arguments in, one call of a flow or a function, an answer out.

The commands are in `commands/`, in the order of `recsys --help`; how a command ends is in `outcome`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final

# each adds its commands to the application, so their order is that of the help
# isort: off
from recsys.pipelines.commands import start, schedule, steps, decide, releases, answers, serve, upkeep, tools  # noqa: F401

# isort: on
from recsys.pipelines import collecting
from recsys.pipelines.commands.base import app
from recsys.pipelines.terminal.outcome import STOPPED, outcome
from recsys.pipelines.time_limit import may_end_process

_FORMAT = warnings.formatwarning
_AGAIN: Final = 0.1  # (seconds) after a stop that was dropped, as long as freeing an object may take


def main() -> None:
    """The `recsys` command."""
    collecting.rarely()
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _once_more
    warnings.formatwarning = _as_a_sentence
    may_end_process()
    code = execute(sys.argv[1:])
    gc.freeze()  # the process ends: nothing of it has to be looked through for cycles, which takes torch half a second
    sys.exit(code)


def _as_a_sentence(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
    """A warning for the user without the line of Python that it came from."""
    return f"Warning: {message}\n" if category is FutureWarning else _FORMAT(message, category, *where, **more)


def _stop(*_: object) -> None:
    """End as an exception does: it closes runs, and Prefect's temporary server, which outlives a plain kill."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one must not cut the closing short
    sys.exit(STOPPED)


def _once_more(told: Any, shown: Callable[[Any], Any] = sys.unraisablehook) -> None:
    """Stop again where the signal came while an object was being freed: Python drops what is raised there."""
    if told.exc_type is SystemExit:
        signal.signal(signal.SIGTERM, _stop)
        threading.Timer(_AGAIN, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        shown(told)


def execute(arguments: list[str]) -> int:
    """Run the command with arguments; returns the exit code: 0, 1 (the job failed) or 2 (wrong input)."""
    return outcome(app, arguments)


if __name__ == "__main__":
    main()
