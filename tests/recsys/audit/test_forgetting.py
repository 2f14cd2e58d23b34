"""A forgotten user is in no file of the tables, and the source does not bring him back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as some

from recsys.audit import around
from recsys.columns import FORGOTTEN, INTERACTIONS, ITEM_ID, POSITION, QUARANTINE, RAW, USER_ID, USERS
from recsys.data.log import read_log
from recsys.errors import InputError
from recsys.forgetting import forget as module
from recsys.forgetting.forgotten import named_of, without_lines_of
from recsys.forgetting.sought import Sought, is_recognisable
from recsys.ingestion.ingest import IngestReport, ingest
from recsys.settings import Settings
from recsys.storage import warehouse
from recsys.storage.stream import overwrite_streamed, stage
from recsys.storage.warehouse import current_versions
from recsys.tracking.spool import Spool
from recsys.tracking.spool import read as read_spool
from tests.recsys.audit.forgetting import forget

NOW = datetime(2024, 6, 1, tzinfo=UTC)
ANN = "ann@example.org"
CANDIDATES = {"user_id": pl.String(), "rank": pl.Int32(), "item_id": pl.Int64()}


def settings(root: Path, **more: Any) -> Settings:
    tree: dict[str, Any] = {"name": "shop", "data_root": str(root), "warehouse": str(root / "warehouse")}
    tree["interactions"] = {"source": "log.csv", "max_rejected_share": 0.9}
    return Settings.model_validate(tree | more)


def read(root: Path) -> IngestReport:
    return ingest(settings(root, users={"source": "users.csv"}), now=NOW)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two days, so that older versions and removed files hold her too; she is the first and the last of a file."""
    lines = ["user_id,item_id,timestamp,weight", f"{ANN},1,100,1", "bob,2,101,1", f"{ANN},3,oops,1", "bob,9,oops,1"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "users.csv").write_text(f"user_id,age\n{ANN},30\nbob,40\n")
    read(tmp_path)
    (tmp_path / "log.csv").write_text("\n".join([*lines, "bob,2,101,5", "cid,4,102,1"]) + "\n")
    read(tmp_path)
    for name in ("candidates", "candidates-other"):
        for day in (1, 2):
            frame = pl.DataFrame({"user_id": [ANN, "bob"], "rank": 1, "item_id": day}, schema=CANDIDATES)
            overwrite_streamed(
                tmp_path / "warehouse", name, CANDIDATES, iter([frame]), sorted_by=USER_ID, metadata={"run": str(day)}
            )
    for name in ("candidates", "candidates-new"):  # built, and never published
        frame = pl.DataFrame({"user_id": [ANN, "bob"], "rank": 1, "item_id": 3}, schema=CANDIDATES)
        stage(tmp_path / "warehouse", name, CANDIDATES, iter([frame]), sorted_by=USER_ID)
    states(tmp_path).mkdir()
    examples = [{"user_id": user, "history": [1], "target": 2} for user in (ANN, "bob")]
    state = {"key": "k", "steps": {"evaluate": {"report": {"examples": examples}, "seconds": 1.0}}}
    (states(tmp_path) / "k.json").write_text(json.dumps(state))
    return tmp_path


def states(root: Path) -> Path:
    return root / "warehouse" / "runs"


def remove(root: Path, *users: str, items: Sequence[str] = ()) -> dict[str, int]:
    """Forget, everything but MLflow; returns how much went, by place."""
    done = forget(settings(root, users={"source": "users.csv"}), users, items, now=NOW)
    assert all(one.is_clean for one in done.values()), done
    return {name: one.removed for name, one in done.items() if one.removed}


def everything(folder: Path) -> str:
    """All that a folder's files say: text as it is, Parquet as its values and its statistics."""
    parts = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            parts += [str(pl.read_parquet(path).to_dicts()), path.read_bytes().decode("latin-1")]
        elif path.is_file():
            parts.append(path.read_text())
    return "\n".join(parts)


def test_no_file_holds_her_any_more(folder: Path) -> None:
    assert ANN in everything(folder / "warehouse")
    tables = {INTERACTIONS: 1, USERS: 1, QUARANTINE: 1, "candidates": 1, "candidates-other": 1}
    assert remove(folder, ANN) == tables | {"candidates-new": 1, "runs": 1}
    assert ANN not in everything(folder / "warehouse")
    assert "bob" in (states(folder) / "k.json").read_text()


