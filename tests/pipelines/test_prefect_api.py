"""Prefect records a run by default where somebody has named its server, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.pipelines.orchestration import prefect_api

PROFILES = """
active = "shop"
[profiles.shop]
PREFECT_API_URL = "http://prefect.shop:4200/api"
[profiles.other]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Prefect's own, which is the working directory, too, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path


def named(**more: str) -> tuple[bool, bool]:
    """In a process of its own, as Prefect reads its settings once: the answer, and whether Prefect was imported."""
    code = (
        "import sys; from recsys.pipelines.orchestration import prefect_api; "
        "print(prefect_api.named(), 'prefect' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    answer, imported = said.stdout.split()
    return answer == "True", imported == "True"


def test_where_nobody_has_named_a_server_prefect_is_not_even_imported(home: Path) -> None:
    assert named() == (False, False)


def test_a_profile_names_one(home: Path) -> None:
    (home / "profiles.toml").write_text(PROFILES)
    assert named() == (True, True)
    assert named(PREFECT_PROFILE="other") == (False, True)


@pytest.mark.parametrize(("value", "answer"), [("http://127.0.0.1:4200/api", True), ("", False)])
def test_the_environment_stands_above_a_profile(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str, answer: bool
) -> None:
    (home / "profiles.toml").write_text(PROFILES)
    monkeypatch.setenv("PREFECT_API_URL", value)
    assert prefect_api.named() is answer
