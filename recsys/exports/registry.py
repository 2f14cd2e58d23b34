"""Export targets by kind. A target is a class, a `Sink`, and a line here; its module is imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from recsys.errors import RecsysError
from recsys.exports.base import CandidateTable, ExportReport, Sink
from recsys.settings import Settings
from recsys.settings.export import KINDS

_SINKS: Final[dict[str, str | type[Sink]]] = {
    "files": "recsys.exports.files:FileSink",
}


def register(sink: type[Sink]) -> type[Sink]:
    """Add an export target, of this process; usable as a decorator."""
    _SINKS[sink.kind], KINDS[sink.kind] = sink, sink.keys
    return sink


def sink_of(settings: Settings) -> Sink:
    """The export target that a configuration chooses."""
    found = _SINKS[settings.export.kind]
    if isinstance(found, str):
        module, _, name = found.partition(":")
        found = getattr(import_module(module), name)
    sink: Sink = found(settings.export, settings.name)
    return sink


def export(settings: Settings, candidates: CandidateTable) -> ExportReport:
    """Write a version of the candidate table to the target of a configuration; see `Sink.write`.

    Raises
    ------
    RecsysError
        As `Sink.write`; an error that a foreign sink lets through becomes one sentence.
    """
    try:
        return sink_of(settings).write(candidates)
    except (RecsysError, OSError):
        raise
    except Exception as error:
        raise RecsysError(
            f"The export target {settings.export.kind!r} failed: {type(error).__name__}: {error}."
        ) from error
