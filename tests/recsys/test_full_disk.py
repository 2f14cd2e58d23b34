"""A disk that takes no more: one sentence with the path and the reason, nothing half done, what was there stays."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import SafetensorError

from recsys import runs
from recsys.bundles.store import latest_bundle, publish_bundle, write_bundle
from recsys.columns import INTERACTIONS
from recsys.data.vocabulary import Vocabulary
from recsys.errors import RecsysError
from recsys.exports.files import Candidates, export
from recsys.settings.read import parse_settings
from recsys.storage.files import refusal, writing
from recsys.storage.warehouse import append, latest_version, overwrite, scan
from recsys.tracking import database as tracking_database
from recsys.training.checkpoint import Checkpoints

FULL = "No space left on device"


def fill(disk: Path, leave: int = 0) -> None:
    """Leave so many bytes of the disk."""
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 4096)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def log(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": np.arange(rows),
            "item_id": np.random.default_rng(0).integers(0, 1 << 60, rows),
            "timestamp": pl.Series([0] * rows, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            "event": ["view"] * rows,
            "weight": np.ones(rows),
            "position": np.arange(rows),
        }
    )


def test_a_table(small_disk: Path) -> None:
    append(small_disk, INTERACTIONS, log(10), expected=None)
    fill(small_disk)
    with pytest.raises(RecsysError, match=rf"^The table {small_disk}/interactions cannot be written: {FULL}\.$"):
        append(small_disk, INTERACTIONS, log(100_000), expected=0)
    (small_disk / "ballast").unlink()
    assert latest_version(small_disk, INTERACTIONS) == 0 and scan(small_disk, INTERACTIONS).collect().height == 10


def bundle_parts(items: int) -> dict[str, Any]:
    ids = pl.Series("item_id", range(items))
    model = {"dimensions": 8, "max_length": 6, "blocks": 1}
    return {
        "settings": parse_settings({"name": "tiny", "interactions": {"source": "log.csv"}, "model": model}),
        "vocabulary": Vocabulary(ids),
        "catalogue": pl.DataFrame({"item_id": ids, "title": [f"title {i}" for i in ids]}),
        "features": {},
        "weights": {"noise": torch.rand(items, 8)},
        "vectors": np.random.default_rng(0).random((items + 1, 9), dtype=np.float32)
        * (np.arange(items + 1) > 0)[:, None],
        "allowed": np.arange(items + 1) > 0,
        "lineage": {},
    }


@pytest.mark.parametrize("leave", [0, 8_192, 40_000, 200_000])  # full before the first file, and inside of later ones
def test_a_bundle(small_disk: Path, leave: int) -> None:
    first = write_bundle(small_disk, **bundle_parts(10))
    publish_bundle(small_disk, first)
    before = listing(small_disk / "bundles")
    fill(small_disk, leave)
    with pytest.raises(RecsysError, match=rf"^A bundle in {small_disk}/bundles cannot be written: {FULL}\.$"):
        write_bundle(small_disk, **bundle_parts(8_000))
    assert listing(small_disk / "bundles") == before
    assert latest_bundle(small_disk, "tiny").samefile(first)


def test_the_pointer_to_a_bundle(small_disk: Path) -> None:
    first = write_bundle(small_disk, **bundle_parts(10))
    publish_bundle(small_disk, first)
    second = write_bundle(small_disk, **bundle_parts(11))
    fill(small_disk)
    with pytest.raises(RecsysError, match=rf"The pointer {small_disk}/bundles/tiny.latest.json .* {FULL}"):
        publish_bundle(small_disk, second)
    assert latest_bundle(small_disk, "tiny").samefile(first)


def test_a_run_record_and_the_lock(small_disk: Path) -> None:
    state = runs.RunState(key="k", run_id="r", started="2026-01-01T00:00:00+00:00")
    runs.save(small_disk / "runs", state)
    fill(small_disk)
    with runs.locked(str(small_disk)) as folder:
        with pytest.raises(RecsysError, match=rf"The run's record {folder}/k.json cannot be written: {FULL}"):
            runs.save(folder, state.with_step("train", {"x": "y" * 100_000}, 1.0))
        assert runs.load(folder, "k") == state


def test_a_checkpoint_is_done_without(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(small_disk / "training", seconds=0)
    assert checkpoints.save({"weights": torch.zeros(8)})
    fill(small_disk)
    with caplog.at_level(logging.WARNING, "recsys"):
        assert not checkpoints.save({"weights": torch.zeros(200_000)})
        assert not checkpoints.save({"weights": torch.zeros(200_000)})
    (warning,) = caplog.messages
    assert str(small_disk / "training") in warning and FULL in warning
    loaded = checkpoints.load()
    assert loaded is not None and loaded["weights"].tolist() == [0.0] * 8
    assert not list((small_disk / "training").glob(".*"))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_an_export(small_disk: Path, tmp_path: Path, kind: str) -> None:
    from recsys.columns import CANDIDATES
    from recsys.storage.warehouse import SCHEMAS

    def candidates(rows: int) -> pl.DataFrame:
        schema = {name: pl.Int64() if dtype is None else dtype for name, dtype in SCHEMAS[CANDIDATES].items()}
        noise = np.random.default_rng(0).integers(0, 1 << 60, rows)
        frame = pl.DataFrame({"user_id": np.arange(rows), "item_id": noise, "rank": np.ones(rows, dtype=np.int32)})
        missing = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
        return frame.with_columns(missing).select(list(schema))

    version = append(tmp_path, CANDIDATES, candidates(10), expected=None)
    target = small_disk / "candidates"
    tree = {"name": "n", "interactions": {"source": "x"}, "export": {"path": str(target), "format": kind}}
    settings, table = parse_settings(tree), str(tmp_path / CANDIDATES)
    export(settings, Candidates(path=table, version=version))
    before = listing(small_disk)
    bigger = overwrite(tmp_path, CANDIDATES, candidates(300_000), expected=version)
    with pytest.raises(RecsysError, match=rf"^The export to {target} cannot be written: {FULL}\.$"):
        export(settings, Candidates(path=table, version=bigger))
    assert listing(small_disk) == before


def test_the_store_of_mlflow(small_disk: Path) -> None:
    fill(small_disk, 100_000)
    path = small_disk / "mlruns" / "mlflow.db"
    with pytest.raises(RecsysError, match=rf"The MLflow store {path} cannot be made .*full.*[Ff]ree some space"):
        tracking_database.prepare(path)
    assert {name.name for name in path.parent.iterdir()} == {".mlflow.db.lock"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), FULL),
        (OSError(f"[Errno 28] Error writing bytes to file. Detail: [errno 28] {FULL}"), FULL),
        (SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)"), FULL),
        (RuntimeError("faiss: Read-only file system"), "Read-only file system"),
        (ValueError("a bug"), None),
    ],
)
def test_a_refusal_is_found_in_the_errors_of_libraries(error: Exception, reason: str | None) -> None:
    assert refusal(error) == reason
    expected = type(error) if reason is None else RecsysError
    with pytest.raises(expected) as caught, writing("A file"):
        raise error
    if reason is not None:
        assert str(caught.value) == f"A file cannot be written: {reason}."
