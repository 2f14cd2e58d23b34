from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS, USER_ID, USERS, WEIGHT
from recsys.data.prepare import prepare
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.init.guess import guess, write_configuration
from recsys.reading.headers import header_types
from recsys.settings import Settings
from recsys.storage import warehouse
from tests.recsys.init.guessing import events, guessed, said, write


def table(settings: Settings, name: str) -> pl.DataFrame:
    return warehouse.scan(settings.warehouse, name).collect()


# --- typed headers --------------------------------------------------------------------------------


def recbole(folder: Path) -> tuple[Path, Path, Path]:
    """A log, a catalogue and users as RecBole's ml-100k has them."""
    rng = np.random.default_rng(0)
    genres = ["Action", "Comedy", "Drama", "Crime", "War", "Sci-Fi"]
    log = [(u, i, f"{1 + row % 5}.0", f"{m.timestamp():.1f}") for row, (u, i, m) in enumerate(events(500))]
    items = [
        (
            item,
            f"{['Golden', 'Silent', 'Broken'][item % 3]} {['River', 'Night', 'Road', 'Sky'][item % 4]} {item}",
            1950 + item % 45,
            " ".join(rng.choice(genres, 1 + item % 3, replace=False)),
        )
        for item in range(101, 141)
    ]
    users = [
        (u, 18 + u * 7 % 50, "MF"[u % 2], ["technician", "writer", "other"][u % 3], f"{10000 + 37 * (u % 9):05}")
        for u in range(1, 30)
    ]
    return (
        write(folder / "m.inter", ["user_id:token", "item_id:token", "rating:float", "timestamp:float"], log, "\t"),
        write(
            folder / "m.item",
            ["item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"],
            items,
            "\t",
        ),
        write(
            folder / "m.user",
            ["user_id:token", "age:token", "gender:token", "occupation:token", "zip_code:token"],
            users,
            "\t",
        ),
    )


def test_typed_headers_are_understood(tmp_path: Path) -> None:
    settings, findings = guessed(tmp_path, *recbole(tmp_path))
    assert settings.interactions.columns == {
        "user_id": "user_id",
        "item_id": "item_id",
        "timestamp": "timestamp",
        "weight": "rating",
    }
    assert settings.items is not None and settings.users is not None
    assert settings.items.text == ("movie_title", "class")
    assert settings.items.categorical["class"].separator == " "
    assert set(settings.items.numeric) == {"release_year"}
    assert set(settings.users.categorical) == {"gender", "occupation", "zip_code"}
    assert set(settings.users.numeric) == {"age"}
    report = ingest(settings)
    assert report.rows_rejected == {INTERACTIONS: 0, ITEMS: 0, USERS: 0}
    assert table(settings, INTERACTIONS)[WEIGHT].is_not_null().all()
    dataset = prepare(settings.model_copy(update={"filter": settings.filter.model_copy()}), report.versions)
    assert {genre for genres in dataset.catalogue["class"] for genre in genres} == {
        *("Action", "Comedy", "Drama", "Crime", "War", "Sci-Fi")
    }
    assert not dataset.catalogue["sentence"].str.contains("token").any()
    assert not any("token" in sentence for sentence in findings.found)


def test_a_configuration_that_names_typed_columns_still_works(tmp_path: Path) -> None:
    log, items, _ = recbole(tmp_path)
    tree = {
        "name": "old",
        "warehouse": str(tmp_path / "warehouse"),
        "data_root": str(tmp_path),
        "interactions": {
            "source": log.name,
            "format": "csv",
            "separator": "\t",
            "columns": {"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"},
        },
        "items": {
            "source": items.name,
            "format": "csv",
            "separator": "\t",
            "columns": {"item_id": "item_id:token"},
            "text": ["movie_title:token_seq"],
            "categorical": {"genre": {"column": "class:token_seq", "separator": " "}},
        },
    }
    settings = Settings.model_validate(tree)
    ingest(settings)
    assert "movie_title:token_seq" in table(settings, ITEMS).columns
    assert len(table(settings, INTERACTIONS)) > 400


def test_types_that_hide_two_columns_of_one_name_stay() -> None:
    assert header_types(["a:token", "a:float"]) == {}
    assert header_types(["a:tokens", "b:"]) == {}
    assert header_types(["a:b:token_seq"]) == {"a:b": "token_seq"}


