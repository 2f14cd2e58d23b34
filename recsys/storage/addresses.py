"""Addresses of stores: their secrets, and which name a local file. Light: the command imports it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

HIDDEN: Final = "***"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# a port is no password; digits and a blank are one where an @ follows within three words
_USER_AND_PASSWORD = re.compile(r"[^\s/:?#\"']*:(?!\d+(?:[/?#]|$|\s(?!(?:\S+\s+){0,2}\S*@)))")
_USER_ALONE = re.compile(r"[^\s/?#\"']+@")
_QUOTES = re.compile(r"[^\"'<>`]*")
_CLOSERS: Final = {'"': '"', "'": "'", "`": "`", "<": ">"}  # by what stands before an address
_NAMES = (
    r"(?:(?<![A-Za-z])(?:pass|pw|sig)|[\w.-]*(?:passw(?:or)?d|passphrase|pwd|token|secret|signature|credentials?|"
    r"(?:api|account|access|secret|private|subscription|session|storage)[_-]?key(?:[_-]?id)?))"
)
_ALONE = re.compile(r"(?m)(?:^|(?<=[\"'<`]))[A-Za-z][A-Za-z0-9+.-]*://[^\"'<>`\n]*")  # its end is known
_QUERY = re.compile(rf"(?i)([?&;](?:{_NAMES}|key|auth|code|user|username|uid)=)[^&]+")
_SECRETS: Final = (
    # a value with blanks before another one of a query
    (re.compile(rf"(?i)([?&]{_NAMES}=)[^&\s\"']+ [^&\"'\n]*(?=&[\w.-]+=)"), rf"\1{HIDDEN}"),
    (re.compile(r"(?<![\w:/.*])(//)[^\s/:?#\"'@]*:[^\s/\"']+(?=@)"), rf"\1{HIDDEN}"),  # no scheme
    # name="a value with blanks", and the same in JSON, TOML and Python
    (re.compile(rf"(?i)({_NAMES}[\"']?\s*[=:]\s*)([\"'])(?:\\.|(?!\2)[^\\\n])+\2"), rf"\1\2{HIDDEN}\2"),
    (re.compile(rf"(?i)({_NAMES}\s?=\s?)(?![\"'\s])[^&\s\"']+"), rf"\1{HIDDEN}"),
    # words that mean something else outside of an address
    (re.compile(r"(?i)([?&;](?:key|auth|code|user|username|uid)=)[^&\s\"';]+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)(\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|digest|token|apikey)\s+)?+)"
            r"[^\s\"',]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)(\bbearer\s+)(?=\S*\d)[\w.~+/=-]{6,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\bbasic\s+)(?=\S*[\d=])[a-z0-9+/]{8,}={0,2}"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:A3T|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"\b(?:gh[oprsu]_|github_pat_|hf_|dapi|glpat-|xox[abp]-)[\w-]{20,}"), HIDDEN),
)


def masked(text: str) -> str:
    """The text without user names, passwords, keys and tokens; what holds none stays as it is.

    Found are the user part of URLs, assignments such as `api_key=` and `AccountKey=`, `Authorization` headers, bearer
    tokens and keys of a form that only keys have. A password may hold blanks; one in a URL then ends at the line's
    last `@`. One in a query runs to the next `&`, or to the URL's end where a quote or the line's beginning before it
    tell where that is.

    >>> masked("postgresql://ann:pass word@db/mlflow?sslkey=client.key")
    'postgresql://***@db/mlflow?sslkey=client.key'
    >>> masked("key=value is a setting, https://host/?key=value a secret")
    'key=value is a setting, https://host/?key=*** a secret'
    """
    starts = list(_URL.finditer(text))
    pieces, last = [], 0
    for number, start in enumerate(starts):
        begin = start.end()
        if begin < last:
            continue
        line = text.find("\n", begin)
        end = min(
            len(text) if line < 0 else line, starts[number + 1].start() if number + 1 < len(starts) else len(text)
        )
        length = _user_part(text[begin:end], text[start.start() - 1 : start.start()])
        if length:
            pieces += [text[last:begin], HIDDEN]
            last = begin + length
    shown = "".join([*pieces, text[last:]])
    shown = _ALONE.sub(lambda address: _QUERY.sub(rf"\1{HIDDEN}", address[0]), shown)
    for pattern, replacement in _SECRETS:
        shown = pattern.sub(replacement, shown)
    return shown


def _user_part(rest: str, before: str = "") -> int:
    """Characters before the `@` that ends a URL's user part; 0 where it has none.

    `rest` follows the `://`, `before` is the sign before the URL: where that is a quote, its pair ends the URL.
    """
    if before in _CLOSERS:
        rest = rest.partition(_CLOSERS[before])[0]
    word = re.match(r"\S*", rest)
    in_word = word[0].rfind("@") if word else -1
    if _USER_AND_PASSWORD.match(rest):
        unquoted = _QUOTES.match(rest)
        on_line = unquoted[0].rfind("@") if unquoted else -1
        if max(in_word, on_line) < 0:  # a quote may be a sign of the password
            on_line = rest.rfind("@")
        return max(in_word, on_line, 0)
    if in_word > 0 and re.match(r"[^\s/:?#]*:", rest):  # like a port, and yet there is an @
        return in_word
    alone = _USER_ALONE.match(rest)
    return len(alone[0]) - 1 if alone else 0


def without_login(uri: str) -> tuple[str, str | None, str | None]:
    """An http(s) address without its user part, the user and the password; any other URI as it is.

    >>> without_login("https://ann:p%40ss@host:5000/ml")
    ('https://host:5000/ml', 'ann', 'p@ss')
    """
    if not uri.startswith(("http://", "https://")):
        return uri, None, None
    scheme, _, rest = uri.partition("://")
    length = _user_part(rest)
    if not length:
        return uri, None, None
    user, _, password = rest[:length].partition(":")
    parts = urlsplit(f"{scheme}://{rest[length + 1 :]}")
    return urlunsplit(parts), unquote(user), unquote(password)


def local_database(uri: str) -> Path | None:
    """The file of an sqlite URI, absolute; None for any other URI.

    >>> local_database("sqlite:////tmp/mlflow.db").as_posix()
    '/tmp/mlflow.db'
    """
    prefix = "sqlite:///"
    return Path(unquote(uri[len(prefix) :].partition("?")[0])).absolute() if uri.startswith(prefix) else None
