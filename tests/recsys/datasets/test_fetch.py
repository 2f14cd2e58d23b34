from __future__ import annotations

import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
import xlsxwriter

from recsys.datasets.fetch import DATA_SETS, DataSet, RemoteFile, fetch
from recsys.datasets.online_retail import COLUMNS
from recsys.errors import InputError, RecsysError

LOG = b"1 1\n1 2\n2 1\n"
TITLES = b"1::Tent\n2::Stove\n"


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """The test's output is no place for a server's log."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a local web server."""
    root = tmp_path / "served"
    root.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root))) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", root
        running.shutdown()
        thread.join()


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _plain(url: str, content: bytes = LOG) -> dict[str, DataSet]:
    file = RemoteFile(name="log.txt", url=f"{url}/log.txt", size=len(content), checksum=_sha256(content))
    return {"tiny": DataSet(files=(file,), notes=("A note.",))}


def _zipped(url: str, checksum: str | None = None) -> dict[str, DataSet]:
    file = RemoteFile(
        name="all.zip",
        url=f"{url}/all.zip",
        checksum=checksum,
        members={
            "all/log.txt": RemoteFile(name="log.txt", size=len(LOG), checksum=_sha256(LOG)),
            "all/titles.dat": RemoteFile(name="titles.dat", size=len(TITLES), checksum=_sha256(TITLES)),
        },
    )
    return {"tiny": DataSet(files=(file,))}


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_downloads_checks_and_reports(server: tuple[str, Path], tmp_path: Path) -> None:
    url, root = server
    (root / "log.txt").write_bytes(LOG)
    seen: list[tuple[str, int, int | None]] = []
    report = fetch("tiny", tmp_path / "data", data_sets=_plain(url), progress=lambda *step: seen.append(step))
    assert (tmp_path / "data" / "log.txt").read_bytes() == LOG
    assert report.downloaded
    assert report.files[0].sha256 == hashlib.sha256(LOG).hexdigest()
    assert report.notes == ("A note.",)
    assert seen[-1] == ("log.txt", len(LOG), len(LOG))
    assert _names(tmp_path / "data") == {"log.txt"}


def test_a_right_file_is_not_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(LOG)

    def never(url: str) -> io.BytesIO:
        raise AssertionError(f"{url} was opened")

    report = fetch("tiny", tmp_path, data_sets=_plain("http://nowhere.invalid"), opener=never)
    assert not report.downloaded


def test_a_wrong_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"x" * len(LOG))
    report = fetch("tiny", tmp_path, data_sets=_plain("mem:"), opener=lambda url: io.BytesIO(LOG))
    assert report.downloaded
    assert (tmp_path / "log.txt").read_bytes() == LOG


def test_no_network_says_where_the_file_goes_and_how_to_know_it(tmp_path: Path) -> None:
    with socket.socket() as taken:  # a port that is free, so that nothing answers
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(RecsysError) as caught:
        fetch("tiny", tmp_path / "data", data_sets=_plain(f"http://127.0.0.1:{port}"))
    message = str(caught.value)
    assert not isinstance(caught.value, InputError)
    for part in (
        f"http://127.0.0.1:{port}/log.txt",
        str(tmp_path / "data"),
        "log.txt",
        _sha256(LOG).replace(":", " "),
    ):
        assert part in message
    assert "\n" not in message
    assert _names(tmp_path / "data") == set()


def test_an_error_page_is_no_file(server: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecsysError, match=r"cannot be downloaded \(.*[Nn]ot found\)"):
        fetch("tiny", tmp_path / "data", data_sets=_plain(server[0]))


@pytest.mark.parametrize("content", [LOG[:-1] + b"x", LOG[:-3], LOG + b"3 3\n", b""])
def test_a_wrong_download_is_deleted_and_told(server: tuple[str, Path], tmp_path: Path, content: bytes) -> None:
    url, root = server
    (root / "log.txt").write_bytes(content)
    with pytest.raises(RecsysError, match=r"is not the expected file: got .*, expected "):
        fetch("tiny", tmp_path / "data", data_sets=_plain(url))
    assert _names(tmp_path / "data") == set()


