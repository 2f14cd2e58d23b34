from __future__ import annotations

import gzip
import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.datasets.synthetic import generate
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.init import toml
from recsys.init.guess import Findings, guess, write_configuration
from recsys.reading import sniff
from recsys.reading.sniff import take_sample
from recsys.settings import Settings, TrainSettings
from recsys.settings.read import load_settings, parse_settings

ROWS = 400
TITLES = [
    "Waterproof Dome Tent",
    "Wind-proof Gas Stove",
    "Padded Trekking Backpack",
    "Dark-roast Espresso Beans",
]


def _log(time: str | None = "s") -> dict[str, list[str]]:
    """Columns of a log: users, items, times, ratings, events."""
    rng = np.random.default_rng(1)
    start = datetime(2024, 3, 1, 12, tzinfo=UTC)
    moments = [start + timedelta(minutes=17 * i) for i in range(ROWS)]
    columns = {
        "user": [str(user) for user in rng.integers(1, 40, ROWS)],
        "item": [f"p{item}" for item in rng.integers(1, 90, ROWS)],
        "rating": [str(rating / 2) for rating in rng.integers(1, 11, ROWS)],
        "event": [["view", "purchase"][kind] for kind in rng.integers(0, 2, ROWS)],
    }
    times = {
        "s": [str(int(moment.timestamp())) for moment in moments],
        "ms": [str(int(moment.timestamp() * 1000)) for moment in moments],
        "us": [str(int(moment.timestamp() * 1_000_000)) for moment in moments],
        "iso": [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in moments],
        "naive": [moment.strftime("%Y-%m-%d %H:%M:%S") for moment in moments],
        "american": [moment.strftime("%m/%d/%Y %H:%M") for moment in moments],
    }
    return columns | ({"time": times[time]} if time else {})


def _write(path: Path, columns: dict[str, list[str]], separator: str = ",", header: bool = True) -> Path:
    lines = [separator.join(columns)] if header else []
    lines += [separator.join(row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _guessed(tmp_path: Path, *paths: Path) -> tuple[Settings, Findings]:
    text, findings = guess(*paths)
    target = tmp_path / "guessed.toml"
    target.write_text(text, encoding="utf-8")
    return load_settings(target), findings


NAMES = {
    "user": ["userId", "user_id", "uid", "customer_id", "CustomerID", "reviewerID", "visitorid", "USER"],
    "item": [
        "itemId",
        "item_id",
        "movieId",
        "asin",
        "product_id",
        "StockCode",
        "sku",
        "parent_asin",
        "article",
    ],
    "rating": ["rating", "overall", "stars", "qty", "score"],
    "event": ["event", "event_type", "action", "behavior"],
    "time": ["timestamp", "ts", "time", "date", "unixReviewTime", "created_at", "InvoiceDate"],
}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    separator=st.sampled_from([",", "\t", ";", "::", "|"]),
    order=st.permutations(["user", "item", "rating", "event", "time"]),
    names=st.fixed_dictionaries({key: st.sampled_from(values) for key, values in NAMES.items()}),
    time=st.sampled_from(["s", "ms", "us", "iso", "naive"]),
)
def test_named_columns_are_found_in_any_order(
    tmp_path: Path, separator: str, order: list[str], names: dict[str, str], time: str
) -> None:
    log = _log(time)
    path = _write(tmp_path / "some.log", {names[key]: log[key] for key in order}, separator)
    told, findings = _guessed(tmp_path, path)
    source = told.interactions
    assert source.columns == {
        "user_id": names["user"],
        "item_id": names["item"],
        "timestamp": names["time"],
        "event": names["event"],
        "weight": names["rating"],
    }
    assert (source.separator, source.format, source.fields) == (separator, "csv", None)
    assert source.time_unit == (time if time in ("s", "ms", "us") else "auto")
    assert source.timezone == ("UTC" if time == "naive" else None)
    assert any("GUESS" in sentence.upper() for sentence in findings.unsure) == (time == "naive")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    separator=st.sampled_from([",", "\t", ";", "::", "|"]),
    order=st.permutations(["user", "item", "rating", "event", "time"]).filter(
        lambda order: order.index("user") < order.index("item")
    ),
    time=st.sampled_from(["s", "ms", "iso"]),
)
def test_without_a_header_values_and_places_decide(tmp_path: Path, separator: str, order: list[str], time: str) -> None:
    log = _log(time)
    path = _write(tmp_path / "some.log", {key: log[key] for key in order}, separator, header=False)
    told, findings = _guessed(tmp_path, path)
    ours = {"user": "user_id", "item": "item_id", "rating": "weight", "event": "event", "time": "timestamp"}
    assert told.interactions.fields == tuple(ours[key] for key in order)
    assert told.interactions.columns == {}
    assert any(sentence.startswith("user_id = field") for sentence in findings.unsure)