# --- catalogues and users ---------------------------------------------------------------------------


def test_nested_categories_are_attributes_under_dotted_names(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log.csv", ["user", "item", "timestamp"], [(u, i, int(m.timestamp())) for u, i, m in events()]
    )
    lines = [
        {
            "id": item,
            "title": f"Thing number {item}",
            "category": {"path": [["Home", "Garden"][item % 2], ["Bath", "Tools", "Beds"][item % 3]], "id": item % 4},
            "price": {"value": item / 10, "currency": "EUR"},
            "tags": [{"name": "new"}, {"name": ["red", "blue"][item % 2]}],
        }
        for item in range(101, 141)
    ]
    for ending in ("jsonl", "parquet"):
        items = tmp_path / f"items.{ending}"
        if ending == "jsonl":
            items.write_text("".join(json.dumps(line) + "\n" for line in lines))
        else:
            pl.DataFrame(lines).write_parquet(items)
        settings, findings = guessed(tmp_path, log, items)
        assert settings.items is not None
        assert set(settings.items.categorical) == {"category.path", "category.id", "tags.name"}
        assert set(settings.items.numeric) == {"price.value"}
        assert settings.items.text[0] == "title" and "category.path" in settings.items.text
        assert any("price.currency (every row says the same)" in sentence for sentence in findings.found)
        settings = settings.model_copy(update={"warehouse": str(tmp_path / ending)})
        report = ingest(settings)
        found = prepare(settings, report.versions).catalogue
        row = found.filter(pl.col(ITEM_ID) == 102).row(0, named=True)
        assert row["category.path"] == ["Home", "Bath"]
        assert row["tags.name"] == ["new", "red"]
        assert row["price.value"] == 10.2
        assert "Bath" in row["sentence"]


def test_a_user_table(tmp_path: Path) -> None:
    rows = [(u, i, int(m.timestamp())) for u, i, m in events()]
    log = write(tmp_path / "log.csv", ["user", "item", "timestamp"], rows)
    people = [
        (f"person{u}@example.org", u, 20 + u, "mf"[u % 2], f"{['01067', '10115'][u % 2]}", "yes", "" if u > 1 else "x")
        for u in range(1, 30)
    ]
    header = ["mail", "customer", "age", "gender", "plz", "active", "note"]
    users = write(tmp_path / "users.csv", header, people)
    settings, findings = guessed(tmp_path, log, None, users)
    assert settings.users is not None
    assert settings.users.columns == {"user_id": "customer"}
    assert set(settings.users.categorical) == {"gender", "plz"}
    assert set(settings.users.numeric) == {"age"}
    (unused,) = [sentence for sentence in findings.found if sentence.startswith("Not used of")]
    for told in ("mail (a value of its own", "active (every row says the same)", "note (hardly a row"):
        assert told in unused
    report = ingest(settings)
    assert report.rows_read[USERS] == 29
    assert prepare(settings, report.versions).split.serving.attributes is not None


@pytest.mark.parametrize(
    "pair", [("true", "false"), ("1", "0"), ("1.0", "0.0"), ("Y", "N"), ("yes", "No "), ("JA", "nein"), ("sí", "no")]
)
@pytest.mark.parametrize("name", ["in_stock", "label", "category"])
def test_yes_and_no_are_a_category_and_no_words(tmp_path: Path, pair: tuple[str, str], name: str) -> None:
    log = write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], [(u, i, m) for u, i, m in events()])
    rows = [(item, f"Blue kettle {item}", "" if item == 120 else pair[item % 3 == 0]) for item in range(101, 141)]
    settings, findings = guessed(tmp_path, log, write(tmp_path / "items.csv", ["item_id", "title", name], rows))
    assert settings.items is not None and settings.items.text == ("title",)
    assert set(settings.items.categorical) == {name} and not settings.items.numeric
    assert any(sentence == f"Categorical attributes: {name}." for sentence in findings.found)
    users = [(user, f"{'ab'[user % 2]}", pair[user % 2]) for user in range(1, 30)]
    settings, _ = guessed(tmp_path, log, users=write(tmp_path / "users.csv", ["user_id", "group", name], users))
    assert settings.users is not None and name in settings.users.categorical