def test_a_wrong_download_leaves_an_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"old")
    with pytest.raises(RecsysError, match="expected"):
        fetch("tiny", tmp_path, data_sets=_plain("mem:"), opener=lambda url: io.BytesIO(b"bad"))
    assert (tmp_path / "log.txt").read_bytes() == b"old"
    assert _names(tmp_path) == {"log.txt"}


def test_an_archive_gives_its_named_members_only(server: tuple[str, Path], tmp_path: Path) -> None:
    url, root = server
    evil = {"../../escaped.txt": b"x", "/absolute.txt": b"x", "all/more.txt": b"x"}
    (root / "all.zip").write_bytes(_archive({**evil, "all/log.txt": LOG, "all/titles.dat": TITLES}))
    folder = tmp_path / "a" / "b" / "data"
    report = fetch("tiny", folder, data_sets=_zipped(url))
    assert _names(folder) == {"log.txt", "titles.dat"}
    assert [Path(file.path).name for file in report.files] == ["log.txt", "titles.dat"]
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not fetch("tiny", folder, data_sets=_zipped("http://nowhere.invalid")).downloaded


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"all/log.txt": LOG}, "lacks a file: .*titles.dat"),
        ({"all/log.txt": LOG, "all/titles.dat": TITLES + b"x"}, "got 18 bytes, expected 17"),
        ({"all/log.txt": LOG, "all/titles.dat": TITLES[::-1]}, "got sha256 .*, expected"),
    ],
)
def test_an_archive_with_a_wrong_member_leaves_nothing(tmp_path: Path, members: dict[str, bytes], told: str) -> None:
    with pytest.raises(RecsysError, match=told):
        fetch("tiny", tmp_path, data_sets=_zipped("mem:"), opener=lambda url: io.BytesIO(_archive(members)))
    assert _names(tmp_path) == set()


def test_something_else_than_an_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecsysError, match="not a readable zip archive"):
        fetch("tiny", tmp_path, data_sets=_zipped("mem:"), opener=lambda url: io.BytesIO(b"<html>"))
    assert _names(tmp_path) == set()


def test_an_archive_brought_by_hand_is_unpacked_and_kept(tmp_path: Path) -> None:
    content = _archive({"all/log.txt": LOG, "all/titles.dat": TITLES})
    (tmp_path / "all.zip").write_bytes(content)
    checksum = f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
    fetch("tiny", tmp_path, data_sets=_zipped("http://nowhere.invalid", checksum))
    assert _names(tmp_path) == {"all.zip", "log.txt", "titles.dat"}


def test_an_archive_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    content = _archive({"all/log.txt": LOG, "all/titles.dat": TITLES})
    with pytest.raises(RecsysError, match="expected 0123"):
        fetch("tiny", tmp_path, data_sets=_zipped("mem:", "md5:0123"), opener=lambda url: io.BytesIO(content))
    assert _names(tmp_path) == set()


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="amazon-beauty, movielens-1m, movielens-small"):
        fetch("movielens", tmp_path)


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecsysError, match="cannot be written"):
        fetch("tiny", tmp_path / "file", data_sets=_plain("mem:"), opener=lambda url: io.BytesIO(LOG))


def test_every_public_file_can_be_checked_and_has_a_plain_name() -> None:
    for name, data_set in DATA_SETS.items():
        for file in data_set.files:
            assert file.url.startswith("https://"), (name, file.name)
            parts = list(file.members.values()) if file.members else []
            checked = file.checksum or all(part.checksum for part in parts)
            assert checked or any("it was not checked" in note for note in data_set.notes), (name, file.name)
            for part in (file, *parts):
                assert Path(part.name).name == part.name
                if part.checksum:
                    algorithm, digest = part.checksum.split(":")
                    assert len(digest) == {"md5": 32, "sha256": 64}[algorithm]


