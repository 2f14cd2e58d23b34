"""Secrets that a configuration's addresses name, so that no password stands in a file.

`${NAME}` is an environment variable. `${kind:name}` is asked of what has been registered for the kind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Final

from recsys.errors import InputError

_VARIABLE: Final = re.compile(r"\$\{([^{}]*)\}")
_RESOLVERS: Final[dict[str, Callable[[str], str]]] = {}


def register(kind: str, resolver: Callable[[str], str]) -> None:
    """Let `${kind:name}` stand for `resolver(name)`, which raises `InputError` for a name that it does not know."""
    _RESOLVERS[kind] = resolver


def expanded(text: str, key: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with each `${NAME}` replaced by the environment variable NAME, and each `${kind:name}` by its secret.

    Parameters
    ----------
    key
        The setting that the text is of, for messages.

    Raises
    ------
    InputError
        A variable is not set, or a secret is not there.

    >>> expanded("redis://:${SECRET}@host", "export.address", {"SECRET": "s3"})
    'redis://:s3@host'
    """

    def value(found: re.Match[str]) -> str:
        kind, colon, name = found[1].partition(":")
        if colon:
            if kind not in _RESOLVERS:
                known = f"there are {', '.join(sorted(_RESOLVERS))}" if _RESOLVERS else "there are none in this program"
                raise InputError(
                    f"{key} needs a secret of the kind {kind!r}, and {known}; use an environment variable."
                )
            return _RESOLVERS[kind](name)
        if found[1] not in environment:
            raise InputError(f"{key} needs the environment variable {found[1]}, which is not set; set it.")
        return environment[found[1]]

    return _VARIABLE.sub(value, text)