def test_two_words_that_are_not_yes_and_no_stay_in_the_sentence(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], [(u, i, m) for u, i, m in events()])
    rows = [(item, f"Blue kettle {item}", ["new", "used"][item % 2]) for item in range(101, 141)]
    settings, _ = guessed(tmp_path, log, write(tmp_path / "items.csv", ["item_id", "title", "state"], rows))
    assert settings.items is not None and settings.items.text == ("title", "state")


def test_codes_with_leading_zeros_are_no_quantities(tmp_path: Path) -> None:
    rows = [(u, i, int(m.timestamp())) for u, i, m in events()]
    log = write(tmp_path / "log.dat", None, rows, "::")
    people = [(u, "MF"[u % 2], 18 + u % 40, f"0{1000 + 7 * u}") for u in range(1, 100)]
    settings, findings = guessed(tmp_path, log, None, write(tmp_path / "users.dat", None, people, "::"))
    assert settings.users is not None
    assert (set(settings.users.categorical), set(settings.users.numeric)) == ({"column_2"}, {"column_3"})
    assert any("column_4 (codes" in sentence for sentence in findings.found)


def test_a_catalogue_with_rows_without_an_id_is_asked_about(tmp_path: Path) -> None:
    rows = [(u, i, int(m.timestamp())) for u, i, m in events()]
    log = write(tmp_path / "log.csv", ["user", "item", "timestamp"], rows)
    things = [(item if item % 20 else "", f"Thing {item} of wood") for item in range(101, 141)]
    settings, findings = guessed(tmp_path, log, write(tmp_path / "items.csv", ["id", "title"], things))
    assert said(findings, "5.0% of the rows", "missing item_id (2)", "max_rejected_share")
    assert ingest(settings).rows_rejected[ITEMS] == 2


def test_every_column_of_a_catalogue_is_used_or_said(tmp_path: Path) -> None:
    rows = [(u, i, int(m.timestamp())) for u, i, m in events()]
    log = write(tmp_path / "log.csv", ["user", "item", "timestamp"], rows)
    header = ["item", "title", "colour", "price", "link", "listed", "ean", "shop", "remark"]
    things = [
        (
            *(item, f"Thing {item} of wood", ["red", "blue"][item % 2], f"{item},5", f"https://shop.example/{item}"),
            *(f"{1 + item % 28}.03.2021", 4_000_000_000_000 + 7919 * item, "main", "x" if item == 101 else ""),
        )
        for item in range(101, 141)
    ]
    items = write(tmp_path / "items.csv", header, things, ";")
    settings, findings = guessed(tmp_path, log, items)
    assert settings.items is not None
    assert settings.items.decimal == ","
    assert set(settings.items.numeric) == {"price"}
    told = " ".join(findings.found)
    for name in header[1:]:
        assert name in told
    report = ingest(settings)
    prices = prepare(settings, report.versions).catalogue
    assert prices.filter(pl.col(ITEM_ID) == 101)["price"].item() == 101.5


# --- weights, events, words for nothing -------------------------------------------------------------


@pytest.mark.parametrize(("quote", "separator"), [("", ";"), ('"', ",")])
def test_decimal_commas_are_read_where_they_are_no_separators(tmp_path: Path, quote: str, separator: str) -> None:
    rows = [(u, i, int(m.timestamp()), f"{quote}{1 + row % 5},5{quote}") for row, (u, i, m) in enumerate(events())]
    header = ["user", "item", "timestamp", "rating"]
    settings, _ = guessed(tmp_path, write(tmp_path / "log.csv", header, rows, separator))
    assert (settings.interactions.decimal, settings.interactions.columns["weight"]) == (",", "rating")
    ingest(settings)
    assert set(table(settings, INTERACTIONS)[WEIGHT]) == {1.5, 2.5, 3.5, 4.5, 5.5}


@pytest.mark.parametrize(
    ("name", "values", "separator"),
    [
        ("comma.csv", ['"1,250"', '"3,500"'], ","),  # 1250 or 1.25?
        ("thousands.csv", ["1,250", "3,500"], ";"),  # 1250 or 1.25?
        ("both.csv", ["1.250,5", "3.500,0"], ";"),
    ],
)
def test_init_accepts_no_weight_that_ingest_refuses(
    tmp_path: Path, name: str, values: list[str], separator: str
) -> None:
    rows = [(u, i, int(m.timestamp()), values[row % 2]) for row, (u, i, m) in enumerate(events())]
    log = write(tmp_path / name, ["user", "item", "timestamp", "rating"], rows, separator)
    settings, _ = guessed(tmp_path, log)
    assert "weight" not in settings.interactions.columns
    assert ingest(settings).rows_rejected == {INTERACTIONS: 0}
    # a column of our own name is read in any case, so nothing is written
    log = write(tmp_path / name, ["user", "item", "timestamp", "weight"], rows, separator)
    with pytest.raises(InputError, match="weight is not a number"):
        guessed(tmp_path, log)


