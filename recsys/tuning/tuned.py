"""The configuration that a search ends with: the file that it began with, with the best trial's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tomlkit

from recsys.errors import InputError
from recsys.settings import Settings
from recsys.settings.places import moved
from recsys.settings.read import keys_of, override_of
from recsys.storage.files import file_aside, writing
from recsys.tuning.space import shown
from recsys.tuning.study import SearchReport, Trial

MARK: Final = "# Written by `recsys tune`"


def lines(values: Mapping[str, Any]) -> str:
    """Return settings as TOML, a section after the other.

    >>> print(lines({"train.learning_rate": 0.0012, "model.blocks": 3, "train.loss": "full"}))
    [train]
    learning_rate = 0.0012
    loss = "full"
    <BLANKLINE>
    [model]
    blocks = 3
    """
    sections: dict[str, list[str]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, []).append(f"{name} = {shown('none' if value is None else value)}")
    return "\n\n".join("\n".join([f"[{section}]", *own]) for section, own in sections.items())


def check_output(path: Path) -> None:
    """Check that a search may write its result to a file.

    Raises
    ------
    InputError
        The file exists and no search has written it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            ours = file.readline().startswith(MARK)
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise InputError(
            f"{path} exists and `recsys tune` has not written it; name another file with --output, or move it away."
        )


def write_tuned(
    config: Path, overrides: Sequence[str], settings: Settings, report: SearchReport, best: Trial, output: Path
) -> None:
    """Write the configuration with the best trial's values, in one step; comments stay, and paths lead to the same.

    Raises
    ------
    RecsysError
        The file cannot be written.
    """
    document = tomlkit.parse(config.read_text(encoding="utf-8"))
    for override in overrides:
        _set(document, *override_of(override))
    for key, path in moved(settings, config.parent, output.parent, keys_of(overrides)).items():
        _set(document, key.split("."), path)
    for key, value in best.values.items():
        _set(document, key.split("."), value)
    own = "" if report.own is None else f" (as it was: {report.own:.4f})"
    head = f"{MARK} of {config.name}: trial {best.number + 1} of {report.trials}, validation NDCG@10 "
    text = f"{head}{best.value:.4f}{own}.\n# Figures further down are those of {config.name}.\n\n"
    with writing(f"The configuration {output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
        with file_aside(output) as aside:
            aside.write_text(text + tomlkit.dumps(document), encoding="utf-8")


def _set(document: tomlkit.TOMLDocument, key: Sequence[str], value: Any) -> None:
    table: Any = document
    for section in key[:-1]:
        if section not in table:
            table[section] = tomlkit.table()
        table = table[section]
    table[key[-1]] = "none" if value is None else value
