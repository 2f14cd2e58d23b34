"""Environment variables in a configuration's addresses, so that no password stands in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from recsys.errors import InputError

_VARIABLE: Final = re.compile(r"\$\{([^{}]*)\}")


def expanded(text: str, key: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with each `${NAME}` replaced by the environment variable NAME.

    Parameters
    ----------
    key
        The setting that the text is of, for messages.

    Raises
    ------
    InputError
        A variable is not set.

    >>> expanded("redis://:${SECRET}@host", "export.address", {"SECRET": "s3"})
    'redis://:s3@host'
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in environment:
            raise InputError(f"{key} needs the environment variable {found[1]}, which is not set; set it.")
        return environment[found[1]]

    return _VARIABLE.sub(value, text)