@pytest.mark.parametrize("word", ["\\N", "nan", "NULL", "None", "n/a", "-", "unknown"])
def test_words_for_nothing_as_ids_are_asked_about(tmp_path: Path, word: str) -> None:
    rows: list[tuple[Any, ...]] = [(u, i, int(m.timestamp())) for u, i, m in events()]
    rows[5:9] = [(word, i, t) for _, i, t in rows[5:9]]
    rows[20] = (rows[20][0], word, rows[20][2])
    log = write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], rows)
    settings, findings = guessed(tmp_path, log)
    assert said(findings, "4 rows", "as user_id", repr(word))
    assert said(findings, "1 rows", "as item_id", repr(word))
    assert ingest(settings).rows_added[INTERACTIONS] == len(rows)  # asked, and nothing dropped


def test_missing_ids_are_said_and_left_out(tmp_path: Path) -> None:
    rows = [("" if row % 5 == 0 else u, i, int(m.timestamp())) for row, (u, i, m) in enumerate(events())]
    settings, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], rows))
    assert said(findings, "20% of the rows have no 'user_id'", "interactions.drop")
    report = ingest(settings)
    assert list(report.rows_dropped[INTERACTIONS].values()) == [60]
    assert report.rows_rejected == {INTERACTIONS: 0}


def test_missing_times_are_asked_about_and_let_pass(tmp_path: Path) -> None:
    rows = [(u, i, "" if row % 5 == 0 else int(m.timestamp())) for row, (u, i, m) in enumerate(events())]
    settings, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], rows))
    assert said(findings, "20.0%", "missing timestamp (60)", "max_rejected_share")
    assert ingest(settings).rows_rejected == {INTERACTIONS: 60}


def test_broken_rows_are_refused_before_ingest_does(tmp_path: Path) -> None:
    rows = [(u, i, int(m.timestamp()), *(["more"] if row % 25 == 0 else [])) for row, (u, i, m) in enumerate(events())]
    log = write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], rows)
    with pytest.raises(InputError, match=r"no configuration was written.*wrong number of fields \(12\)"):
        guessed(tmp_path, log)


def test_events_are_offered_with_their_counts(tmp_path: Path) -> None:
    kinds = ["page_view"] * 7 + ["add_to_cart"] * 2 + ["purchase"]
    rows = [(u, i, int(m.timestamp()), kinds[row % 10]) for row, (u, i, m) in enumerate(events())]
    log = write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp", "event_type"], rows)
    text, findings = guess(log, output=tmp_path / "recsys.toml")
    assert '# events = ["page_view", "add_to_cart", "purchase"]' in text
    assert "page_view (210), add_to_cart (60), purchase (30)" in text
    assert said(findings, "page_view 210", "page_view looks like views", "purchase looks like purchases")
    settings, _ = guessed(tmp_path, log)
    assert settings.filter.events is None


def test_a_constant_event_is_not_used(tmp_path: Path) -> None:
    rows = [(u, i, int(m.timestamp()), "view") for u, i, m in events()]
    settings, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item", "ts", "action"], rows))
    assert "event" not in settings.interactions.columns
    assert any("Not used" in sentence and "'action'" in sentence for sentence in findings.found)


def test_repeated_targets_are_said_by_init_and_by_the_report(tmp_path: Path) -> None:
    # every user ends with an item of the beginning, but for the last four of twenty
    rows = [
        (user, item, 1_700_000_000 + 100 * user + place)
        for user in range(1, 21)
        for place, item in enumerate([1, 2, 3, 4, 5, 6 if user > 16 else 1])
    ]
    settings, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item", "timestamp"], rows))
    assert said(findings, "80% of the users' last events", "repeated_targets", "0.20")
    report = ingest(settings)
    assert prepare(settings, report.versions).report["repeated_targets"] == pytest.approx(0.8)


