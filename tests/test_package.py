"""The package: one top-level name, whatever else a user has."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_one_name_is_installed() -> None:
    find_packages = pytest.importorskip("setuptools").find_packages
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = find_packages(str(ROOT), include=include)
    assert {name.partition(".")[0] for name in packages} == {"recsys"}
    assert {"recsys.features", "recsys.pipelines", "recsys.data"} <= set(packages)


def test_a_users_own_features_and_pipelines_are_left_alone(tmp_path: Path) -> None:
    for name in ("features", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWN = True\n")
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); import features, pipelines;"
        "import recsys.settings, recsys.features.hashing, recsys.pipelines.cli;"
        "print(features.OWN, pipelines.OWN)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
