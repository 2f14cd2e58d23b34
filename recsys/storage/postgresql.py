"""Addresses of PostgreSQL, and errors of its driver as words without secrets."""

from __future__ import annotations

import contextlib
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from recsys.errors import InputError, RecsysError, first_line
from recsys.storage.addresses import HIDDEN, masked

CONNECT_SECONDS: Final = 15
_LOGIN: Final = re.compile(
    r"authentication failed|no password supplied|role .* does not exist|no pg_hba\.conf entry", re.S
)
# libpq takes a sign of a password for a part of the address, and repeats it
_UNSAFE: Final = re.compile(r"could not translate|invalid|missing|unexpected|unrecognized|syntax", re.I)


def with_limits(address: str) -> str:
    """The address with a limit on the time to connect, where it sets none."""
    if "connect_timeout" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}connect_timeout={CONNECT_SECONDS}"


def state_of(error: BaseException) -> str | None:
    """The SQLSTATE of the driver's error."""
    state = getattr(error, "sqlstate", None)
    return state if state and state != "\0" * 5 else None


def lasts(error: BaseException) -> bool:
    """Return whether an error comes from what was asked, and comes again."""
    state = state_of(error)
    if state is not None:
        return state[:2] not in ("08", "57", "53", "55", "40")
    return bool(_LOGIN.search(str(error)))


def said(error: BaseException, address: str) -> str:
    """Return the message of the server or the library, in one line and without what is secret in the address."""
    text = str(error)
    found = re.search(r"(?:ERROR|FATAL|PANIC):\s+([^\n]*)", text)
    column = re.search(r"CONTEXT:\s+COPY [^\n]*, column ([^\n:]*)", text)
    line = found[1] if found else first_line(error).partition("[libpq] ")[2] or first_line(error)
    line = line.partition(" SQLSTATE:")[0].rstrip(". ") + (f" (column {column[1]})" if column else "")
    with contextlib.suppress(ValueError):
        password = urlsplit(address).password or ""
        for secret in (password, unquote(password)):
            line = line.replace(secret, HIDDEN) if len(secret) > 2 else line
    return masked(line)


def no_connection(error: BaseException, address: str, place: str, key: str) -> RecsysError | None:
    """Return what to raise for an error of connecting; None where it is another one.

    Parameters
    ----------
    place, key
        The database without secrets, and the setting that holds its address.
    """
    if "Failed to connect" not in str(error):
        return None
    text = said(error, address)
    if _UNSAFE.search(text):
        return InputError(
            f"{key} leads to no database: check the host's name, and write signs such as @ and / in a password as %40 "
            "and %2F."
        )
    if _LOGIN.search(text):
        return InputError(f"{place}: {text}; check the user and the password in {key}.")
    if "does not exist" in text:
        return InputError(f"{place}: {text}; check {key}.")
    return RecsysError(f"{place} cannot be reached: {text}.")