def test_what_was_prepared_of_her_goes(folder: Path) -> None:
    shop = settings(folder)
    read_log(shop, current_versions(shop.warehouse))
    prepared = list((folder / "warehouse" / "prepared").glob("log-*"))
    assert len(prepared) == 1 and ANN in (prepared[0] / "users.arrow").read_text(errors="replace")
    remove(folder, ANN)
    assert not [path for path in (folder / "warehouse" / "prepared").rglob("*") if path.suffix != ".lock"]
    assert read_log(shop, current_versions(shop.warehouse)).histories.users.to_list() == ["bob", "cid"]


def test_what_mlflow_has_not_taken_yet_does_not_quote_her_later(folder: Path) -> None:
    spool = Spool(states(folder) / "unsent", "s")
    for path, users in (("candidates.json", [ANN, "bob"]), ("config.json", ["bob"])):
        rows = [[user] for user in users]
        spool.add({"operation": "table", "run": "r", "path": path, "columns": ["user"], "rows": rows})
    spool.add({"operation": "artifact", "run": "r", "path": "candidates.md", "text": f"| {ANN} |"})
    spool.add({"operation": "artifact", "run": "r", "path": "users.parquet", "encoded": "QUFB"})
    busy = forget(settings(folder), [ANN], now=NOW)["unsent"]
    assert "Another process is writing to" in str(busy.error) and "run the same command again" in str(busy.error)
    spool.close()
    with spool.path.open("a") as file:
        file.write(f'{{"operation": "table", "rows": [["{ANN}')  # cut short by a kill
    assert remove(folder, ANN)["unsent"] == 3
    assert [record["path"] for record in read_spool(spool.path)] == ["config.json"]
    assert spool.path.read_text().endswith("}\n")
    assert len(list(spool.folder.iterdir())) == 1


def test_the_others_stay_as_they_were(folder: Path) -> None:
    root = folder / "warehouse"
    names = (INTERACTIONS, USERS, "candidates")
    before = {name: warehouse.scan(root, name).collect() for name in names}
    said = {name: warehouse.commit_metadata(root, name) for name in names}
    remove(folder, ANN)
    for name in names:
        others = before[name].filter(pl.col(USER_ID) != ANN)
        after = warehouse.scan(root, name).collect()
        key = POSITION if name == INTERACTIONS else USER_ID
        assert after.sort(key).equals(others.sort(key))
        assert warehouse.commit_metadata(root, name) == said[name]
    assert warehouse.scan(root, QUARANTINE).collect()[RAW].to_list() == ["bob,9,oops,1"]


def test_the_source_does_not_bring_her_back(folder: Path) -> None:
    remove(folder, ANN)
    report = read(folder)
    assert (report.rows_added, report.forgotten) == ({INTERACTIONS: 0, USERS: 0}, 2)
    assert report.rows_rejected[INTERACTIONS] == 2  # still counted
    assert ANN not in everything(folder / "warehouse")
    assert warehouse.scan(folder / "warehouse", FORGOTTEN).collect().height == 1


def test_a_log_of_forgotten_users_alone_adds_nothing(folder: Path) -> None:
    remove(folder, ANN, "bob", "cid")
    assert read(folder).rows_added == {INTERACTIONS: 0, USERS: 0}
    assert warehouse.scan(folder / "warehouse", INTERACTIONS).collect().is_empty()


def test_an_unknown_user_is_told_from_one_that_is_forgotten_already(folder: Path) -> None:
    remove(folder, ANN)
    sought = Sought(users=frozenset([ANN, "ghost"]), items=frozenset(["9", "8"]))  # 9 is in the quarantine alone
    assert module.unknown(str(folder / "warehouse"), sought) == [("User", "ghost"), ("Item", "8")]


