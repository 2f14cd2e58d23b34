"""Variants that a backtest compares: the configuration, and copies of it with other settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final

from recsys.errors import InputError
from recsys.settings import Settings
from recsys.settings.read import load_settings

SERVED: Final = "served"
_FIXED: Final = (
    "name",
    "warehouse",
    "data_root",
    "state_root",
    "interactions",
    "users",
    "tracking",
)  # one log, one MLflow


def read_variants(config: str, overrides: Sequence[str], compared: Sequence[str]) -> dict[str, Settings]:
    """The settings of each variant by its label: the configuration as "served", then one for each of `compared`.

    Parameters
    ----------
    overrides
        Of all variants.
    compared
        Each a set of overrides, divided by blanks, such as "train.refit=all train.epochs=9". One that changes nothing
        lends the configuration its label.

    Raises
    ------
    InputError
        A setting is wrong, would change what is read, or two sets say the same.
    """
    base = load_settings(config, overrides)
    found = {SERVED: base}
    for words in compared:
        try:
            changes = shlex.split(words)
        except ValueError as error:
            raise InputError(f"--compare {words}: {error}; quote values as in a shell.") from None
        if not changes:
            raise InputError("--compare is empty; give settings, such as --compare train.refit=none.")
        settings, label = load_settings(config, [*overrides, *changes]), _label(changes)
        fixed = [name for name in _FIXED if getattr(settings, name) != getattr(base, name)]
        if (settings.items is None) != (base.items is None):
            fixed.append("items")
        if fixed:
            raise InputError(f"--compare {words} changes {fixed[0]}, and all variants replay one log.")
        same = next((name for name, other in found.items() if other == settings), None)
        if same == SERVED:
            found = {label if name == SERVED else name: other for name, other in found.items()}
        elif same is not None or label in found:
            raise InputError(f"--compare {words} says the same as {same or label}; leave one of them out.")
        else:
            found[label] = settings
    return found


def _label(changes: Sequence[str]) -> str:
    """A name that MLflow takes and that holds no bar.

    >>> _label(["train.refit=all", "train.epochs=9"])
    'train.refit-all train.epochs-9'
    """
    return re.sub(r"[^A-Za-z0-9_\-. ]", "-", " ".join(changes))[:80].strip()
