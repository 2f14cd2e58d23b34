"""Plug-ins: a package that is installed beside recsys adds parts to the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

READ = "import recsys; print(recsys.load_settings('shop.toml').name)"


def run_with(folder: Path, module: str, code: str = READ) -> subprocess.CompletedProcess[str]:
    """Run Python in a process in which a package `my_shop` is installed."""
    info = folder / "my_shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[recsys.plugins]\nmine = my_shop\n")
    (folder / "my_shop.py").write_text(module)
    (folder / "shop.toml").write_text('name = "shop"\n[interactions]\nsource = "log.csv"\n')
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


def test_a_plug_in_is_imported_once_before_a_configuration_is_read(tmp_path: Path) -> None:
    done = run_with(tmp_path, "print('imported')", f"{READ}; recsys.load_settings('shop.toml')")
    assert (done.stdout.split(), done.returncode) == (["imported", "shop"], 0), done.stderr


def test_its_kind_of_model_can_be_configured(tmp_path: Path) -> None:
    module = "from recsys.settings.kinds import register\nregister('mine', 'my_shop:Mine')\n"
    code = READ.replace("'shop.toml'", "'shop.toml', ['model.kind=mine']").replace(".name", ".model.kind")
    done = run_with(tmp_path, module, code)
    assert done.stdout.split() == ["mine"], done.stderr


def test_a_broken_plug_in_is_named(tmp_path: Path) -> None:
    done = run_with(tmp_path, "import nothing_of_that_name")
    last = done.stderr.strip().splitlines()[-1]
    assert "The plug-in 'mine' (my_shop) cannot be imported: ModuleNotFoundError: No module named" in last
    assert last.endswith("mend or uninstall it.")
