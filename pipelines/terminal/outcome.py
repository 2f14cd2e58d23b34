"""End a command: its answer, or one sentence, and an exit code."""

from __future__ import annotations

import contextlib
import os

import typer

from recsys.errors import InputError, RecsysError, first_line, is_panic
from recsys.observe.lines import log
from recsys.pipelines.terminal.console import Output, only_answers

KEPT_BACK = 3  # a night, by the gate
INTERRUPTED = 130
STOPPED = 143  # by SIGTERM
UNREAD = 141  # the output, by anybody
LOG_FORMAT = "--log-format"


def outcome(app: typer.Typer, arguments: list[str]) -> int:
    """Run the command with arguments; returns the exit code.

    0, 1 (the job failed), 2 (the input or the configuration is wrong), 3 (the gate keeps the night back; the command
    has given its report), 130 and 143 (stopped by a signal), 141 (the reader of the output has gone).
    """
    as_json, debug = "--json" in arguments, "--debug" in arguments
    if debug:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "INFO")
    with only_answers(as_json) as answers, contextlib.closing(log):
        output = Output(answers=answers, json=as_json, debug=debug)
        try:
            given = _log_format_first(arguments) or ["--help"]
            code = app(given, prog_name="recsys", standalone_mode=False, obj=output)
            if code == INTERRUPTED:  # what typer makes of Ctrl-C
                raise KeyboardInterrupt
            return code if isinstance(code, int) else 0
        except (KeyboardInterrupt, typer.Abort):
            output.error("Interrupted; the same command goes on where it was.")
            return INTERRUPTED
        except SystemExit as stop:
            if stop.code == STOPPED:  # SIGTERM, see `main`
                output.error("Stopped from outside; the same command goes on where it was.")
                return STOPPED
            if stop.code in (None, 0):  # a shell's completion ends so
                return 0
            return _unread()  # typer found the pipe broken, and exits with 1 for it
        except BrokenPipeError:
            return _unread()
        except Exception as error:
            return _failed(error, output, arguments, commands(app))
        except BaseException as error:
            if not is_panic(error):
                raise
            output.traceback(error)
            output.error(f"A library gave up on a damaged file or a bug of its own: {first_line(error)}.")
            return 1


def _log_format_first(arguments: list[str]) -> list[str]:
    """The arguments with --log-format before the command, where an option of the application stands.

    >>> _log_format_first(["run", "shop.toml", "--log-format", "json", "--json"])
    ['--log-format', 'json', 'run', 'shop.toml', '--json']
    """
    for place, given in enumerate(arguments):
        if given == LOG_FORMAT or given.startswith(f"{LOG_FORMAT}="):
            end = place + (2 if given == LOG_FORMAT else 1)
            return [*arguments[place:end], *arguments[:place], *arguments[end:]]
    return arguments


def _unread() -> int:
    """The reader has gone, as in `recsys ... | head`: no word, and the code of a program that SIGPIPE ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffers goes nowhere
    return UNREAD


def _failed(error: Exception, output: Output, arguments: list[str], known: set[str]) -> int:
    """Say one sentence about an error; returns the exit code."""
    if isinstance(error, typer.BadParameter.__bases__[0]):  # a usage error: wrong option, command or value
        asked = arguments[0] if arguments and arguments[0] in known else ""
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        output.error(f"{message}; see `{' '.join(['recsys', *([asked] if asked else []), '--help'])}`.")
        return 2
    output.traceback(error)
    if isinstance(error, RecsysError):
        output.error(str(error))
        return 2 if isinstance(error, InputError) else 1
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        output.error(f"{place}{error.strerror}.{'' if output.debug else ' Run again with --debug for the traceback.'}")
        return 1
    first = (str(error).strip().splitlines() or ["no message"])[0]
    hint = "" if output.debug else " Run again with --debug for the traceback."
    output.error(f"{type(error).__name__}: {first.rstrip('.')}.{hint}")
    return 1


def commands(app: typer.Typer) -> set[str]:
    """The names of the commands."""
    return {str(getattr(command.callback, "__name__", "")) for command in app.registered_commands}
