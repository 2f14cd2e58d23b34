"""Export targets by kind. A target is a class, a `Sink`, and a line here; its module is imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from recsys.exports.base import Sink
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
