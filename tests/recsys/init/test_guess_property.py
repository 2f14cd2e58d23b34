"""`recsys init`, then `recsys ingest`: whatever the log looks like, the right events come in, or init refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS, TIMESTAMP, USER_ID, USERS, WEIGHT
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.init.guess import guess
from recsys.settings.read import load_settings
from recsys.storage import warehouse

ROWS = 150
NAMES = {
    "ours": ("user_id", "item_id", "timestamp", "weight", "event"),
    "English": ("CustomerID", "StockCode", "InvoiceDate", "Quantity", "EventType"),
    "German": ("Kundennummer", "Artikel", "Datum", "Menge", "Ereignis"),
    "French": ("client", "produit", "date_achat", "quantité", "événement"),
    "Spanish": ("id_cliente", "artículo", "fecha", "cantidad", "acción"),
    "nothing": ("one", "two", "three", "four", "five"),
}
IDS = {
    "integers": ("{}", "{}"),
    "letters": ("u{}", "SKU-{}"),
    "zeros": ("{:06}", "{:05}"),
    "accents": ("Käufer {}", "Größe{}"),
}
TIMES = {
    "s": None,
    "ms": None,
    "iso": "%Y-%m-%dT%H:%M:%SZ",
    "naive": "%Y-%m-%d %H:%M:%S",
    "german": "%d.%m.%Y %H:%M:%S",
    "american": "%m/%d/%Y %I:%M:%S %p",
    "british": "%d/%m/%Y %H:%M:%S",
    "packed": "%Y%m%d%H%M%S",
    "slashed": "%Y/%m/%d %H:%M:%S",
    "words": "%b %d %Y %H:%M:%S",
    "mail": "%a, %d %b %Y %H:%M:%S +0000",
    "none": None,
}
SEPARATORS = {"csv": ",", "tsv": "\t", "semicolon": ";", "bar": "|", "colons": "::"}


@dataclass(frozen=True, kw_only=True)
class Case:
    kind: str
    header: bool
    names: str
    ids: str
    time: str
    decimal: str
    order: str
    columns: tuple[str, ...]
    weight: bool
    event: bool
    encoding: str
    catalogue: bool
    users: bool


cases = st.builds(
    Case,
    kind=st.sampled_from([*SEPARATORS, "jsonl", "parquet"]),
    header=st.booleans(),
    names=st.sampled_from(list(NAMES)),
    ids=st.sampled_from(list(IDS)),
    time=st.sampled_from(list(TIMES)),
    decimal=st.sampled_from([".", ","]),
    order=st.sampled_from(["oldest", "newest", "mixed"]),
    columns=st.permutations(["user", "item", "time", "weight", "event"]).map(tuple),
    weight=st.booleans(),
    event=st.booleans(),
    encoding=st.sampled_from(["utf-8", "latin-1", "utf-16"]),
    catalogue=st.booleans(),
    users=st.booleans(),
)


def log_of(case: Case) -> list[dict[str, Any]]:
    """Events with their true values: user, item, moment, weight, event."""
    rng = np.random.default_rng(5)
    user, item = IDS[case.ids]
    start = datetime(2022, 1, 20, 6, 15, 7, tzinfo=UTC)
    rows = [
        {
            "user": user.format(int(rng.integers(1, 15))),
            "item": item.format(int(rng.integers(201, 240))),
            "time": start + timedelta(hours=11 * row, seconds=row % 50),
            "weight": int(rng.integers(1, 9)) / 2,
            "event": ["view", "purchase"][int(rng.integers(0, 2))],
        }
        for row in range(ROWS)
    ]
    if case.order == "newest":
        rows.reverse()
    elif case.order == "mixed":
        rng.shuffle(rows)  # type: ignore[arg-type]
    return rows


def written(case: Case, row: dict[str, Any]) -> dict[str, str]:
    moment = row["time"]
    pattern = TIMES[case.time]
    time = moment.strftime(pattern) if pattern else str(int(moment.timestamp() * (1000 if case.time == "ms" else 1)))
    return {**row, "time": time, "weight": str(row["weight"]).replace(".", case.decimal)}


def put(case: Case, folder: Path) -> tuple[Path, Path | None, Path | None]:
    wanted = {"time": case.time != "none", "weight": case.weight, "event": case.event}
    columns = [name for name in case.columns if wanted.get(name, True)]
    if not case.header or case.names == "nothing":  # places tell users from items then, which is asked about
        columns.sort(key=lambda name: name != "user")
    names = dict(zip(("user", "item", "time", "weight", "event"), NAMES[case.names], strict=True))
    rows = [{names[name]: written(case, row)[name] for name in columns} for row in log_of(case)]
    log = folder / f"log.{case.kind if case.kind in ('jsonl', 'parquet') else 'txt'}"
    if case.kind == "parquet":
        frame = pl.DataFrame(rows)
        if case.weight and case.decimal == ".":
            frame = frame.with_columns(pl.col(names["weight"]).cast(pl.Float64))
        if case.time in ("s", "ms", "packed"):
            frame = frame.with_columns(pl.col(names["time"]).cast(pl.Int64))
        frame.write_parquet(log)
    elif case.kind == "jsonl":
        log.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        separator = SEPARATORS[case.kind]
        lines = [separator.join(rows[0])] if case.header else []
        lines += [separator.join(f'"{v}"' if separator in v else v for v in row.values()) for row in rows]
        log.write_text("\n".join(lines) + "\n", encoding=case.encoding)
    item = IDS[case.ids][1]
    items = users = None
    if case.catalogue:
        items = folder / "items.csv"
        lines = [f"{item.format(i)},A thing of wood {i},{['red', 'blue'][i % 2]}\n" for i in range(201, 240)]
        items.write_text("id,title,colour\n" + "".join(lines), encoding="utf-8")
    if case.users:
        users = folder / "users.csv"
        lines = [f"{IDS[case.ids][0].format(u)},{20 + u},{'mf'[u % 2]}\n" for u in range(1, 15)]
        users.write_text("id,age,sex\n" + "".join(lines), encoding="utf-8")
    return log, items, users


def typed(ids: list[str]) -> list[Any]:
    """Ids as their table has them: integers where all are written as such."""
    return (
        [int(one) for one in ids]
        if all(str(int(one)) == one for one in ids if one.isdigit()) and all(one.isdigit() for one in ids)
        else ids
    )


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases)
def test_what_init_writes_ingest_reads_rightly(case: Case) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        log, items, users = put(case, folder)
        try:
            text, findings = guess(log, items, users, folder / "recsys.toml")
        except InputError as error:
            # a column of our own name is read in any case, so that what is in it must be readable
            assert case.names == "ours" and case.decimal == "," and case.weight, error
            return
        config = folder / "recsys.toml"
        config.write_text(text, encoding="utf-8")
        told = load_settings(config, [f"warehouse={folder / 'warehouse'}"])
        report = ingest(told)
        assert report.rows_rejected[INTERACTIONS] == 0
        if case.catalogue:
            assert report.rows_read[ITEMS] == report.rows_added[ITEMS] == 39
        if case.users:
            assert report.rows_added[USERS] == 14
        if case.kind not in ("jsonl", "parquet") and not case.header:
            assert any("taken for its place" in sentence for sentence in findings.unsure)
        rows = log_of(case)
        got = warehouse.scan(told.warehouse, INTERACTIONS).collect()
        keys = [typed([row[name] for row in rows]) for name in ("user", "item")]
        if case.time == "none":
            assert got[TIMESTAMP].null_count() == len(got)
            assert any("No column holds times" in sentence for sentence in findings.unsure)
            assert set(got.select(USER_ID, ITEM_ID).rows()) == set(zip(*keys, strict=True))
            return
        moments = [row["time"] for row in rows]
        assert set(got.select(USER_ID, ITEM_ID, TIMESTAMP).rows()) == set(zip(*keys, moments, strict=True))
        if "weight" in told.interactions.columns or WEIGHT in (told.interactions.fields or ()):
            weights = dict(zip(zip(*keys, moments, strict=True), (row["weight"] for row in rows), strict=True))
            for *key, weight in got.select(USER_ID, ITEM_ID, TIMESTAMP, WEIGHT).rows():
                assert weight == weights[tuple(key)]
