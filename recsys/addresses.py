"""Addresses of stores: what may be shown of them, and which name a local file. Light: the command imports it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

# up to the last @ of a word where a password may hold any character, else up to the first slash
_USER_INFO = re.compile(r"(?<=://)(?:[^\s/:]*:\S*?@(?!\S*?://)(?:\S*@)?|[^\s/]+@)")
_SECRET_QUERY = re.compile(r"(?i)((?:password|passwd|pwd|token|secret|sig|signature|access_key)=)[^&\s'\"]+")


def masked(text: str) -> str:
    """The text without user names, passwords and tokens of the URIs in it.

    >>> masked("postgresql://ann:pass@db/mlflow")
    'postgresql://***@db/mlflow'
    """
    return _SECRET_QUERY.sub(r"\1***", _USER_INFO.sub("***@", text))


def local_database(uri: str) -> Path | None:
    """The file of an sqlite URI, absolute; None for any other URI.

    >>> local_database("sqlite:////tmp/mlflow.db").as_posix()
    '/tmp/mlflow.db'
    """
    prefix = "sqlite:///"
    return Path(unquote(uri[len(prefix) :].partition("?")[0])).absolute() if uri.startswith(prefix) else None
