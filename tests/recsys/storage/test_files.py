"""Writing aside: a reader, and a kill at any moment, find the old or the new; locks go with their holder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys.storage import files
from recsys.storage.files import file_aside, folder_aside, move_into_place
from recsys.storage.locks import Held, lock_file


class Killed(BaseException):
    """As a kill: nothing may catch it."""


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a file.json"
    with file_aside(path) as aside:
        aside.write_text("old")
        assert not path.exists()
    with pytest.raises(Killed), file_aside(path) as aside:
        aside.write_text("half")
        raise Killed
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with file_aside(path) as aside:
        aside.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []
    path = tmp_path / "pointer"
    monkeypatch.setattr(files, "synchronise", lambda what: seen.append((what.name, path.exists())))
    with file_aside(path) as aside:
        aside.write_text("new")
    assert seen == [(aside.name, False), (tmp_path.name, True)]


def test_a_folder_is_moved_whole_and_one_that_is_there_stays(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with folder_aside(tmp_path / "bundles", "b") as aside:
            (aside / "deep").mkdir()
            (aside / "deep" / "file").write_text(text)
            move_into_place(aside, tmp_path / "bundles" / "b-1")
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["b-1"]
    assert (tmp_path / "bundles" / "b-1" / "deep" / "file").read_text() == "first"


def test_what_a_kill_left_goes_after_a_day_and_not_before(tmp_path: Path) -> None:
    for name, days in ((".a.writing-1", 2), (".a.writing-2", 0), (".b.writing-3", 2), ("a.writing-4", 2)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - days * 86_400,) * 2)
    with file_aside(tmp_path / "a") as aside:
        aside.write_text("")
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.writing-2", ".b.writing-3", "a.writing-4"}
    with folder_aside(tmp_path, "c"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.writing-2", "a.writing-4"}


def test_a_lock_names_its_holder_keeps_its_file_and_goes_with_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from recsys.storage.locks import lock_file\n"
        "with lock_file(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        for _ in range(2):  # asking does not take the number away
            with pytest.raises(Held, match=f"^{holder.pid}$"), lock_file(path):
                pytest.fail("two hold one lock")
        holder.kill()
    with lock_file(path), pytest.raises(Held, match=f"^{os.getpid()}$"), lock_file(path):
        pytest.fail("two hold one lock")
