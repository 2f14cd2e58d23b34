"""An artefact is made once, is whole or not there, is made again where it is damaged, and few are kept."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.errors import RecsysError
from recsys.storage.artefacts import KEPT, obtain, older, remove_all


class Maker:
    """Writes a text, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def write(self, folder: Path) -> Mapping[str, Any]:
        self.made += 1
        (folder / "a.txt").write_text("all of it")
        return {"rows": 3}

    @staticmethod
    def read(folder: Path, facts: Any) -> tuple[str, int]:
        return (folder / "a.txt").read_text(), facts["rows"]

    def obtain(self, home: Path, key: str = "k") -> tuple[str, int]:
        return obtain(home, "text", key, self.write, self.read)


def only(home: Path) -> Path:
    (folder,) = (path for path in home.iterdir() if path.is_dir())
    return folder


def test_made_once_and_found_from_then_on(tmp_path: Path) -> None:
    maker = Maker()
    assert [maker.obtain(tmp_path / "home") for _ in range(3)] == [("all of it", 3)] * 3
    assert maker.made == 1
    maker.obtain(tmp_path / "home", "other")
    assert maker.made == 2


@pytest.mark.parametrize("damage", ["cut", "turned", "gone", "list cut", "list gone", "list of another kind"])
def test_what_is_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    maker = Maker()
    maker.obtain(tmp_path)
    file, names = only(tmp_path) / "a.txt", only(tmp_path) / "files.json"
    {
        "cut": lambda: file.write_text("all of"),
        "turned": lambda: file.write_text("all of It"),
        "gone": file.unlink,
        "list cut": lambda: names.write_text(names.read_text()[:20]),
        "list gone": names.unlink,
        "list of another kind": lambda: names.write_text("[]"),
    }[damage]()
    assert [maker.obtain(tmp_path), maker.obtain(tmp_path)] == [("all of it", 3)] * 2
    assert maker.made == 2


def test_an_error_leaves_nothing_half(tmp_path: Path) -> None:
    def fails(folder: Path) -> Mapping[str, Any]:
        (folder / "a.txt").write_text("all")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, "text", "k", fails, Maker.read)
    assert [path.name for path in tmp_path.iterdir()] == ["text.lock"]
    assert Maker().obtain(tmp_path) == ("all of it", 3)


def die(home: Path) -> None:
    def killed(folder: Path) -> Mapping[str, Any]:
        (folder / "a.txt").write_text("all")
        os._exit(9)

    obtain(home, "text", "k", killed, Maker.read)


def test_a_kill_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert only(tmp_path).name.startswith(".")
    maker = Maker()
    assert (maker.obtain(tmp_path), maker.made) == (("all of it", 3), 1)
    assert remove_all(tmp_path) == 2  # what the kill left goes, too
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_newest_few_of_a_kind_stay_and_what_others_have_mapped_can_be_read(tmp_path: Path) -> None:
    def write(folder: Path) -> Mapping[str, Any]:
        np.save(folder / "a.npy", np.arange(1000))
        return {}

    def read(folder: Path, _: Any) -> np.ndarray:
        return np.load(folder / "a.npy", mmap_mode="r")

    first = obtain(tmp_path, "array", "0", write, read)
    Maker().obtain(tmp_path)  # of another kind, which does not count
    for number in range(1, KEPT + 1):
        for back, folder in enumerate(sorted(tmp_path.glob("array-*"), key=lambda path: path.stat().st_mtime)[::-1]):
            os.utime(folder, (10**9 - back, 10**9 - back))  # older than what comes now, in their order
        obtain(tmp_path, "array", str(number), write, read)
    assert sorted(path.name for path in tmp_path.glob("array-*")) == [f"array-{n}" for n in range(1, KEPT + 1)]
    assert first.sum() == 499_500
    assert older(tmp_path) == [] and len(list(tmp_path.glob("text-*"))) == 1


def test_what_a_disk_refuses_is_a_sentence(tmp_path: Path) -> None:
    def full(folder: Path) -> Mapping[str, Any]:
        raise OSError(28, os.strerror(28))

    with pytest.raises(RecsysError, match=r"^The prepared data .* cannot be written: No space left on device"):
        obtain(tmp_path, "text", "k", full, Maker.read)
