"""The pages of a warehouse: `<folder>/<name>/<started>-<run>.html`, and the newest one again as `latest.html`."""

from __future__ import annotations

import hashlib
import hmac
import html
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from recsys.forgetting.sought import Sought
from recsys.storage.files import file_aside, writing

FOLDER: Final = "reports"
LATEST: Final = "latest.html"
KEY_FILE: Final = "pseudonyms.key"  # beside the run states; without it nobody can tell whom a pseudonym stands for
DIGITS: Final = 8
MARK: Final = "~"  # before a pseudonym that stands in an id's place
LONG: Final = 16  # digits of one
_MARKED: Final = re.compile(rf"{MARK}[0-9a-f]{{{LONG}}}")
_SHOWN: Final = re.compile(r'data-user="([^"]*)"')


def write_page(folder: Path, started: str, run: str, content: str) -> Path:
    """Write the page of a run, and as the latest one unless a later night has a page; returns its path.

    Parameters
    ----------
    folder
        Pages of one configuration; made with the first.
    started
        When the night began, ISO 8601.

    Raises
    ------
    RecsysError
        The disk refused.
    """
    path = folder / page_name(started, run)
    with writing(f"The report {path}"):
        folder.mkdir(parents=True, exist_ok=True)
        with file_aside(path) as aside:
            aside.write_text(content, encoding="utf-8")
        if path == pages(folder)[-1]:
            with file_aside(folder / LATEST) as aside:
                aside.write_text(content, encoding="utf-8")
    return path


def page_name(started: str, run: str) -> str:
    """Return the file's name; names sort by time.

    >>> page_name("2026-11-28T20:59:07+00:00", "23cf0a7c")
    '20261128T205907Z-23cf0a7c.html'
    """
    return f"{datetime.fromisoformat(started).astimezone(UTC):%Y%m%dT%H%M%SZ}-{run}.html"


def pages(folder: Path) -> list[Path]:
    """Return the pages of a configuration, oldest first."""
    return sorted(path for path in folder.glob("*-*.html") if not path.name.startswith("."))


def page_of(folder: Path, run: str) -> Path | None:
    """Return the page of a run, whose id may be shortened; None where there is none, or several."""
    found = [path for path in pages(folder) if path.stem.partition("-")[2].startswith(run)]
    return found[0] if len(found) == 1 else None


def pseudonyms(states: Path) -> Callable[[Any], str]:
    """Return what gives each user id its pseudonym: the same one in every page of a warehouse.

    The key is drawn at random once and kept in the folder of run states, readable by its owner alone.
    """
    path = states / KEY_FILE
    with writing(f"The key {path} of pseudonyms"):
        if not path.is_file():
            states.mkdir(parents=True, exist_ok=True)
            with file_aside(path) as aside:
                aside.touch(mode=0o600)
                aside.write_text(secrets.token_hex(32), encoding="ascii")
    key = path.read_bytes()

    def pseudonym(user: Any) -> str:
        if _MARKED.fullmatch(str(user)):  # a record names no user
            return str(user)[len(MARK) :][:DIGITS]
        return hmac.new(key, str(user).encode(), hashlib.sha256).hexdigest()[:DIGITS]

    return pseudonym


def stand_ins(states: Path) -> Callable[[Any], str]:
    """Return what gives each user id the pseudonym that stands in its place in records and in files of MLflow.

    It begins with `MARK`, and is long enough for a million users; a page shows its beginning.
    """
    pseudonyms(states)  # makes the key
    key = (states / KEY_FILE).read_bytes()

    def stand_in(user: Any) -> str:
        return MARK + hmac.new(key, str(user).encode(), hashlib.sha256).hexdigest()[:LONG]

    return stand_in


def forget(reports: Path, sought: Sought, called: Callable[[Any], str], *, dry_run: bool = False) -> int:
    """Delete pages of all configurations that show what is sought, users by id or by pseudonym; returns their number.

    Pages of nights before the moment before which events are forgotten go, too. Pages of what is left are made again
    from the records.
    """
    found = []
    for path in sorted(reports.glob("*/*.html")):
        old = sought.before is not None and path.name != LATEST and _begun(path) < sought.before
        if old or shows(path.read_text(encoding="utf-8", errors="replace"), sought, called):
            found.append(path)
    for path in () if dry_run else found:
        path.unlink()
    return sum(path.name != LATEST for path in found)


def shows(content: str, sought: Sought, called: Callable[[Any], str]) -> bool:
    """Return whether a page shows a user, by id or by pseudonym, or names what can be told from other words."""
    shown = {html.unescape(name) for name in _SHOWN.findall(content)}
    if not shown.isdisjoint(sought.users) or any(called(user) in shown for user in sought.users):
        return True
    return sought.named_in(content)


def _begun(path: Path) -> datetime:
    """Return the time at which the night of a page began, as its name tells."""
    try:
        return datetime.strptime(path.name.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
