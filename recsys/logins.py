"""Logins in URLs of object stores, which are refused: commits, records and MLflow keep the URLs that rows came from.

Addresses of databases and of MLflow may hold one; `recsys.storage.addresses` masks it wherever they are written.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

_AMAZON: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_GOOGLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
_AZURE: Final = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
_VARIABLES: Final = {  # by scheme
    **dict.fromkeys(("s3", "s3a"), _AMAZON),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("az", "azure", "adl", "abfs", "abfss"), _AZURE),
}
_PASSWORD: Final = re.compile(r"(://)[^/?#@\s]*:.*@")  # to the last @; a user without one is a container of Azure's
_SECRET: Final = re.compile(r"(?i)([?&](?:sig|[\w-]*(?:secret|token|password|key)[\w-]*)=)[^&]+")

Value = TypeVar("Value")


def hidden(text: str) -> str:
    """Return a URL with `***` for its login.

    >>> hidden("s3://KEY:SE/CRET@shop/log.csv"), hidden("abfss://shop@account.dfs.core.windows.net/log.csv")
    ('s3://***@shop/log.csv', 'abfss://shop@account.dfs.core.windows.net/log.csv')
    """
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def login_problem(url: str) -> str | None:
    """Return why a URL is refused; None: it is none of an object store, or holds no login."""
    variables = _VARIABLES.get(url.partition("://")[0].lower())
    if variables is None or hidden(url) == url:
        return None
    return (
        f"the login in {hidden(url)!r} would be stored in tables and records; take it out, and set {variables} in the "
        "environment"
    )


def refuse_login(value: Value) -> Value:
    """Return the value of a setting as it is, where no URL of it holds a login.

    Raises
    ------
    ValueError
        It is a URL that `login_problem` refuses, or several of which one is.
    """
    for url in value if isinstance(value, tuple) else (value,):
        problem = login_problem(url) if isinstance(url, str) else None
        if problem is not None:
            raise ValueError(problem)
    return value
