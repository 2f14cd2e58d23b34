from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from recsys import processes, runs
from tests.recsys.retention.full import nothing_can_be_written

HOLD = """
import os, subprocess, sys, tempfile
from pathlib import Path
from recsys import processes
with processes.registered(sys.argv[1]) as name:
    child = subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    Path(tempfile.mkdtemp(), "copy of the log").write_text("x")
    print(name, tempfile.gettempdir(), child.pid, flush=True)
    sys.stdin.read()
"""


def start(warehouse: Path) -> tuple[subprocess.Popen[str], str, Path, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(warehouse)],
        cwd=Path(processes.__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    name, scratch, child = process.stdout.readline().split()
    return process, name, Path(scratch), int(child)


def test_temporary_files_lie_in_one_folder_that_goes_with_the_process(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with processes.registered(str(tmp_path)) as name:
        assert name is not None
        assert tempfile.gettempdir() == str(Path(before) / f"recsys-{name}")
        made = Path(tempfile.mkdtemp())
        with processes.registered(str(tmp_path)) as same:
            assert same == name
        assert made.is_dir() and list(processes.gone(str(tmp_path))) == []
    assert tempfile.gettempdir() == before and not made.exists()
    assert list((runs.state_folder(str(tmp_path)) / "processes").iterdir()) == []


def test_a_killed_process_is_cleared_away_and_a_living_one_is_not(tmp_path: Path) -> None:
    dead, name, scratch, child = start(tmp_path)
    living, _, kept, helper = start(tmp_path)
    ended = os.pidfd_open(child)
    try:
        assert list(processes.gone(str(tmp_path))) == []
        dead.send_signal(signal.SIGKILL)
        dead.communicate()
        assert scratch.is_dir()
        for found in processes.gone(str(tmp_path)):
            assert found == name
        assert not scratch.exists() and kept.is_dir() and any(kept.iterdir())
        assert list(processes.gone(str(tmp_path))) == []
        assert select.select([ended], [], [], 60)[0]
        os.kill(helper, 0)
    finally:
        os.close(ended)
        living.communicate()
        os.kill(helper, signal.SIGKILL)
    assert not kept.exists()


def test_a_sweep_that_is_cut_short_is_done_again(tmp_path: Path) -> None:
    dead, name, _, _ = start(tmp_path)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    next(processes.gone(str(tmp_path)))  # killed before the runs of the dead one were closed
    assert list(processes.gone(str(tmp_path))) == [name]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"scratch": 1}'])
def test_a_damaged_file_is_forgotten(tmp_path: Path, content: str) -> None:
    folder = runs.state_folder(str(tmp_path)) / "processes"
    folder.mkdir(parents=True)
    (folder / "abc").write_text(content)
    assert list(processes.gone(str(tmp_path))) == ["abc"]
    assert list(folder.iterdir()) == []


def test_only_a_folder_of_that_name_is_deleted(tmp_path: Path) -> None:
    folder, other = runs.state_folder(str(tmp_path)) / "processes", tmp_path / "precious"
    folder.mkdir(parents=True)
    other.mkdir()
    (folder / "abc").write_text(f'{{"scratch": "{other}"}}')
    assert list(processes.gone(str(tmp_path))) == ["abc"] and other.is_dir()


def test_a_warehouse_that_cannot_be_written_registers_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = tempfile.gettempdir()
    with processes.registered(str(tmp_path / "file")) as name:
        assert name is None and tempfile.gettempdir() == before


def test_a_full_disk_registers_nobody_and_hides_no_error(small_disk: Path) -> None:
    with (small_disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 4096)
    with pytest.raises(ZeroDivisionError), processes.registered(str(small_disk)) as name:
        assert name is None
        raise ZeroDivisionError


def test_a_full_disk_registers_nobody_and_stops_nobody(tmp_path: Path) -> None:
    with nothing_can_be_written(), processes.registered(str(tmp_path)) as name:
        assert name is None
    assert not list((tmp_path / "runs" / "processes").glob("*"))
