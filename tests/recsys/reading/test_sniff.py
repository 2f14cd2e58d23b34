from __future__ import annotations

import gzip
import lzma
import zipfile
from pathlib import Path

import polars as pl
import pytest

from recsys.errors import InputError
from recsys.init.guess import guess
from recsys.reading.sniff import take_sample

HEADER = "user_id,item_id,timestamp\n"
ROWS = "".join(f"u{n % 9},i{n % 20},{1_700_000_000 + n}\n" for n in range(60))
NAMES = ["user_id", "item_id", "timestamp"]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("Café “neu” – 5 €".encode("cp1252"), "cp1252"),
        ("Café".encode("latin-1"), "latin-1"),
        ("Café Müller".encode("cp850"), "cp850"),
        ("Café “neu” – 5 €".encode(), "utf-8"),
    ],
)
def test_signs_of_windows_tell_its_encoding(tmp_path: Path, content: bytes, encoding: str) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(b"item_id,title\n" + b"".join(b"%d,%s\n" % (n, content) for n in range(30)))
    sample = take_sample(str(path))
    assert sample.encoding == encoding
    title = sample.frame["title"][0]
    assert title == content.decode(encoding) and title.isprintable()
    assert len(sample.doubts) == (encoding != "utf-8")
    assert all(f"read as {encoding}: " in doubt and "Café" in doubt for doubt in sample.doubts)


def test_a_guessed_encoding_is_to_be_checked(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(HEADER + ROWS)
    (tmp_path / "items.csv").write_bytes(
        b"item_id,title\n" + b"".join(b"i%d,%s\n" % (n, "crème".encode("cp850")) for n in range(20))
    )
    _, findings = guess(tmp_path / "log.csv", tmp_path / "items.csv")
    assert any("items.csv is not UTF-8" in sentence for sentence in findings.unsure)


def test_an_encoding_that_nobody_can_tell_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    title = "红色的小杯子丂".encode("gb18030")
    path.write_bytes(b"item_id,title\n" + b"".join(b"i%d,%s\n" % (n, title) for n in range(60)))
    with pytest.raises(InputError, match="neither UTF-8 nor Windows' cp1252 nor cp850"):
        take_sample(str(path))


def test_stray_bytes_are_rejected_and_told(tmp_path: Path) -> None:
    lines = [b"u%d,i%d,%s\n" % (n % 9, n % 20, "Café “Fuß”".encode("cp1252")) for n in range(300)]
    (tmp_path / "log.csv").write_bytes(b"user_id,item_id,shop\n" + b"".join(lines) + b"u1,i1,Caf\xe9 \x81\n")
    sample = take_sample(str(tmp_path / "log.csv"))
    assert sample.encoding == "cp1252" and sum(sample.rejected.values()) == 1
    _, findings = guess(tmp_path / "log.csv")
    assert any("0.3% of the rows" in sentence and "encoding" in sentence for sentence in findings.unsure)


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_widths_are_recognised(tmp_path: Path, codec: str) -> None:
    (tmp_path / "log.csv").write_bytes((HEADER + ROWS).encode(codec))
    sample = take_sample(str(tmp_path / "log.csv"))
    assert sample.frame.columns == NAMES and len(sample.frame) == 60
    assert sample.encoding == codec.removesuffix("-sig")


@pytest.mark.parametrize(
    ("text", "names", "rejected"),
    [
        ("# exported by us\n# today\n" + HEADER + ROWS, NAMES, {}),
        ("sep=,\n" + HEADER + ROWS, NAMES, {}),
        ("#" + HEADER + ROWS, ["#user_id", *NAMES[1:]], {}),
        (HEADER + ROWS + HEADER + ROWS, NAMES, {"the header line again": 1}),
        ('"user_id", "item_id", "timestamp"\n' + ROWS.replace(",", ", "), NAMES, {}),
    ],
)
def test_the_header_is_found(tmp_path: Path, text: str, names: list[str], rejected: dict[str, int]) -> None:
    (tmp_path / "log.csv").write_text(text)
    sample = take_sample(str(tmp_path / "log.csv"))
    assert (sample.header, sample.frame.columns, sample.rejected) == (True, names, rejected)
    assert sample.frame.row(0) == ("u0", "i0", "1700000000")


def test_the_stated_separator_is_taken(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("sep=;\n" + (HEADER + ROWS).replace(",", ";"))
    assert take_sample(str(tmp_path / "log.csv")).separator == ";"


def test_a_comment_that_reads_like_a_row_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("# a, b, c\n" + HEADER + ROWS)
    with pytest.raises(InputError, match="begins with '# a, b, c', which reads like a row; take that line out"):
        take_sample(str(tmp_path / "log.csv"))


def test_an_empty_first_file_of_a_pattern_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("")
    (tmp_path / "2.csv").write_text(HEADER)
    (tmp_path / "3.csv").write_text(HEADER + ROWS)
    assert len(take_sample(str(tmp_path / "*.csv")).frame) == 60
    (tmp_path / "3.csv").write_text(HEADER)
    with pytest.raises(InputError, match="has a header line and no rows"):
        take_sample(str(tmp_path / "*.csv"))


def test_packed_files(tmp_path: Path) -> None:
    text = (HEADER + ROWS).encode()
    (tmp_path / "A.CSV.GZ").write_bytes(gzip.compress(text))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(text))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", text)
    for name in ("A.CSV.GZ", "a.csv.xz", "a.zip"):
        assert len(take_sample(str(tmp_path / name)).frame) == 60
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(text))
    with pytest.raises(InputError, match=r"a.tar.gz is packed in a way that is not read \(.tar\)"):
        take_sample(str(tmp_path / "a.tar.gz"))