# --- several configurations -------------------------------------------------------------------------


def test_each_configuration_has_a_warehouse_and_an_export_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(u, i, int(m.timestamp())) for u, i, m in events()]
    log = write(tmp_path / "a.csv", ["user", "item", "timestamp"], rows)
    named = {}
    for output in ("a.toml", "b.toml", "recsys.toml"):
        text, _ = guess(log, output=output)
        write_configuration(text, output)
        settings = Settings.model_validate(tomllib.loads(text))
        named[output] = (settings.name, settings.warehouse, settings.export.path)
    assert named == {
        "a.toml": ("a", "warehouses/a", "exports/a"),
        "b.toml": ("b", "warehouses/b", "exports/b"),
        "recsys.toml": ("a-2", "warehouses/a-2", "exports/a-2"),
    }


# --- other languages --------------------------------------------------------------------------------

HEADERS = {
    "German": ("Kundennummer", "Artikelnr", "Bestelldatum", "Menge"),
    "German short": ("Kunde", "Artikel", "Datum", "Anzahl"),
    "French": ("id_client", "référence_produit", "date_achat", "quantité"),
    "Spanish": ("cliente_id", "código_producto", "fecha", "cantidad"),
    "Italian": ("codice_cliente", "articolo", "data", "quantità"),
    "Portuguese": ("usuário", "produto", "data", "avaliação"),
    "Dutch": ("klantnummer", "artikel", "tijdstip", "aantal"),
    "none": ("A", "B", "C", "D"),
}


@pytest.mark.parametrize("language", HEADERS)
def test_columns_in_other_languages(tmp_path: Path, language: str) -> None:
    user, item, time, weight = HEADERS[language]
    rows = [(row % 4 + 1, f"K{u}", f"A{i}", m.strftime("%d.%m.%Y")) for row, (u, i, m) in enumerate(events())]
    log = write(tmp_path / "log.csv", [weight, user, item, time], rows, ";")
    settings, findings = guessed(tmp_path, log)
    columns = settings.interactions.columns
    assert (columns["user_id"], columns["item_id"], columns["timestamp"]) == (user, item, time)
    assert language == "none" or columns["weight"] == weight
    assert said(findings, "user_id") == (language == "none")
    assert table_ids(settings) == {(f"K{u}", f"A{i}") for u, i, _ in events()}


def table_ids(settings: Settings) -> set[tuple[str, str]]:
    ingest(settings)
    return set(table(settings, INTERACTIONS).select(USER_ID, ITEM_ID).rows())


def test_a_header_above_ids_alone_is_a_header(tmp_path: Path) -> None:
    rows = [(f"K{u}", f"A{i}") for u, i, _ in events()]
    settings, _ = guessed(tmp_path, write(tmp_path / "log.csv", ["Kunde (intern)", "Ware/Art"], rows, ";"))
    assert settings.interactions.fields is None
    assert table_ids(settings) == set(rows)


@pytest.mark.parametrize(
    ("values", "separator", "asked"),
    [(["1.100", "250"], ";", True), (["1.100", "2.5"], ";", False), (["1.100", "250"], ",", False)],
)
def test_points_that_may_stand_between_thousands_are_asked_about(
    tmp_path: Path, values: list[str], separator: str, asked: bool
) -> None:
    rows = [(u, i, int(m.timestamp()), values[row % 2]) for row, (u, i, m) in enumerate(events())]
    log = write(tmp_path / "log.csv", ["user", "item", "timestamp", "rating"], rows, separator)
    things = [(item, f"Thing {item} of wood", values[0] if item == 101 else values[1]) for item in range(101, 141)]
    items = write(tmp_path / "items.csv", ["item", "title", "price"], things, separator)
    _, findings = guessed(tmp_path, log, items)
    for column in ("'rating'", "'price'"):
        assert said(findings, column, "between thousands", "'1.100'") == asked


