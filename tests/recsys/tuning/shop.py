"""A small shop for searches: users walk a ring of items, so a little training is measured at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recsys.settings import Settings
from recsys.settings.read import parse_settings

SPACE: dict[str, Any] = {
    "train.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "model.dimensions": [8, 16],
    "model.heads": {"low": 1, "high": 3},
}
TOML = """# A ring.
name = "ring"
seed = 3
data_root = {folder!r}
warehouse = {warehouse!r}
[interactions]
source = "log.csv"
[model]
max_length = 8
dimensions = 16  # narrow
text = false
[train]
epochs = 2
batch_size = 32
evaluate_every = 1
next_item_share = 0
learning_rate = 0.01
precision = "fp32"  # in bf16, some processors round the same history otherwise in a batch of another shape
[blend]
kind = "never"
[tracking]
uri = {uri!r}
[tune]
"train.learning_rate" = {{ low = 1e-3, high = 1e-1, log = true }}
"model.dimensions" = [8, 16]
"model.heads" = {{ low = 1, high = 3 }}
"""


def write_shop(folder: Path) -> Path:
    """Write the log and its configuration; return the latter's path."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(60):
        start, length = rng.integers(20), rng.integers(5, 8)
        lines += [f"{user},i{(start + n) % 20},{1_600_000_000 + 100 * n}" for n in range(length)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    path = folder / "ring.toml"
    uri, warehouse = f"sqlite:///{folder}/mlflow.db", str(folder / "warehouse")
    path.write_text(TOML.format(folder=str(folder), warehouse=warehouse, uri=uri))
    return path


def settings(**sections: Any) -> Settings:
    """Settings that need no files."""
    return parse_settings({"name": "ring", "interactions": {"source": "log.csv"}, **sections})
