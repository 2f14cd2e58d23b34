"""RecBole's side of training throughput; runs in the environment of `make peers`, never in ours.

Reads one JSON object from standard input and prints one: `{"arrays": FILE.npz, "model": ..., "settings": ..., "steps":
...}`. RecBole makes a row of every beginning of a history, so its epoch shows an event many times; hence single steps
are timed, by the lines of its own trainer, and the tokens of exactly those rows are counted.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model

WARM_UP = 2  # steps


def train(job: dict[str, Any], arrays: Any) -> dict[str, Any]:
    """Seconds and real tokens of each step, from asking for the batch to the optimizer's end."""
    offsets, items = arrays["offsets"], arrays["items"]
    folder = Path("data") / "log"
    folder.mkdir(parents=True)
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    with (folder / "log.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"{user}\t{item}\t{place}\n" for place, (user, item) in enumerate(zip(users, items)))  # noqa: B905
    settings = {
        "data_path": "data",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "user", "mode": "full"},
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "use_gpu": False,
        "state": "ERROR",
    }
    config = Config(model=job["model"], dataset="log", config_dict=settings | job["settings"])
    loader, _, _ = data_preparation(config, create_dataset(config))
    model = get_model(job["model"])(config, loader.dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
    model.train()
    seconds, tokens = [], []
    batches = iter(loader)
    for _ in range(WARM_UP + job["steps"]):
        began = time.perf_counter()
        batch = next(batches)
        optimizer.zero_grad()
        loss = model.calculate_loss(batch)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
        tokens.append(int((batch["item_id_list"] != 0).sum()))
    return {"seconds": seconds[WARM_UP:], "tokens": tokens[WARM_UP:], "rows": len(loader.dataset)}


def main() -> None:
    warnings.filterwarnings("ignore")
    job = json.load(sys.stdin)
    print(json.dumps({"recbole": recbole.__version__} | train(job, np.load(job["arrays"], allow_pickle=False))))


if __name__ == "__main__":
    main()
