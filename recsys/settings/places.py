"""Relative paths of a configuration: to which folder each is relative.

A path in a file is relative to the file's folder, so that a night may be started from anywhere. `data_root` and
`state_root` are, and so are folders of models; sources are relative to `data_root`, and what a night writes to
`state_root`. A path that is given with `--set`, or in a dictionary, is relative to the working directory.

A setting that is a path bears one of the marks below. `located` replaces its value by a `Place`: the path as it is
opened. Where settings are written down or hashed, the text of the configuration stays: equal configurations in two
folders, or one that is named from two folders, are equal.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from recsys.logins import refuse_login
from recsys.settings.section import Section

_SQLITE: Final = "sqlite:///"  # what follows is the path of a local file
_POINTER: Final = ".latest.json"  # after the name of a bundle: its newest one
_UNTIL: Final = "0.3"  # the version that reads nothing from the working directory any more

Tree = TypeVar("Tree", bound=Section)


class Place(str):
    """A path as it is opened; `written` is the configuration's own text."""

    written: str

    def __new__(cls, path: str, written: str) -> Place:
        place = super().__new__(cls, path)
        place.written = written
        return place

    def __reduce__(self) -> tuple[type[Place], tuple[str, str]]:
        return Place, (str(self), self.written)


@dataclass(frozen=True)
class RelativeTo:
    """Mark of a setting that is a path: to which folder it is relative."""

    to: Literal["configuration", "data", "state", "models"]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        if self.to == "data":  # stays as it is, a list of them too
            return core_schema.no_info_after_validator_function(refuse_login, handler(source))
        return core_schema.no_info_wrap_validator_function(
            lambda value, inner: value if isinstance(value, Place) else refuse_login(inner(value)),
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(_as_written, when_used="json"),
        )


ROOT: Final = RelativeTo("configuration")
IN_DATA: Final = RelativeTo("data")  # is looked for where it is opened, below data_root
IN_STATE: Final = RelativeTo("state")
MODEL: Final = RelativeTo("models")  # a folder if there is one, else a name such as a hub's


def located(settings: Tree, folder: Path, shell: Collection[str] = ()) -> Tree:
    """Return settings whose paths are as they are opened.

    What is there relative to the working directory alone is read there, with a warning: until version 0.3.

    Parameters
    ----------
    folder
        The configuration's.
    shell
        Keys whose values came with `--set`.
    """
    roots = _Roots(folder=str(folder), settings=settings, shell=frozenset(shell))
    found = _changed(settings, roots.opened)
    roots.warn()
    return found


def moved(settings: Section, folder: Path, target: Path, shell: Collection[str]) -> dict[str, str]:
    """Return the paths that a copy of the configuration in another folder must say otherwise, by key.

    Parameters
    ----------
    settings
        As `located` returned them.
    folder, target
        Of the configuration and of its copy.
    shell
        Keys whose values came with `--set` and are to be in the copy.
    """
    elsewhere = os.path.realpath(folder) != os.path.realpath(target)
    return {
        key: _relative(value, target)
        for key, value, mark in _unfixed(settings)
        if _among(key, shell) or (elsewhere and mark is not IN_STATE)
    }


def in_full(settings: Section, shell: Collection[str]) -> dict[str, str]:
    """Return the paths that came with `--set`, from the root: for a process that works in another folder."""
    return {key: _from_root(value) for key, value, _ in _unfixed(settings) if _among(key, shell)}


def _unfixed(settings: Section) -> Iterator[tuple[str, str, RelativeTo]]:
    """The paths that depend on a folder, as they are opened; without those below `data_root`."""
    for key, value, mark in _paths(settings):
        named = mark is MODEL and not _is_model(value)  # as in a hub
        if mark is not IN_DATA and not named and not _is_fixed(_as_written(value)):
            yield key, value, mark


def _as_written(value: Any) -> Any:
    return value.written if isinstance(value, Place) else value