def test_a_guessed_configuration_ingests_what_the_file_holds(tmp_path: Path) -> None:
    """The proof of every guess together: no row is rejected, and the catalogue joins."""
    shop = generate(tmp_path / "shop", users=100, items=300)
    text, findings = guess(shop.interactions, shop.items)
    path = write_configuration(text, tmp_path / "recsys.toml")
    told = load_settings(path, [f"warehouse={tmp_path / 'warehouse'}"])
    assert told.items is not None
    assert told.items.text == ("title", "brand", "category")
    assert set(told.items.categorical) == {"brand", "category"}
    report = ingest(told)
    assert sum(report.rows_rejected.values()) == 0
    assert report.rows_added["interactions"] == len(pl.read_csv(shop.interactions))
    assert report.rows_added["items"] == 300
    assert any("repeat an item" in sentence for sentence in findings.unsure)


def test_every_key_of_the_configuration_has_a_comment(tmp_path: Path) -> None:
    shop = generate(tmp_path, users=60, items=300)
    text, _ = guess(shop.interactions, shop.items)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) > 20
    for line in lines:
        assert " # " in line, line
        if not line.startswith("["):
            assert line.split(" # ", 1)[1].startswith("("), line


def test_comments_name_what_a_setting_takes() -> None:
    kinds = re.match(r"\((.*?)\)", toml._COMMENTS["kind"])
    assert kinds is not None
    for kind in kinds[1].split(", "):
        more = {"items": {"source": "i.csv", "text": ["title"]}, "model": {"kind": kind}}
        assert parse_settings({"name": "n", "interactions": {"source": "x.csv"}, **more}).model.kind == kind
    assert {"bert4rec", "text", "recformer"} == set(kinds[1].split(", "))
    assert toml._COMMENTS["epochs"].startswith("(0 or more)") and TrainSettings(epochs=0).epochs == 0


def test_sequences_are_told_from_pairs(tmp_path: Path) -> None:
    sequences, pairs = tmp_path / "sequences.txt", tmp_path / "pairs.txt"
    sequences.write_text("".join(f"{u} {' '.join(str(u + i) for i in range(3 + u % 4))}\n" for u in range(1, 50)))
    pairs.write_text("".join(f"{u} {u + i}\n" for u in range(1, 50) for i in range(5)))
    told, findings = _guessed(tmp_path, sequences)
    assert told.interactions.format == "sequences"
    assert told.interactions.columns == {}
    assert any("order of the file" in sentence for sentence in findings.found)
    told, _ = _guessed(tmp_path, pairs)
    assert (told.interactions.format, told.interactions.separator) == ("csv", " ")
    assert told.interactions.fields == ("user_id", "item_id")


def test_jsonl_and_parquet(tmp_path: Path) -> None:
    log = _log("naive")
    rows = [dict(zip(log, row, strict=True)) for row in zip(*log.values(), strict=True)]
    lines = tmp_path / "log.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    table = tmp_path / "log.parquet"
    pl.DataFrame(log).with_columns(pl.col("time").str.to_datetime(), pl.col("rating").cast(pl.Float64)).write_parquet(
        table
    )
    for path, kind in ((lines, "jsonl"), (table, "parquet")):
        told, _ = _guessed(tmp_path, path)
        assert told.interactions.format == kind
        assert told.interactions.columns == {
            "user_id": "user",
            "item_id": "item",
            "timestamp": "time",
            "event": "event",
            "weight": "rating",
        }
        assert told.interactions.timezone == "UTC"


def test_latin_1_and_compressed_files(tmp_path: Path) -> None:
    log = {
        "userId": ["1", "2"] * 50,
        "itemId": [str(i % 20) for i in range(100)],
        "name": ["Café crème"] * 100,
    }
    content = _write(tmp_path / "x.csv", log).read_text(encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes(content.encode("latin-1"))
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(content.encode()))
    assert _guessed(tmp_path, tmp_path / "latin.csv")[0].interactions.encoding == "latin-1"
    assert _guessed(tmp_path, tmp_path / "packed.csv.gz")[0].interactions.encoding == "utf-8"


def test_one_broken_line_does_not_change_the_encoding(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"{i % 9},{i % 20},Café\n".encode() for i in range(100)]
    path.write_bytes(b"userId,itemId,name\n" + b"".join(rows) + "1,2,Café\n".encode("latin-1"))
    told, _ = _guessed(tmp_path, path)
    assert told.interactions.encoding == "utf-8"


