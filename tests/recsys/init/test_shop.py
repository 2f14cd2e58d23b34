"""`recsys init` on a till's log: what it leaves out, takes back, and calls a basket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS
from recsys.data.prepare import prepare
from recsys.ingestion.ingest import ingest
from recsys.init.guess import guess, write_configuration
from recsys.settings.read import load_settings
from recsys.storage import warehouse

NOW = datetime(2024, 6, 1, tzinfo=UTC)
GOODS = ["RED MUG", "BLUE MUG", "TEA TOWEL SET", "PAPER LANTERN", "WOODEN FRAME", "WICKER HEART", "CAKE STAND", "HOOK"]


def till(seed: int = 0) -> pl.DataFrame:
    """Lines of a shop: 40 customers with 4 to 6 baskets of 1 to 5 of 60 goods, and what a till writes besides."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    invoice = 1000

    def line(number: str, code: str, text: str | None, count: int, at: datetime, price: float, who: int | None) -> None:
        rows.append(
            {"Invoice": number, "StockCode": code, "Description": text, "Quantity": count, "InvoiceDate": at}
            | {"Price": price, "Customer ID": who, "Country": "United Kingdom" if (who or 0) % 9 else "EIRE"}
        )

    for customer in range(40):
        for visit in range(int(rng.integers(4, 7))):
            invoice += 1
            at = datetime(2010, 1, 1, 9) + timedelta(days=20 * visit, minutes=int(rng.integers(400)))
            codes = rng.choice(60, size=int(rng.integers(1, 6)), replace=False).tolist()
            for code in codes:
                name = f"{GOODS[code % 8]} {code}" if rng.random() < 0.8 else f"{GOODS[code % 8].lower()} {code}"
                line(
                    str(invoice), f"{20000 + code}", name, int(rng.integers(1, 12)), at, 1 + code / 10, 12000 + customer
                )
            if rng.random() < 0.1:
                line(str(invoice), "POST", "POSTAGE", 1, at, 18.0, 12000 + customer)
            if rng.random() < 0.2:
                line(f"C{invoice}", f"{20000 + codes[0]}", name, -12, at + timedelta(hours=2), 1.5, 12000 + customer)
            if rng.random() < 0.5:
                line(f"9{invoice}", f"{20000 + codes[0]}", "damaged", -3, at, 0.0, None)
            if rng.random() < 0.5:
                line(f"8{invoice}", f"{20000 + codes[-1]}", None, 4, at, 2.0, None)
    line("7000", "20001", "BLUE MUG 1", 1, datetime(2010, 1, 2, 10), 0.0, 12001)
    return pl.DataFrame(rows).with_columns(pl.col("InvoiceDate").cast(pl.Datetime("us")))


def write(frame: pl.DataFrame, root: Path, form: str) -> Path:
    path = root / f"till.{form}"
    if form == "csv":
        frame.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    else:
        frame.write_parquet(path)
    return path


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_tills_log_is_made_sense_of_as_it_is(tmp_path: Path, form: str) -> None:
    frame = till()
    path = write(frame, tmp_path, form)
    text, findings = guess(path, path)
    settings = load_settings(write_configuration(text, tmp_path / "recsys.toml"), [f"warehouse={tmp_path}/warehouse"])
    log, items = settings.interactions, settings.items
    assert items is not None
    assert log.columns["user_id"] == "Customer ID"
    assert log.columns["item_id"] == items.columns["item_id"] == "StockCode"
    assert (log.columns["timestamp"], log.columns["weight"]) == ("InvoiceDate", "Quantity")
    assert log.timezone == "Europe/London"
    assert list(map(str, log.drop)) == [
        "Customer ID missing true",
        "Price at_most 0",
        'StockCode matches "^[^0-9]"',
    ]
    assert list(map(str, log.withdraw)) == ['Invoice starts_with "C"']
    assert list(map(str, items.drop)) == [*map(str, log.drop), "Quantity below 1"]
    assert (items.text, items.several) == (("Description",), "most-frequent")
    assert (settings.split.same_time, settings.model.objective) == ("basket", "next-item")
    told = " ".join([*findings.found, *findings.unsure])
    for said in (
        "no 'Customer ID'",
        "(POST)",
        "below 0",
        "a basket",
        "not a rating. A cancellation takes that much",
        "Country = 'United Kingdom'",
    ):
        assert said in told
    assert 'timezone = "UTC"' not in told

    report = ingest(settings, now=NOW)
    assert report.rows_rejected == {INTERACTIONS: 0, ITEMS: 0}
    cancelled = frame.filter(pl.col("Invoice").str.starts_with("C"))
    assert report.withdrawals == len(cancelled.select("Customer ID", "StockCode", "InvoiceDate").unique())
    dataset = prepare(settings, warehouse.current_versions(settings.warehouse))
    assert dataset.report["withdrawals"]["events"] == dataset.report["withdrawals"]["rows"]
    sold = frame.filter(pl.col("Customer ID").is_not_null() & (pl.col("Quantity") > 0) & (pl.col("Price") > 0))
    titles = warehouse.scan(settings.warehouse, ITEMS).sort(ITEM_ID).select(ITEM_ID, "Description").collect().rows()
    assert len(titles) == 60
    for code, title in titles:
        lines = sold.filter(pl.col("StockCode") == str(code))["Description"].value_counts(sort=True)
        assert title in lines.filter(pl.col("count") == lines["count"].max())["Description"]


