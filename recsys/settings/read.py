"""Configuration files: TOML and `--set` overrides become settings, or one sentence that says what is wrong."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from recsys import plugins
from recsys.errors import InputError
from recsys.logins import hidden
from recsys.settings import RunSettings, Section, Settings
from recsys.settings.places import in_full, located

_SECRET: Final = re.compile(r"(?i)pass|secret|token|key|credential|auth|://")
_PLAIN: Final = re.compile(r"(?:[\s\d=.,:+\-\[\]]|true|false)*")  # a value without words, which a secret would be
_KEY: Final = "[key]"  # pydantic's word at the end of a location: the key of a mapping is wrong, not its value

Tree = TypeVar("Tree", bound=RunSettings)


def load_settings(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Read a TOML file, apply `key.path=value` overrides and validate; paths are relative to the file's folder.

    Parameters
    ----------
    path
        The configuration file.
    overrides
        `--set` values such as `train.epochs=5`. The value is read as TOML; what TOML cannot read is a string, and
        `none` takes an optional setting or section away (`items=none`), as "none" does in the file. A path is relative
        to the working directory, as the shell completes it; sources stay relative to `data_root`.

    Raises
    ------
    InputError
        Missing file, broken TOML, unknown key, wrong type or value; one sentence.
    """
    return load_tree(Settings, path, overrides)


def load_tree(kind: type[Tree], path: str | Path, overrides: Sequence[str] = ()) -> Tree:
    """Read settings of a kind from a TOML file; see `load_settings`."""
    overrides = (overrides,) if isinstance(overrides, str) else overrides
    settings = validated_tree(kind, read_tree(path, overrides), str(path))
    return located(settings, Path(path).parent, keys_of(overrides))


def read_tree(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values of a TOML file after overrides; see `load_settings`."""
    path = Path(path)
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"There is no configuration {path} (looked in {Path.cwd()}); `recsys init LOG` writes one."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if path.suffix.lower() != ".toml":
            raise InputError(
                f"{path} is not a configuration, which is a TOML file; if it is your log, `recsys init {path}` writes "
                "a configuration for it."
            ) from None
        raise InputError(f"{path} is not valid TOML: {error}{_line_of(path, error)}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    for override in overrides:
        _apply_override(tree, override)
    return tree


def _line_of(path: Path, error: Exception) -> str:
    """The line that an error of TOML is about; its value stays out where it may be a secret."""
    found = re.search(r"at line (\d+), column", str(error))
    if found is None:
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()
    line = lines[int(found[1]) - 1].strip() if int(found[1]) <= len(lines) else ""
    key, equals, value = line.partition("=")
    if not equals:
        return f": `{line}`" if line.startswith("[") else ""
    shown = value.strip() if _PLAIN.fullmatch(value) and not _SECRET.search(key) else "..."
    return f": `{key.rstrip()} = {shown}`"


def parse_settings(tree: dict[str, Any], where: str = "the configuration") -> Settings:
    """Validate a tree of plain values; `where` names its origin in errors. Paths: of the working directory."""
    return located(validated_tree(Settings, tree, where), Path())


def validated_tree(kind: type[Tree], tree: dict[str, Any], where: str) -> Tree:
    """Settings of a kind from plain values, paths as they are written; `where` names their origin in errors."""
    plugins.load()
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error, where, kind, tree)) from None


def override_of(override: str) -> tuple[list[str], Any]:
    """Return the key's parts and the value of a `--set` override.

    Raises
    ------
    InputError
        It is not of the form key=value.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override} is not of the form key=value, for example --set train.epochs=5.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = None if text.strip() == "none" else text
    return [part.strip() for part in key.split(".")], value


def keys_of(overrides: Sequence[str]) -> set[str]:
    """Full names of the settings, or sections, that `--set` overrides."""
    return {".".join(override_of(override)[0]) for override in overrides}


def anchored(settings: RunSettings, overrides: Sequence[str]) -> list[str]:
    """Return overrides that mean the same in another working directory: their paths once more, from the root.

    Parameters
    ----------
    settings
        As they were read with these overrides.
    """
    return [*overrides, *(f"{key}={path}" for key, path in in_full(settings, keys_of(overrides)).items())]


def _apply_override(tree: dict[str, Any], override: str) -> None:
    (*sections, last), value = override_of(override)
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {override}: {section} is a value, not a section.")
    tree[last] = value


def _explain(error: ValidationError, where: str, kind: type[RunSettings], tree: Any) -> str:
    """The first problem as one sentence with the key's full name and the nearest valid key."""
    # a misspelt key is both unknown and missing: the unknown one says more
    first = min(error.errors(), key=lambda problem: not _is_unknown(problem))
    location = [part for part in first["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    of_mapping = location[-1:] == [_KEY]  # the key itself of a mapping whose keys are fixed, such as columns
    location = location[:-1] if of_mapping else location
    key = ".".join(str(part) for part in location)
    more = f" ({len(error.errors()) - 1} more problems follow.)" if len(error.errors()) > 1 else ""
    if _is_unknown(first):
        named = re.findall(r"'([^']*)'", str(first.get("ctx", {}).get("expected", "")))
        known = named if of_mapping else _known_keys(location[:-1], kind, tree)
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.0)
        hint = f"; did you mean {'.'.join([*map(str, location[:-1]), near[0]])}?" if near else "."
        return f"{where}: there is no setting {key}{hint}{more}"
    if first["type"] == "missing":
        return f"{where}: {key} is missing; add it.{more}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "model_type":
        message = f"it must be a section of settings ([{key}])"
    value = first["input"]
    value = hidden(value) if isinstance(value, str) else value
    shown = f" = {value!r}" if isinstance(value, (str, int, float, bool)) else ""
    return f"{where}: {key or 'the configuration'}{shown}: {message[0].lower() + message[1:]}.{more}"


def _is_unknown(problem: Mapping[str, Any]) -> bool:
    """Return whether a problem is a key that does not exist, of a section or of a mapping with fixed keys."""
    return problem["type"] == "extra_forbidden" or problem["loc"][-1:] == (_KEY,)


def _known_keys(sections: Sequence[Any], kind: type[RunSettings], tree: Any) -> list[str]:
    """Valid keys of the section at a path of names; what is given there may choose between kinds of it."""
    model: Any = kind
    for section in sections:
        tree = tree.get(section) if isinstance(tree, dict) else None
        if section not in model.model_fields:
            model = model.named(tree)  # a key of the user's own, such as an attribute's name
            continue
        annotation = model.model_fields[section].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, Section)]
        if not nested:
            return []
        model = nested[0].variant(tree)
    return list(model.model_fields)