def test_a_kill_half_way_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    purge = module.purge
    monkeypatch.setattr(module, "purge", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        remove(folder, ANN)
    monkeypatch.setattr(module, "purge", purge)
    assert read(folder).rows_added[INTERACTIONS] == 0  # she is kept out from the first moment
    remove(folder, ANN)
    remove(folder, ANN)  # and again, when nothing is left of her
    assert ANN not in everything(folder / "warehouse")


def test_integer_ids(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n5,1,100\n55,5,101\n5,2,oops\n6,5.5,x\n")
    (tmp_path / "users.csv").write_text("user_id,age\n5,30\n55,5\n")
    read(tmp_path)
    assert remove(tmp_path, "5") == {INTERACTIONS: 1, USERS: 1, QUARANTINE: 1}
    assert warehouse.scan(tmp_path / "warehouse", INTERACTIONS).select(USER_ID, ITEM_ID).collect().rows() == [(55, 5)]
    assert warehouse.scan(tmp_path / "warehouse", USERS).collect().rows() == [(55, "5")]
    assert read(tmp_path).forgotten == 2


@pytest.mark.parametrize("old", [False, True], ids=["new", "from before the column"])
@pytest.mark.parametrize(
    ("user", "cell"),
    [("auth0|12",) * 2, ("ann smith",) * 2, ("O'Neil",) * 2, ('u"q', '"u""q"'), ("ü3", '"\\u00fc3"'), ("3", "3.0")],
)
def test_rejected_rows_go_and_stay_away_however_the_id_is_written(
    tmp_path: Path, user: str, cell: str, old: bool
) -> None:
    root = tmp_path / "warehouse"
    other = "4" if user == "3" else "bob"
    if cell.startswith('"\\'):
        rows = [f'{{"user_id": {text}, "item_id": 1, "timestamp": {time}}}' for text, time in (
            (f'"{user}"', 100), (f'"{other}"', 100), (cell, '"oops"'), (f'"{other}"', '"oops"')
        )]  # fmt: skip
        log, text = "log.jsonl", "\n".join(rows)
    else:
        sound = user if cell == "3.0" else cell
        lines = [f"{sound},1,100", f"{other},1,100", f"{cell},1,oops", f"{other},1,oops"]
        log, text = "log.csv", "\n".join(["user_id,item_id,timestamp", *lines])
    (tmp_path / log).write_text(text + "\n")
    shop = settings(tmp_path, interactions={"source": log, "max_rejected_share": 0.9})
    ingest(shop, now=NOW)
    held = warehouse.scan(root, QUARANTINE).collect()
    assert set(held[USER_ID]) == {user, other}
    if old:
        held.drop(USER_ID).write_delta(
            root / QUARANTINE, mode="overwrite", delta_write_options={"schema_mode": "overwrite"}
        )
    assert remove(tmp_path, user) == {INTERACTIONS: 1, QUARANTINE: 1}
    ingest(shop, now=NOW)
    left = warehouse.scan(root, QUARANTINE).collect()
    assert len(left) == 1
    assert other in left[RAW][0]
    assert warehouse.scan(root, INTERACTIONS).collect()[USER_ID].cast(pl.String).to_list() == [other]
    (tmp_path / log).write_text(text.replace("oops", "never") + "\n")  # new rows beside those of an older table
    ingest(shop, now=NOW)
    users = warehouse.scan(root, QUARANTINE).collect()[USER_ID]
    assert sorted(users.fill_null("")) == (["", other] if old else [other, other])


def test_an_item_and_what_is_old_go_and_the_source_does_not_bring_them_back(tmp_path: Path) -> None:
    root, day = tmp_path / "warehouse", 86_400
    lines = [f"ann,x,{day}", f"bob,x,{9 * day}", f"bob,y,{9 * day + 1}", f"cid,y,{2 * day}", f"cid,z,{9 * day}"]
    odd = [f"bob,x,{9 * day}oops", "cid,y,1970-01-02 oops", "cid,y,1971-01-02 oops"]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines, *odd]) + "\n")
    (tmp_path / "items.csv").write_text("item_id,title\nx,X\ny,Y\n")
    shop = settings(tmp_path, items={"source": "items.csv"})
    ingest(shop, now=NOW)
    before = datetime(1970, 1, 5, tzinfo=UTC)
    assert module.users_gone(str(root), before) == {"ann"}  # cid has a later event
    done = forget(shop, items=["x"], before=before, now=NOW)
    removed = {name: done[name].removed for name in (INTERACTIONS, "items", QUARANTINE)}
    assert removed == {INTERACTIONS: 3, "items": 1, QUARANTINE: 2}
    kept = {("bob", "y"), ("cid", "z")}
    for _ in range(2):
        assert set(warehouse.scan(root, INTERACTIONS).select(USER_ID, ITEM_ID).collect().rows()) == kept
        assert warehouse.scan(root, "items").collect()["title"].to_list() == ["Y"]
        assert warehouse.scan(root, QUARANTINE).collect()[RAW].to_list() == ["cid,y,1971-01-02 oops"]
        report = ingest(shop, now=NOW)
        assert (report.rows_added, report.forgotten) == ({INTERACTIONS: 0, "items": 0}, 4)
    (tmp_path / "log.csv").write_text(f"user_id,item_id,timestamp\nann,y,{day}\nann,y,{10 * day}\ndan,x,{10 * day}\n")
    assert ingest(shop, now=NOW).rows_added[INTERACTIONS] == 1  # she may come again, with what is new


