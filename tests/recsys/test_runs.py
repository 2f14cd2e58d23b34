from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import runs
from recsys.errors import InputError, RecsysError
from recsys.settings.read import parse_settings

SETTINGS = {"name": "shop", "interactions": {"source": "log.csv"}}
HOLD = """
import sys
from recsys import runs
with runs.locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def key(tree: dict[str, object] | None = None, version: int = 1, digest: str = "d") -> str:
    return runs.run_key(parse_settings(tree or SETTINGS), {"interactions": version}, {"log.csv": digest})


def begin(folder: Path, run_id: str = "new", there: bool = True) -> tuple[runs.RunState, bool]:
    return runs.begin(folder, "k", lambda: run_id, lambda state: there)


def test_the_key_is_stable_and_sees_name_data_and_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = key()
    assert first == key() and len(first) == 32
    others = [key({**SETTINGS, "name": "other"}), key(version=2), key(digest="e")]
    monkeypatch.setattr(runs, "code_version", lambda: "other code")
    others.append(key())
    assert len({first, *others}) == 5


def test_a_moved_file_is_the_same_data() -> None:
    settings = parse_settings(SETTINGS)
    assert runs.run_key(settings, {}, {"a": "1", "b": "2"}) == runs.run_key(settings, {}, {"c": "2", "d": "1"})


def test_a_killed_run_goes_on_with_its_finished_steps(tmp_path: Path) -> None:
    state, resumed = begin(tmp_path, "first")
    assert not resumed
    runs.save(tmp_path, state.with_step("train", {"bundle": "b"}, 1.5))
    again, resumed = begin(tmp_path, "second")
    assert resumed and again.run_id == "first" and again.started == state.started
    assert again.steps == {"train": {"report": {"bundle": "b"}, "seconds": 1.5, "key": ""}}


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, {"represent", "train", "evaluate", "refit", "retrieve", "export", "publish"}),
        (
            {"tracking": {"uri": "sqlite:///other.db"}},
            {"represent", "train", "evaluate", "refit", "retrieve", "export"},
        ),
        ({"export": {"path": "elsewhere"}}, {"represent", "train", "evaluate", "refit", "retrieve"}),
        ({"gate": {"tolerance": 0.1}}, {"represent", "train", "evaluate", "refit", "retrieve", "export"}),
        ({"report": {"users": 3}}, {"represent", "train", "refit", "retrieve", "export", "publish"}),
        (
            {"report": {"show_user_ids": True}},
            {"represent", "train", "evaluate", "refit", "retrieve", "export", "publish"},
        ),
        ({"retrieve": {"k": 7}}, {"represent", "train", "evaluate", "refit"}),
        ({"rules": {"few": {"kind": "at_most", "column": "brand", "n": 2}}}, {"represent", "train", "refit"}),
        ({"evaluate": {"cutoffs": [3]}}, {"represent", "train", "refit", "retrieve"}),
        ({"evaluate": {"exclude_seen": False}}, {"represent"}),
        # one training serves all that a split by time can ask of it
        ({"split": {"strategy": "time", "target": "last"}}, {"represent", "train", "refit", "retrieve"}),
        (
            {"split": {"strategy": "time", "new_users": "from-second-event"}},
            {"represent", "train", "refit", "retrieve"},
        ),
        ({"split": {"strategy": "time", "cold_items": "drop"}}, {"represent", "train", "refit", "retrieve"}),
        ({"split": {"strategy": "time", "validation": "users"}}, {"represent"}),
        ({"train": {"checkpoint_minutes": 9}}, {"represent", "train", "evaluate", "refit"}),
        ({"train": {"refit": "none"}}, {"represent", "train", "evaluate"}),
        ({"train": {"epochs": 9}}, {"represent"}),
        ({"seed": 9}, {"represent"}),
        ({"filter": {"min_user_interactions": 2}}, {"represent"}),
        ({"model": {"dimensions": 32}}, set()),
        ({"text": {"dimensions": 32}}, set()),
    ],
)
def test_a_step_is_done_again_where_settings_that_it_reads_have_changed(
    changed: dict[str, object], kept: set[str]
) -> None:
    base = SETTINGS | ({"split": {"strategy": "time"}} if "split" in changed else {})
    before, now = parse_settings(base), parse_settings({**base, **changed})
    steps = ("represent", "train", "evaluate", "refit", "retrieve", "export", "publish")
    assert {step for step in steps if runs.step_key(before, step) == runs.step_key(now, step)} == kept


def test_another_content_of_a_rules_list_is_another_table_and_another_price(tmp_path: Path) -> None:
    tree = {**SETTINGS, "data_root": str(tmp_path), "rules": {"out": {"kind": "deny", "items": "out.txt"}}}
    settings = parse_settings(tree)
    keys, steps = [], ("train", "refit", "evaluate", "retrieve", "judge")
    for content in (None, "a", "b"):
        if content is not None:
            (tmp_path / "out.txt").write_text(content)
        keys.append({step: runs.step_key(settings, step) for step in steps})
    assert all(len({of[step] for of in keys}) == 3 for step in ("evaluate", "retrieve", "judge"))
    assert keys[0]["train"] == keys[1]["train"] == keys[2]["train"] and keys[1]["refit"] == keys[2]["refit"]


def test_a_run_with_other_settings_takes_the_steps_that_it_can_use(tmp_path: Path) -> None:
    state, _ = runs.begin(tmp_path, "k", lambda: "first", lambda _: True, settings="a")
    for step in ("represent", "train"):
        state = state.with_step(step, {}, 1.0, key=step)
    runs.save(tmp_path, state)
    state, resumed = runs.begin(
        tmp_path, "k", lambda: "second", lambda _: True, settings="b", usable=lambda name, done: name == "train"
    )
    assert (resumed, state.run_id, list(state.steps)) == (False, "second", ["train"])


def test_a_failed_run_goes_on_too(tmp_path: Path) -> None:
    state, _ = begin(tmp_path, "first")
    runs.save(tmp_path, state.ended("failed", "OSError: disk full"))
    again, resumed = begin(tmp_path, "second")
    assert resumed and again.run_id == "first" and again.status == "running" and again.error is None


def test_a_finished_run_is_followed_by_a_new_one(tmp_path: Path) -> None:
    state, _ = begin(tmp_path, "first")
    runs.save(tmp_path, state.with_step("train", {}, 1.0).ended("finished"))
    again, resumed = begin(tmp_path, "second")
    assert not resumed and again.run_id == "second" and again.steps == {}


def test_a_run_whose_files_are_gone_is_not_resumed(tmp_path: Path) -> None:
    begin(tmp_path, "first")
    assert begin(tmp_path, "second", there=False)[0].run_id == "second"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"unknown": 1}', "\udcff"])
def test_a_damaged_record_means_a_new_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "k.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    state, resumed = begin(tmp_path)
    assert not resumed and state.run_id == "new"
    assert json.loads((tmp_path / "k.json").read_text())["status"] == "running"


def test_a_failed_write_leaves_the_old_record(tmp_path: Path) -> None:
    state, _ = begin(tmp_path, "first")
    with pytest.raises(TypeError):
        runs.save(tmp_path, state.with_step("train", {"x": object()}, 1.0))
    assert runs.load(tmp_path, "k") == state
    assert [path.name for path in tmp_path.iterdir()] == ["k.json"]


def test_state_of_a_remote_warehouse_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = runs.state_folder("s3://bucket/warehouse/")
    assert folder.parent == tmp_path / "recsys"
    assert folder == runs.state_folder("s3://bucket/warehouse") != runs.state_folder("s3://bucket/other")
    assert runs.state_folder("warehouse") == Path("warehouse/runs")


def test_the_lock_opens_again(tmp_path: Path) -> None:
    for _ in range(2):
        with runs.locked(str(tmp_path / "w")) as folder:
            assert folder == tmp_path / "w" / "runs"


def test_a_second_process_is_refused_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        try:
            with (
                pytest.raises(RecsysError, match=rf"process {holder.pid}\) is writing to the warehouse") as caught,
                runs.locked(str(tmp_path)),
            ):
                pytest.fail("two processes hold one warehouse")
            assert not isinstance(caught.value, InputError)
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    assert holder.returncode == -signal.SIGKILL  # it was waited for: what it held is free
    with runs.locked(str(tmp_path)):
        pass


def test_an_unwritable_warehouse_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecsysError, match="cannot be written"), runs.locked(str(tmp_path / "file")):
        pass


def test_paths_of_a_record_are_as_the_process_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night that a person began in the shop's folder is taken up by a scheduler in another, or after a move."""
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    state, _ = runs.begin(Path("warehouse/runs"), "k", lambda: "r", lambda _: True)
    report = {"bundle": "warehouse/bundles/shop-1", "candidates": [{"path": "warehouse/candidates"}], "k": 10}
    runs.save(Path("warehouse/runs"), state.with_step("train", report | {"text": "warehouse"}, 1.0))
    monkeypatch.chdir("/")
    found = runs.load(tmp_path / "shop" / "warehouse" / "runs", "k")
    assert found is not None
    here = f"{tmp_path}/shop/warehouse"
    assert found.steps["train"]["report"] == {
        "bundle": f"{here}/bundles/shop-1",
        "candidates": [{"path": f"{here}/candidates"}],
        "k": 10,
        "text": "warehouse",
    }


def test_a_damaged_record_is_left_out_and_a_night_without_a_number_is_the_first(tmp_path: Path) -> None:
    def write(key: str, **changed: object) -> None:
        fine = {"key": key, "run_id": key, "started": "2026-05-01T04:00:00+00:00", "number": 1, "steps": {}}
        (tmp_path / f"{key}.json").write_text(json.dumps(fine | changed))

    write("second", number=2)
    write("first")
    write("null", number=None)
    write("text", number="3", started="2026-04-01T04:00:00+00:00")
    write("undated", started=None)
    write("unclear", started="yesterday")
    write("stepless", steps=None)
    (tmp_path / "list.json").write_text("[]")
    assert [state.key for state in runs.states(tmp_path)] == ["second", "first", "null", "text"]
    assert runs.next_number(tmp_path) == 3