def test_purchases_made_again_stay_in_the_lists(tmp_path: Path) -> None:
    frame = till()
    again = frame.with_columns(
        pl.col("InvoiceDate").dt.offset_by("200d"), pl.concat_str(pl.lit("5"), "Invoice").alias("Invoice")
    )
    path = write(pl.concat([frame, again.filter(pl.col("Quantity") > 0)]), tmp_path, "parquet")
    text, findings = guess(path)
    assert not any("Seen items are not recommended" in sentence for sentence in findings.unsure)
    settings = load_settings(write_configuration(text, tmp_path / "recsys.toml"))
    assert not settings.evaluate.exclude_seen
    assert not settings.retrieve.exclude_seen
    assert settings.model.repeat_bias


def test_cancellations_without_a_mark_are_told_by_their_quantity(tmp_path: Path) -> None:
    path = write(till().with_columns(pl.col("Invoice").str.strip_prefix("C")), tmp_path, "csv")
    text, _ = guess(path)
    settings = load_settings(write_configuration(text, tmp_path / "recsys.toml"))
    assert list(map(str, settings.interactions.withdraw)) == ["Quantity below 0"]


@pytest.mark.parametrize(
    "frame",
    [
        # ratings, of which some are 0, by users who rate many films in a second
        pl.DataFrame(
            {
                "userId": [n // 20 for n in range(400)],
                "movieId": [(7 * n) % 90 + 1 for n in range(400)],
                "rating": [float(n % 6) for n in range(400)],
                "timestamp": [1_500_000_000 + 60 * (n // 2 * 2) + n for n in range(400)],
            }
        ),
        # a client's ids with and without a letter, and no quantity
        pl.DataFrame(
            {
                "user": [f"u{n % 30}" for n in range(400)],
                "item": [f"{n % 50}" if n % 40 else "B7" for n in range(400)],
                "time": [1_500_000_000 + n for n in range(400)],
            }
        ),
    ],
)
def test_another_log_gets_no_conditions(tmp_path: Path, frame: pl.DataFrame) -> None:
    text, _ = guess(write(frame, tmp_path, "csv"))
    settings = load_settings(write_configuration(text, tmp_path / "recsys.toml"))
    assert (settings.interactions.drop, settings.interactions.withdraw) == ((), ())
    assert (settings.split.same_time, settings.model.objective) == ("order", "cloze")
    assert settings.evaluate.exclude_seen


def test_cancellations_and_unpaid_lines_are_seen_behind_decimal_commas(tmp_path: Path) -> None:
    frame = till().with_columns(pl.col("Invoice").str.replace("C", "3"))
    comma = [pl.col(name).cast(pl.Float64).cast(pl.String).str.replace(".", ",", literal=True) for name in
             ("Quantity", "Price")]  # fmt: skip
    path = tmp_path / "till.csv"
    frame.with_columns(comma).write_csv(path, separator=";", datetime_format="%Y-%m-%d %H:%M:%S")
    text, _ = guess(path, path)
    settings = load_settings(write_configuration(text, tmp_path / "recsys.toml"), [f"warehouse={tmp_path}/warehouse"])
    assert settings.items is not None
    assert (settings.interactions.decimal, settings.items.decimal) == (",", ",")
    assert list(map(str, settings.interactions.withdraw)) == ["Quantity below 0"]
    assert "Price at_most 0" in map(str, settings.interactions.drop)
    report = ingest(settings, now=NOW)
    cancelled = frame.filter(pl.col("Quantity").eq(-12))
    assert report.withdrawals == len(cancelled.select("Customer ID", "StockCode", "InvoiceDate").unique())


def test_a_quantity_that_all_sales_share_still_says_what_a_cancellation_takes_back(tmp_path: Path) -> None:
    rows = [
        (n % 12, f"{n % 20}a", -2 if n % 9 == 8 else 5, datetime(2024, 1, 1) + timedelta(hours=n)) for n in range(200)
    ]
    path = tmp_path / "log.csv"
    pl.DataFrame(rows, schema=["user", "item", "qty", "time"], orient="row").write_csv(path)
    text, findings = guess(path)
    settings = load_settings(write_configuration(text, tmp_path / "recsys.toml"))
    assert settings.interactions.columns["weight"] == "qty"
    assert list(map(str, settings.interactions.withdraw)) == ["qty below 0"]
    assert "Not used" not in " ".join(findings.found)