def test_an_unreadable_time_is_left_out_and_told(tmp_path: Path) -> None:
    log = _log()
    times = [f"Mitte März {2000 + row % 20}" for row in range(ROWS)]
    path = _write(tmp_path / "log.csv", {"userId": log["user"], "itemId": log["item"], "date": times})
    told, findings = _guessed(tmp_path, path)
    assert "timestamp" not in told.interactions.columns
    assert any("'date'" in sentence and "ISO 8601" in sentence for sentence in findings.unsure)


def test_the_catalogue_tells_which_column_is_the_item(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log = _write(
        tmp_path / "log.csv",
        {
            "b": [str(i) for i in rng.integers(1000, 1050, 300)],
            "a": [str(i) for i in rng.integers(1, 60, 300)],
        },
        header=False,
    )
    catalogue = _write(
        tmp_path / "items.csv",
        {"number": [str(i) for i in range(1000, 1050)], "title": [f"{TITLES[i % 4]} {i}" for i in range(50)]},
    )
    told, _ = _guessed(tmp_path, log, catalogue)
    assert told.interactions.fields == ("item_id", "user_id")
    assert told.items is not None
    assert told.items.columns == {"item_id": "number"}
    assert told.items.text == ("title",)


def test_catalogue_columns_by_what_they_hold(tmp_path: Path) -> None:
    ids = [f"p{i}" for i in range(1, 90)]
    rng = np.random.default_rng(0)
    genres = ["|".join(rng.choice(["Drama", "Comedy", "Crime", "War"], 2, replace=False)) for _ in ids]
    catalogue = _write(
        tmp_path / "items.tsv",
        {
            "code": [f"X-{i:05d}" for i in range(len(ids))],
            "long_description": [f"{TITLES[i % 4]} that {'really ' * 12} lasts, number {i}" for i in range(len(ids))],
            "product": ids,
            "price": [f"{i}.99" for i in range(len(ids))],
            "picture": [f"https://shop.example/{i}.jpg" for i in range(len(ids))],
            "genres": genres,
            "brand": [["Halden", "Velria"][i % 2] for i in range(len(ids))],
            "title": [f"{TITLES[i % 4]}, No. {i}" for i in range(len(ids))],
        },
        separator="\t",
    )
    log = _log()
    path = _write(tmp_path / "log.csv", {"user": log["user"], "item": log["item"]})
    told, _ = _guessed(tmp_path, path, catalogue)
    assert told.items is not None
    assert told.items.columns == {"item_id": "product"}
    assert told.items.text == ("title", "brand", "genres", "long_description")
    assert told.items.categorical["genres"].separator == "|"
    assert told.items.categorical["brand"].separator is None
    assert set(told.items.categorical) == {"genres", "brand"}


def test_a_catalogue_of_other_ids_is_told(tmp_path: Path) -> None:
    log = _log()
    path = _write(tmp_path / "log.csv", {"user": log["user"], "item": log["item"]})
    catalogue = _write(tmp_path / "items.csv", {"id": ["a", "b", "c"], "title": TITLES[:3]})
    _, findings = _guessed(tmp_path, path, catalogue)
    assert any("holds 0% of the log's items" in sentence for sentence in findings.unsure)
    assert any("items.id_map" in sentence for sentence in findings.unsure)


def test_half_a_catalogue_is_asked_about(tmp_path: Path) -> None:
    log = _log()
    path = _write(tmp_path / "log.csv", {"user": log["user"], "item": log["item"]})
    ids = sorted(set(log["item"]))
    for held, asked in ((ids[: len(ids) * 3 // 5], True), (ids, False)):
        catalogue = _write(tmp_path / "items.csv", {"item": held, "title": [f"Lamp of {one}" for one in held]})
        _, findings = _guessed(tmp_path, path, catalogue)
        said = [one for one in findings.unsure if 'unless retrieve.items = "all"' in one]
        assert bool(said) == asked and all("holds 60% of the log's items" in one for one in said)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n\n  \n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", "is not text"),
        (b'[{"user": 1, "item": 2}]\n', "one object a line"),
        (b"{\n  broken\n", "no row that can be read"),
        (
            b"once upon a time\nthere was\na text without columns at all here\nof any kind\n",
            "no number of fields",
        ),
        (
            b"rating,comment\n5.5,good one there\n4.5,bad one there\n",
            r"no column looks like the user's id .*comment",
        ),
        (
            b'{"user_id": 1, "item_id": ["a", "b"], "price": 3}\n{"user_id": 2, "item_id": ["c"], "price": 4}\n',
            r"'item_id' looks like item_id and holds a list where one id belongs, such as \['a', 'b'\]; write",
        ),
        (
            b'{"user": {"no": 1}, "item_id": 7}\n{"user": {"no": 2}, "item_id": 8}\n',
            r"'user' looks like user_id and holds an object .*field of its own",
        ),
        (b"userId,rating\n1,4.5\n2,3.5\n3,2.5\n", r"no column looks like the item's id .*userId, rating"),
    ],
)
def test_what_cannot_be_guessed_is_one_sentence(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        guess(path)
    assert "\n" not in str(caught.value)
    assert "log.csv" in str(caught.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        guess(tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="is a folder"):
        guess(tmp_path)


def test_a_pattern_is_kept_as_the_source(tmp_path: Path) -> None:
    log = _log()
    for day in ("01", "02"):
        _write(tmp_path / f"log-{day}.csv", {"user": log["user"], "item": log["item"]})
    told, _ = _guessed(tmp_path, tmp_path / "log-*.csv")
    assert told.interactions.source == "log-*.csv"
    assert Path(told.data_root) == tmp_path


def test_only_the_beginning_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("userId,itemId\n" + "".join(f"{i % 99},{i % 999}\n" for i in range(50_000)))
    sample = take_sample(str(path), limit=10_000)
    assert not sample.complete
    assert sample.rejected == {}  # the row that the limit cuts is not a broken one
    assert 100 < len(sample.frame) < 5_000
    assert sample.looked_at == len(sample.frame) and sample.total is None
    assert sample.part == f"the first {sample.looked_at:,} rows"


def test_rows_that_were_read_and_interactions_that_are_kept_are_counted_apart(tmp_path: Path) -> None:
    """Every other row has no user, so 250 of 500 rows are interactions."""
    frame = pl.DataFrame(
        {
            "user_id": [None if i % 2 else i % 7 for i in range(500)],
            "item_id": [i % 11 for i in range(500)],
            "Quantity": [1 + i % 3 for i in range(500)],
        }
    )
    frame.write_parquet(tmp_path / "log.parquet")
    _, all_of_it = _guessed(tmp_path, tmp_path / "log.parquet")
    assert any(s.startswith("250 interactions of 7 users with 11 items among 500 rows.") for s in all_of_it.found)
    for rows, name in ((500, "a"), (40, "b")):
        frame.head(rows).write_parquet(tmp_path / f"day-{name}.parquet")
    _, of_a_pattern = _guessed(tmp_path, tmp_path / "day-*.parquet")
    told = "250 interactions of 7 users with 11 items among the 500 rows of one of 2 files; every count here is of"
    assert any(s.startswith(told) for s in of_a_pattern.found)


def test_a_part_of_a_table_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sniff, "SAMPLE_ROWS", 300)
    frame = pl.DataFrame({"user_id": [i % 7 for i in range(500)], "item_id": [i % 11 for i in range(500)]})
    frame.write_parquet(tmp_path / "log.parquet")
    _, findings = _guessed(tmp_path, tmp_path / "log.parquet")
    told = "300 interactions of 7 users with 11 items among the first 300 of 500 rows; every count here is of these"
    assert any(s.startswith(told) for s in findings.found)


def test_an_existing_configuration_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "recsys.toml"
    path.write_text("mine")
    with pytest.raises(InputError, match="not overwritten; name another file with -o"):
        write_configuration("theirs", path)
    assert path.read_text() == "mine"
    with pytest.raises(InputError, match="cannot be written"):
        write_configuration("text", tmp_path / "missing" / "recsys.toml")


def test_odd_names_cannot_break_the_configuration(tmp_path: Path) -> None:
    log = _log()
    path = _write(tmp_path / 'odd "name" #1.csv', {"user id": log["user"], 'item "x"#': log["item"]}, ";")
    told, _ = _guessed(tmp_path, path)
    assert told.interactions.source == 'odd "name" #1.csv'
    text, _ = guess(path)
    assert tomllib.loads(text)["interactions"]["separator"] == ";"


@pytest.mark.parametrize(("length", "expected"), [(4, (3, 20)), (12, (5, 20)), (60, (5, 100)), (500, (5, 200))])
def test_history_lengths_set_filter_and_length(tmp_path: Path, length: int, expected: tuple[int, int]) -> None:
    path = _write(
        tmp_path / "log.csv",
        {
            "userId": [str(user) for user in range(12) for _ in range(length)],
            "itemId": [str(item) for _ in range(12) for item in range(length)],
        },
    )
    told, _ = _guessed(tmp_path, path)
    assert (told.filter.min_user_interactions, told.model.max_length) == expected


@pytest.mark.parametrize(("users", "expected"), [(300, (64, 16)), (3000, (128, 64))])
def test_a_small_log_gets_a_narrow_model_and_small_steps(tmp_path: Path, users: int, expected: tuple[int, int]) -> None:
    path = _write(
        tmp_path / "log.csv",
        {
            "userId": [str(user) for user in range(users) for _ in range(6)],
            "itemId": [str(item) for _ in range(users) for item in range(6)],
        },
    )
    told, _ = _guessed(tmp_path, path)
    assert (told.model.dimensions, told.train.batch_size) == expected


def test_a_header_with_an_empty_or_a_double_name_is_a_header(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(",user_id,item_id\n" + "".join(f"{row},{row % 7},{row % 5}\n" for row in range(30)))
    told, findings = _guessed(tmp_path, path)
    assert told.interactions.columns == {"user_id": "user_id", "item_id": "item_id"}
    assert findings.found[1:2] and "30 interactions" in " ".join(findings.found)
    path.write_text("user_id,item_id,item_id\n1,2,3\n4,5,6\n")
    with pytest.raises(InputError, match="two columns named 'item_id'"):
        guess(path)


def test_a_header_alone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n")
    with pytest.raises(InputError, match="a header line and no rows"):
        guess(path)
    path.write_bytes(b"user_id,item_id\r1,2\r3,4\r")
    with pytest.raises(InputError, match="carriage return alone"):
        guess(path)


def test_quoted_line_ends_do_not_hide_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = "".join(f'u{row % 5},"i{row % 4}\nlimited, new",{1_600_000_000 + row}\n' for row in range(40))
    path.write_text("user_id,item_id,timestamp\n" + rows)
    told, findings = _guessed(tmp_path, path)
    assert set(told.interactions.columns) == {"user_id", "item_id", "timestamp"}
    assert "40 interactions of 5 users with 4 items" in " ".join(findings.found)


def test_a_renumbered_log_is_not_said_to_fit_its_catalogue(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("".join(f"{row % 9 + 1} {row % 50 + 1}\n" for row in range(500)))
    items = tmp_path / "movies.dat"
    items.write_text("".join(f"{row}::A Film {row}::Drama\n" for row in range(1, 60) if row != 17))
    _, findings = _guessed(tmp_path, log, items)
    assert findings.unsure[0].startswith("THE CATALOGUE IS PROBABLY JOINED WRONGLY: the log numbers its 50 items")
    assert "items.id_map" in findings.unsure[0] and "--set items=none" in findings.unsure[0]
    assert not any("98%" in sentence for sentence in findings.found)
    # numbers with gaps, all of which the catalogue has, are another matter
    log.write_text("".join(f"{row % 9 + 1} {(row % 50 + 1) * 7}\n" for row in range(500)))
    items.write_text("".join(f"{row}::A Film {row}::Drama\n" for row in range(1, 400)))
    _, findings = _guessed(tmp_path, log, items)
    assert not any("PROBABLY" in sentence for sentence in findings.unsure)
    assert any("no common name says" in sentence for sentence in findings.unsure)


def test_a_catalogue_of_nested_categories_and_a_list_as_title(tmp_path: Path) -> None:
    log = _write(tmp_path / "some.csv", _log())
    items = tmp_path / "items.jsonl"
    lines = [
        {"id": f"p{item}", "name": TITLES[item % 4], "title": [f"x{item}"], "category": [["Home", "Bath"], ["Sale"]]}
        for item in range(1, 90)
    ]
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told, _ = _guessed(tmp_path, log, items)
    assert told.items is not None and set(told.items.categorical) == {"category"}
    assert set(told.items.text) == {"title", "name", "category"}


def test_a_database_is_not_guessed(tmp_path: Path) -> None:
    for log in ("postgresql://ann:secret@host/db", "shop.db", "${DATABASE_URL}"):
        with pytest.raises(InputError, match="is a database, and `recsys init` looks at files") as raised:
            guess(log, output=tmp_path / "recsys.toml")
        assert "secret" not in str(raised.value)


def test_the_mapping_is_said_and_so_is_a_k_above_all_items(tmp_path: Path) -> None:
    log = _log()
    path = _write(tmp_path / "log.csv", {"kunde": log["user"], "item": log["item"]})
    catalogue = _write(tmp_path / "items.csv", {"id": sorted(set(log["item"])), "title": sorted(set(log["item"]))})
    items = len(set(log["item"]))
    _, findings = _guessed(tmp_path, path, catalogue)
    assert "columns: user_id = 'kunde', item_id = 'item'" in findings.found
    assert [s for s in findings.unsure if s.startswith(f"retrieve.k = 100, and there are {items} items")]
