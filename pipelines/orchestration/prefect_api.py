"""Find out whether somebody has named a server of Prefect, without importing Prefect where nobody can have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_KEY: Final = "PREFECT_API_URL"
_OWN: Final = ("prefect", "httpx", "httpcore", "websockets", "anyio")  # modules whose errors are not the work's
_ENDS: Final = ("TerminationSignal", "Abort", "Pause", "CancelledRun", "PausedRun")  # somebody has ended the run
HINT: Final = (
    f"Prefect did not record this run: no {_KEY} is set. `prefect server start` starts its server and tells the "
    "address; --prefect records a run with a temporary one."
)


def named() -> bool:
    """Return whether the environment, a profile or a file of Prefect's names the address of its API."""
    if _KEY in os.environ:  # set to nothing it stands above what files say, as for Prefect itself
        return bool(os.environ[_KEY])
    if not any(map(_may_say, _files())):
        return False
    from prefect.settings import PREFECT_API_URL  # a second: only where a file of its settings is

    return bool(PREFECT_API_URL.value())


def failed(error: BaseException) -> bool:
    """Return whether an error is Prefect's, or of the way to it; a run that Prefect ends is no such error."""
    if type(error).__name__ in _ENDS:
        return False
    return type(error).__module__.partition(".")[0] in _OWN


def _files() -> list[Path]:
    """Files from which Prefect reads settings."""
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    return [profiles, Path("prefect.toml"), Path(".env"), Path("pyproject.toml")]


def _may_say(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return _KEY in text or (path.suffix == ".toml" and "url" in text and "prefect" in f"{path.name} {text}")
