"""The account of a call of `forget`, kept beside the run states without an id: hashes, places, what was found after."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from recsys.audit.around import PROOFS
from recsys.forgetting.forgotten import read_forgotten
from recsys.forgetting.sought import Sought
from recsys.storage.files import file_aside, write_json, writing

MOST: Final = 1000  # hashes that an account lists


def write_proof(states: Path, root: str, sought: Sought, report: Mapping[str, Any], begun: Path | None = None) -> Path:
    """Write an account, and return its path.

    Parameters
    ----------
    report
        JSON-friendly, without an id.
    begun
        The account that was written when the call began, which this one replaces: a kill leaves that one.
    """
    held = read_forgotten(root)
    hashes = [] if held is None else held.hashes(sought)
    now = datetime.now(UTC)
    path = begun or states / PROOFS / f"{now:%Y%m%dT%H%M%S%fZ}-{uuid.uuid4().hex[:8]}.json"
    said = {
        "at": now.isoformat(timespec="seconds"),
        "about": "sha256 of the salt in the table `forgotten` and the id; an item's id behind a mark",
        "hashes": hashes[:MOST],
        "hashes_in_all": len(hashes),
        **report,
    }
    with writing(f"The account {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_aside(path) as aside:
            write_json(aside, said)
    return path
