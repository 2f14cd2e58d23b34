"""A run's parameters: the settings that decided it, without those that its kind of model does not read.

The whole configuration is in the run's `config.toml`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from recsys.settings import RunSettings, Settings
from recsys.storage.addresses import masked

_PARAM_LENGTH: Final = 6000
_PLACES: Final = (
    "name",
    "data_root",
    "state_root",
    "warehouse",
    "tracking",
    "export",
    "train.checkpoint_minutes",
)  # decide nothing
_FILES: Final = ("interactions", "items", "users")  # how files are read is said where it is not the default


def parameters(settings: RunSettings) -> dict[str, str]:
    """Return dotted names and values as text, such as `train.epochs`: only what the kind of model reads."""
    tree = settings.model_dump(mode="json")
    if not isinstance(settings, Settings):
        return flatten(without(tree, _PLACES))
    said = settings.model_dump(mode="json", include=set(_FILES), exclude_defaults=True)
    tree |= {name: said.get(name) for name in _FILES}
    unread = [*_PLACES, *settings.model.unread(tree), *(name for name in _FILES if tree[name] is None)]
    if not (settings.items and settings.items.text):
        unread.append("text")
    if settings.split.strategy != "time":
        unread += ["split.target", "split.new_users", "split.cold_items", "split.test_from", "split.test_fraction"]
        unread += ["split.validation", "split.validation_from", "split.validation_fraction", "split.validation_users"]
    return flatten(without(tree, unread))


def without(tree: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Nested settings without some keys, by dotted names.

    >>> without({"train": {"epochs": 3, "loss": "full"}, "seed": 0}, ["train.loss", "seed"])
    {'train': {'epochs': 3}}
    """
    left = set(names)
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        if key in left:
            continue
        inside = [name.removeprefix(f"{key}.") for name in left if name.startswith(f"{key}.")]
        kept[key] = without(value, inside) if inside and isinstance(value, Mapping) else value
    return kept


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow parameters: dotted names, values as text, long ones cut, secrets masked.

    >>> flatten({"train": {"epochs": 3}, "text": ["a", "b"]})
    {'train.epochs': '3', 'text': '["a", "b"]'}
    """
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = re.sub(r"[^A-Za-z0-9_\-. /:]", "_", f"{prefix}{key}")[:250]
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
            continue
        text = masked(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        flat[name] = text if len(text) <= _PARAM_LENGTH else text[: _PARAM_LENGTH - 1] + "…"
    return flat
