"""A night that serves seen items which nobody measures says so before it computes anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from recsys.night.seen import check_seen
from recsys.pipelines.nightly import night, represent_task
from recsys.pipelines.steps import as_function
from recsys.pipelines.watch import Watch, watching
from recsys.settings.read import parse_settings

pytestmark = pytest.mark.integration


class Stopped(Exception):
    pass


class Heard(Watch):
    def __init__(self) -> None:
        super().__init__()
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)


def run(step: Any, *arguments: Any) -> dict[str, Any]:
    """Stop where the work begins."""
    if step is represent_task:
        raise Stopped
    return as_function(step, *arguments)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_night_warns_of_seen_items(tmp_path: Path, database: Path, exclude_seen: bool) -> None:
    shutil.copy(database, tmp_path / "mlflow.db")
    events = [f"u{user},i{(user + step) % 7},{1_700_000_000 + step}" for user in range(20) for step in range(5)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *events]) + "\n")
    settings = parse_settings(
        {
            "name": "shop",
            "data_root": str(tmp_path),
            "warehouse": str(tmp_path / "warehouse"),
            "interactions": {"source": "log.csv"},
            "retrieve": {"exclude_seen": exclude_seen},
            "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        }
    )
    heard = Heard()
    with watching(heard), pytest.raises(Stopped):
        night(settings, run)
    assert [text for text in heard.warned if "exclude_seen" in text] == list(check_seen(settings))
    assert bool(check_seen(settings)) != exclude_seen