def test_partitions_and_lists_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "log" / "user_id=0007"
    folder.mkdir(parents=True)
    pl.DataFrame({"item_id": [1, 2]}).write_parquet(folder / "part.parquet")
    assert take_sample(str(tmp_path / "log" / "*" / "*.parquet")).frame["user_id"].to_list() == ["0007", "0007"]
    (tmp_path / "items.csv").write_text("item_id,title,genres\n1,[Rec] (2007),\"['A', 'B']\"\n2,[x],['A']\n")
    frame = take_sample(str(tmp_path / "items.csv")).frame
    assert frame["genres"].to_list() == [["A", "B"], ["A"]]
    assert frame["title"].to_list() == ["[Rec] (2007)", "[x]"]


def test_a_damaged_table_is_one_sentence(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "log.parquet")
    content = (tmp_path / "log.parquet").read_bytes()
    (tmp_path / "log.parquet").write_bytes(content[:-20])
    with pytest.raises(InputError, match=r"log.parquet cannot be read as parquet"):
        take_sample(str(tmp_path / "log.parquet"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ((HEADER + ROWS).replace(",", ";").encode(), "separator ';' instead of ','"),
        (ROWS.encode(), "no header line"),
        ((HEADER.replace("item_id", "product") + ROWS).encode(), "no column 'item_id'"),
        ((HEADER + ROWS + "ü,i1,1700000000\n").encode("latin-1"), "encoding latin-1 instead of utf-8"),
        (b'{"user_id": "u1", "item_id": "i1"}\n', "format jsonl instead of csv"),
        ((HEADER + ROWS).encode("utf-16"), "encoding utf-16 instead of utf-8"),
        ((HEADER + ROWS + "ü,i1,1700000000\n").encode(), None),
        (b"", None),
    ],
)
def test_every_file_of_a_pattern_is_looked_at(tmp_path: Path, content: bytes, why: str | None) -> None:
    (tmp_path / "a.csv").write_text(HEADER + ROWS)
    (tmp_path / "b.csv").write_bytes(content)
    (tmp_path / "c.csv").write_text(HEADER + ROWS)
    _, findings = guess(tmp_path / "*.csv")
    told = [sentence for sentence in findings.unsure if "not like the first" in sentence]
    assert (["1 of the 3 files" in sentence and f"b.csv ({why})" in sentence for sentence in told] == [True]) == bool(
        why
    )
