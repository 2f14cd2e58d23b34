"""Export targets by kind. A target is a class, a `Sink`, and a line here; its module is imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from recsys.errors import InputError
from recsys.exports.base import Sink
from recsys.settings import ExportSettings, Settings, targets_of
from recsys.settings.export import KINDS

_SINKS: Final[dict[str, str | type[Sink]]] = {
    "files": "recsys.exports.files:FileSink",
    "postgresql": "recsys.exports.postgresql:PostgresqlSink",
    "sqlite": "recsys.exports.sqlite:SqliteSink",
    "duckdb": "recsys.exports.duckdb:DuckdbSink",
    "redis": "recsys.exports.redis:RedisSink",
    "s3": "recsys.exports.s3:S3Sink",
    "delta": "recsys.exports.delta:DeltaSink",
}


def register(sink: type[Sink]) -> type[Sink]:
    """Add an export target, of this process; usable as a decorator."""
    _SINKS[sink.kind], KINDS[sink.kind] = sink, sink.keys
    return sink


def sinks_of(settings: Settings, target: str | None = None) -> tuple[Sink, ...]:
    """The export targets of a configuration that are wanted, in its order.

    Parameters
    ----------
    target
        Only the one of this name.

    Raises
    ------
    InputError
        There is no target of this name, or a target's library is not installed.
    """
    wanted = targets_of(settings.export)
    if target is not None and target not in wanted:
        named = f"there are {', '.join(wanted)}" if wanted else "it has none"
        raise InputError(f"The configuration {settings.name!r} has no export target {target!r}; {named}.")
    return tuple(_sink(keys, settings.name, of) for of, keys in wanted.items() if target in (None, of))


def sink_of(settings: Settings) -> Sink:
    """The export target of a configuration that has one; also one that is not wanted yet.

    Raises
    ------
    InputError
        There are several.
    """
    if isinstance(settings.export, ExportSettings):
        return _sink(settings.export, settings.name)
    sinks = sinks_of(settings)
    if len(sinks) != 1:
        raise InputError(f"The configuration {settings.name!r} has {len(sinks)} export targets, and one is asked for.")
    return sinks[0]


def _sink(keys: ExportSettings, name: str, *target: str) -> Sink:
    found: Any = _SINKS[keys.kind]
    if isinstance(found, str):
        module, _, class_name = found.partition(":")
        try:
            found = getattr(import_module(module), class_name)
        except ModuleNotFoundError as error:
            raise InputError(
                f"The export target {keys.kind!r} needs the package {error.name}; "
                f"run `pip install {str(error.name).replace('_', '-')}`."
            ) from error
    sink: Sink = found(keys, name, *target)
    return sink