@dataclass
class _Roots:
    """The folders that paths are relative to, each looked for once."""

    folder: str
    settings: Section
    shell: frozenset[str]
    old: dict[str, str] = field(default_factory=dict)  # key to what to write: found in the working directory alone
    known: dict[str, str] = field(default_factory=dict)

    def opened(self, key: str, value: str, mark: RelativeTo) -> str:
        """A path as it is opened."""
        if mark is IN_DATA or (_is_fixed(value) and key != "state_root"):
            return value
        if _among(key, self.shell):
            return _joined(".", value)
        if mark is MODEL:
            return self._model(key, value)
        return _joined(self._root("state_root") if mark is IN_STATE else self._root(key, given=True), value)

    def warn(self) -> None:
        """Say once what was found in the working directory alone."""
        if self.old:
            said = ", ".join(f"{key} = {_quoted(value)}" for key, value in self.old.items())
            warnings.warn(
                f"Paths in a configuration are relative to its folder, {self.folder}, but what this one names is in "
                f"the working directory, {Path.cwd()}: write {said} into it before version {_UNTIL}.",
                FutureWarning,
                2,
            )

    def _root(self, key: str, *, given: bool = False) -> str:
        """The folder that `data_root` or `state_root` is relative to, or with `given=False` the root itself."""
        if key not in self.known:
            value = str(getattr(self.settings, key))
            base = "." if _among(key, self.shell) else self.folder
            there = self._there(key)
            names = [] if base == "." or _is_fixed(value) or _same(self.folder) else self._names(key)
            first = names[:1] if key == "state_root" else names  # the warehouse decides, if it is one of them
            beside = any(map(there, (_joined(_joined(base, value), name) for name in first)))
            if not beside and any(map(there, (_joined(value, name) for name in first))):
                base = "."
                self.old[key] = _relative(value, Path(self.folder))
            self.known[key] = base
        base = self.known[key]
        return base if given else _joined(base, str(getattr(self.settings, key)))

    def _names(self, key: str) -> list[str]:
        """Names to look for under a root: sources, or what nights have written."""
        if key == "state_root" and "state_root" in self.settings.model_fields_set:
            return []  # whoever writes it knows what it is relative to
        mark = IN_DATA if key == "data_root" else IN_STATE
        found: list[str] = []
        for name, value, of in _paths(self.settings):
            values = value if isinstance(value, tuple) else (value,)
            if of is mark and not _among(name, self.shell):
                found += [one for one in values if isinstance(one, str) and not _is_fixed(one)]
        return found

    def _there(self, key: str) -> Callable[[str], bool]:
        return _matches if key == "data_root" else lambda path: os.path.lexists(path.removeprefix(_SQLITE))

    def _model(self, key: str, value: str) -> str:
        here = _joined(self.folder, value)
        if _is_model(here):
            return here
        if _is_model(value) and not _same(self.folder):
            self.old[key] = _relative(value, Path(self.folder))
        return value


def _paths(section: Section, prefix: str = "") -> Iterator[tuple[str, Any, RelativeTo]]:
    """Key, value and mark of each setting that is a path, or several."""
    for name, value in section:
        key = f"{prefix}{name}"
        if isinstance(value, Section):
            yield from _paths(value, f"{key}.")
        elif isinstance(value, dict):
            for inner, one in value.items():
                if isinstance(one, Section):
                    yield from _paths(one, f"{key}.{inner}.")
        elif value is not None and _is_path(key, value) and (mark := _mark(section, name)) is not None:
            yield key, value, mark


def _changed(section: Tree, change: Callable[[str, str, RelativeTo], str], prefix: str = "") -> Tree:
    """A section with other paths; itself where none changes."""
    new: dict[str, Any] = {}
    for name, value in section:
        key, mark = f"{prefix}{name}", _mark(section, name)
        other = value
        if isinstance(value, Section):
            other = _changed(value, change, f"{key}.")
        elif mark is not None and isinstance(value, str) and not isinstance(value, Place) and _is_path(key, value):
            path = change(key, value, mark)
            other = value if path == value else Place(path, value)
        if other is not value:
            new[name] = other
    if not new:
        return section
    copied = section.model_copy()  # with `update` each would count as set by the user
    for name, value in new.items():
        of = copied.__dict__ if name in copied.__dict__ else copied.__pydantic_extra__
        assert of is not None
        of[name] = value
    return copied


def _is_path(key: str, value: Any) -> bool:
    """Return whether a value is a path: of MLflow's addresses those of a local database are."""
    return key != "tracking.uri" or str(value).startswith(_SQLITE)


def _mark(section: Section, name: str) -> RelativeTo | None:
    known = type(section).model_fields.get(name)
    return next((one for one in known.metadata if isinstance(one, RelativeTo)), None) if known else None


def _among(key: str, given: Collection[str]) -> bool:
    """Return whether a key, or a section above it, is among the given ones."""
    return any(key == one or key.startswith(f"{one}.") for one in given)


def _is_fixed(value: str) -> bool:
    """Return whether a path means the same in every folder."""
    if value.startswith(_SQLITE):
        value = value.removeprefix(_SQLITE)
        return value.startswith((":memory:", "/")) or not value
    return "://" in value or value.startswith(("~", "${")) or Path(value).is_absolute()


def _same(folder: str) -> bool:
    return os.path.realpath(folder) == os.path.realpath(".")


def _joined(base: str, value: str) -> str:
    """A path below a folder; of the working directory it stays as it is written."""
    if base in ("", ".") or _is_fixed(value):
        return value
    if value.startswith(_SQLITE):
        return _SQLITE + _joined(base, value.removeprefix(_SQLITE))
    path = str(Path(base, value))
    short = os.path.normpath(path)
    return short if os.path.realpath(short) == os.path.realpath(path) else path  # `link/..` is not where link is


def _relative(path: str, folder: Path) -> str:
    """A path as seen from a folder."""
    if path.startswith(_SQLITE):
        return _SQLITE + _relative(path.removeprefix(_SQLITE), folder)
    return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(folder))).as_posix()


def _from_root(path: str) -> str:
    if path.startswith(_SQLITE):
        return _SQLITE + _from_root(path.removeprefix(_SQLITE))
    return str(Path(path).absolute())


def _matches(path: str) -> bool:
    folder = Path(path).anchor or "."
    pattern = str(Path(path).relative_to(Path(path).anchor))
    return Path(path).exists() or next(Path(folder).glob(pattern), None) is not None


def _is_model(path: str) -> bool:
    return Path(path).is_dir() or Path(f"{path}{_POINTER}").is_file()


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