def test_no_network_names_every_file_that_is_missing_and_no_other(tmp_path: Path) -> None:
    def unreachable(url: str) -> io.BytesIO:
        raise OSError("no route")

    both = DataSet(files=_zipped("mem:")["tiny"].files + _plain("mem:2")["tiny"].files)
    with pytest.raises(RecsysError) as caught:
        fetch("tiny", tmp_path, data_sets={"tiny": both}, opener=unreachable)
    told = str(caught.value)
    assert f"put into {tmp_path}: all.zip (mem:/all.zip) or, unpacked, its log.txt (12 bytes, sha256 " in told
    assert "titles.dat (17 bytes, sha256 " in told and "; log.txt (mem:2/log.txt, 12 bytes" in told
    (tmp_path / "log.txt").write_bytes(LOG)
    (tmp_path / "titles.dat").write_bytes(TITLES)  # unpacked by hand
    assert not fetch("tiny", tmp_path, data_sets={"tiny": both}, opener=unreachable).downloaded


# --- a workbook ---------------------------------------------------------------------------------------------------

FIRST = [
    [489434, 85048, " 15CM GLASS BALL", 12, datetime(2009, 12, 1, 7, 45), 6.95, 13085, "United Kingdom"],
    ["C489449", "79323P", None, -1, datetime(2009, 12, 1, 7, 46), 6.75, None, "EIRE"],
]
SECOND = [[536365, "85123A", "HOLDER", 6, datetime(2010, 12, 1, 8, 26), 2.55, 17850, "United Kingdom"]]


def _workbook(sheets: dict[str, list[list[object]]], names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"default_date_format": "dd/mm/yy hh:mm"}) as book:
        for sheet, rows in sheets.items():
            page = book.add_worksheet(sheet)
            for row, values in enumerate([names, *rows]):
                page.write_row(row, 0, ["" if value is None else value for value in values])
    return buffer.getvalue()


def _retail(url: str) -> dict[str, DataSet]:
    (file,) = DATA_SETS["online-retail"].files
    moved = RemoteFile(name=file.name, url=f"{url}/all.zip", members=file.members)
    return {"online-retail": DataSet(files=(moved,))}


def test_the_sheets_of_a_workbook_become_one_table(server: tuple[str, Path], tmp_path: Path) -> None:
    url, root = server
    book = _workbook({"Year 2009-2010": FIRST, "Year 2010-2011": SECOND}, list(COLUMNS))
    (root / "all.zip").write_bytes(_archive({"online_retail_II.xlsx": book}))
    report = fetch("online-retail", tmp_path / "data", data_sets=_retail(url))
    assert report.downloaded
    assert _names(tmp_path / "data") == {"transactions.parquet"}
    table = pl.read_parquet(tmp_path / "data" / "transactions.parquet")
    assert dict(table.schema) == {
        "invoice": pl.String,
        "item": pl.String,
        "description": pl.String,
        "quantity": pl.Int64,
        "time": pl.Datetime("us"),
        "price": pl.Float64,
        "customer": pl.Int64,
        "country": pl.String,
    }
    assert table.rows() == [
        ("489434", "85048", " 15CM GLASS BALL", 12, datetime(2009, 12, 1, 7, 45), 6.95, 13085, "United Kingdom"),
        ("C489449", "79323P", None, -1, datetime(2009, 12, 1, 7, 46), 6.75, None, "EIRE"),
        ("536365", "85123A", "HOLDER", 6, datetime(2010, 12, 1, 8, 26), 2.55, 17850, "United Kingdom"),
    ]
    assert not fetch("online-retail", tmp_path / "data", data_sets=_retail("http://127.0.0.1:9")).downloaded


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no workbook", "cannot be read as a workbook"),
        (_workbook({"A": FIRST}, ["Invoice", "StockCode", "Text", *list(COLUMNS)[3:]]), "has no column 'Description'"),
        (_workbook({"A": FIRST}, [*list(COLUMNS)[:5], "Cost", "Customer ID", "Country"]), "has no column 'Price'"),
    ],
)
def test_a_workbook_that_is_another_one_leaves_nothing(
    server: tuple[str, Path], tmp_path: Path, content: bytes, said: str
) -> None:
    url, root = server
    (root / "all.zip").write_bytes(_archive({"online_retail_II.xlsx": content}))
    with pytest.raises(RecsysError, match=said):
        fetch("online-retail", tmp_path / "data", data_sets=_retail(url))
    assert _names(tmp_path / "data") == set()