def test_a_log_without_times_has_nothing_before_a_date(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\na,1\nb,2\n")
    ingest(settings(tmp_path), now=NOW)
    with pytest.raises(InputError, match="has no times, so nobody can say what is before 2024-06-01"):
        module.users_gone(str(tmp_path / "warehouse"), NOW)


def test_an_item_is_not_taken_for_the_user_of_the_same_id(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n7,8,100\n8,7,100\n")
    (tmp_path / "users.csv").write_text("user_id,age\n7,1\n8,2\n")
    read(tmp_path)
    remove(tmp_path, items=["7"])
    assert read(tmp_path).rows_added == {INTERACTIONS: 0, USERS: 0}
    assert warehouse.scan(tmp_path / "warehouse", INTERACTIONS).select(USER_ID, ITEM_ID).collect().rows() == [(7, 8)]
    assert len(warehouse.scan(tmp_path / "warehouse", USERS).collect()) == 2
    remove(tmp_path, "7")
    assert warehouse.scan(tmp_path / "warehouse", INTERACTIONS).collect().is_empty()


@given(some.text(max_size=8), some.text(min_size=1, max_size=12), some.text(max_size=8))
def test_an_id_is_found_where_it_stands_alone_and_only_there(before: str, user: str, after: str) -> None:
    sought = Sought(users=frozenset([user]))
    text = f"{before}\n{user}\n{after}"
    if is_recognisable(user):
        assert sought.named_in(text) and sought.named_in(json.dumps({"user": user}))
    else:
        assert not sought.named_in(text)
    inside = f"{user[0]}{user}x" if user[0].isalnum() else None
    if inside is not None and user not in inside[1 + len(user) :]:
        assert not Sought(users=frozenset([f"{user}-17"])).named_in(inside)


@pytest.mark.parametrize("block", [1, 7, 8, 9, 64])
def test_a_file_is_searched_in_blocks_as_if_it_were_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(around, "_BLOCK", block)
    sought = Sought(users=frozenset(["user-17", "ünï-4", "ab-1"]))
    for place, (content, named) in enumerate(
        {
            b"....user-17....": True,
            b"user-17": True,
            b".........user-170.....user-1.17": False,
            b"xuser-17 xab-1x ab-12": False,
            b"\xff\xfeab-1\xff": True,
            "wer ünï-4 ist".encode(): True,
            b"": False,
        }.items()
    ):
        (tmp_path / f"{place}.bin").write_bytes(content)
        assert around._bytes_name(tmp_path / f"{place}.bin", sought) is named, content


@given(some.lists(some.sampled_from(["u-1", "u-12", "-", ".", ",", "u", "1", ";", '"', " "]), max_size=9).map("".join))
def test_many_ids_are_found_in_a_line_as_each_alone(raw: str) -> None:
    ids = {"u-1", "u-12", "1", "u", ".", "-"}
    rejected = pl.DataFrame({"table": INTERACTIONS, "raw": [raw], "user_id": [None]}, schema_overrides={"user_id": str})
    alone = {one for one in ids if without_lines_of(Sought(users=frozenset([one])), rejected).is_empty()}
    assert named_of(rejected, ids, users=True) == alone
    pattern = r"(?<![\w.-]){}(?![\w-]|\.\w)"
    assert {one for one in ids if re.search(pattern.format(re.escape(one)), raw)} <= alone


def test_rows_that_a_killed_process_was_writing_into_a_table_go_with_the_user(folder: Path) -> None:
    whole = max((folder / "warehouse" / "interactions").glob("part-*.parquet"))
    (new := folder / "warehouse" / "new").mkdir()  # killed before the first commit
    for left in (whole.with_name(f"{whole.name}#1"), new / f"{whole.name}#1"):
        left.write_bytes(whole.read_bytes()[:-8])
    assert len(around.unfinished(str(folder / "warehouse"))) == 2
    remove(folder, ANN)
    assert not list((folder / "warehouse").rglob("*#*"))