@pytest.mark.parametrize("whose", [ITEMS, USERS])
def test_ids_may_repeat_in_a_column_that_is_named_so(tmp_path: Path, whose: str) -> None:
    rows = [(u, f"i{i}", int(m.timestamp())) for u, i, m in events()]
    log = write(tmp_path / "log.csv", ["user", "item", "timestamp"], rows)
    ids = [f"i{n}" for n in range(101, 141)] if whose == ITEMS else list(range(1, 30))
    things = [(i, f"Thing {i} {n}", ["new", "old"][n]) for i in ids for n in range(2)]
    path = write(tmp_path / "table.csv", [whose[:-1], "title", "state"], things)
    settings, findings = guessed(tmp_path, log, **{whose: path})
    section = settings.items if whose == ITEMS else settings.users
    assert section is not None and section.columns == {f"{whose[:-1]}_id": whose[:-1]}
    assert said(findings, f"{len(ids)} rows", "several") and not said(findings, "holds 0%")
    ingest(settings)
    assert table(settings, whose)["state"].to_list() == ["old"] * len(ids)


# --- categories -----------------------------------------------------------------------------------


def test_categories_of_parquet_files_are_strings(tmp_path: Path) -> None:
    log = pl.DataFrame(
        [(f"u{u}", f"i{i}", f"{n % 5 + 1}", m.isoformat()) for n, (u, i, m) in enumerate(events())],
        schema=["user_id", "item_id", "rating", "timestamp"],
        orient="row",
    )
    log.with_columns(pl.all().cast(pl.Categorical)).write_parquet(tmp_path / "log.parquet")
    ids = [f"i{n}" for n in range(101, 141)]
    items = pl.DataFrame(
        {
            "item_id": pl.Series(ids, dtype=pl.Categorical),
            "title": pl.Series([f"A small thing {n}" for n in ids], dtype=pl.Categorical),
            "kind": pl.Series(["ab"[n % 2] for n in range(40)], dtype=pl.Enum(["a", "b"])),
            "tags": pl.Series([["x", "y"]] * 39 + [["x"]], dtype=pl.List(pl.Categorical)),
        }
    )
    items.write_parquet(tmp_path / "items.parquet")
    settings, _ = guessed(tmp_path, tmp_path / "log.parquet", tmp_path / "items.parquet")
    assert settings.interactions.columns[WEIGHT] == "rating"
    assert settings.items is not None and set(settings.items.categorical) == {"kind", "tags"}
    ingest(settings)
    assert table(settings, INTERACTIONS)[WEIGHT].sum() == sum(n % 5 + 1 for n in range(300))
    assert table(settings, ITEMS)["kind"].value_counts(sort=True)["count"].to_list() == [20, 20]


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_a_vector_is_neither_category_nor_words(tmp_path: Path, form: str) -> None:
    rows = [(f"u{u}", f"i{i}", int(m.timestamp())) for u, i, m in events()]
    log = write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], rows)
    lines = [
        {
            "item_id": f"i{n}",
            "title": f"A small thing {n}",
            "embedding": [n / 7, -0.5, 1.0, 1e-05],
            "tags": ["x", "y"] if n % 2 else ["x"],
            "sizes": [38, 39] if n % 2 else [40],
        }
        for n in range(101, 141)
    ]
    path = tmp_path / f"items.{form}"
    if form == "parquet":
        pl.DataFrame(lines).write_parquet(path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        pl.DataFrame([{name: str(value) for name, value in line.items()} for line in lines]).write_csv(path)
    settings, findings = guessed(tmp_path, log, path)
    assert settings.items is not None and set(settings.items.categorical) == {"tags", "sizes"}
    assert "embedding" not in settings.items.text
    assert any("embedding (lists of numbers)" in sentence for sentence in findings.found)


# --- the trial ------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["items", "users"])
def test_tables_are_tried_like_logs(tmp_path: Path, whose: str) -> None:
    rows = [(u, i, int(m.timestamp())) for u, i, m in events()]
    log = write(tmp_path / "log.csv", ["user", "item", "timestamp"], rows)
    key, first = ("item", 101) if whose == "items" else ("user", 1)

    def table_of(n: int) -> dict[str, Path]:
        things = [json.dumps({key: first + i, "title": f"Thing {i}", "kind": "ab"[i % 2]}) for i in range(n)]
        (tmp_path / "table.jsonl").write_text("\n".join([*things, '["odd"]']) + "\n")
        return {whose: tmp_path / "table.jsonl"}

    with pytest.raises(InputError, match=r"table.jsonl cannot be read safely.*8% of its rows.*for example line 12"):
        guess(log, **table_of(11))
    _, findings = guess(log, **table_of(200))
    assert said(findings, "0.5% of the rows", "table.jsonl")
