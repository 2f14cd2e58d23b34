"""Effect of each choice: a configuration changed in one setting at a time, the same data and the same epochs.

    .venv/bin/python benchmarks/ablations.py --data DATA

A row is `recsys run configs/NAME.toml` with the overrides that the row prints: validation chooses the epoch, test is
read once. Short trainings (12 epochs), so that the whole table takes hours and not days; what needs more epochs to pay
is at a disadvantage here. `--only` chooses rows, `--seeds` repeats each, `--base` takes another configuration, `--keep`
lets the rows be had in parts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import common
import torch

from recsys.columns import PADDING
from recsys.data.prepare import Dataset, prepare
from recsys.evaluation.metrics import accuracy
from recsys.evaluation.ranking import rank_targets
from recsys.features.precision import activation_dtype
from recsys.ingestion.ingest import ingest
from recsys.models.sequential.bert4rec import Bert4Rec, encode_queries
from recsys.models.sequential.build import build_model, item_features
from recsys.models.sequential.estimator import item_text, train_model
from recsys.models.sequential.feature_encoders import Encoders, fit_encoders
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.text.represent import represent
from recsys.training.validation import PRIMARY

EPOCHS = 12
# ids alone at a quarter of the width, so that nothing but the row's change speaks and many rows fit into a day; dot
# products and the dropout that ml-1m.toml had before this table changed them, whatever --base has
PLAIN = (
    "model.dimensions=64",
    "model.temperature=none",
    "model.dropout=0.2",
    "model.text=false",
    "model.attributes=false",
    "model.id_dropout=0",
    "evaluate.baselines=[]",
)
NEXT = "model.objective=next-item"
ROWS: dict[str, tuple[str, ...]] = {
    "cloze": (),
    "cloze from the first epoch on": ("train.next_item_share=0",),
    "next items for 0.8 of the epochs": ("train.next_item_share=0.8",),
    "mask 0.15": ("train.mask_probability=0.15",),
    "mask 0.5": ("train.mask_probability=0.5",),
    "no last-item masks": ("train.mask_last_share=0",),
    "last-item masks 0.3": ("train.mask_last_share=0.3",),
    "last-item masks 0.3, weight 10": ("train.mask_last_share=0.3", "train.last_weight=10"),
    "normalised after (published)": ("model.norm_first=false",),
    "absolute positions alone (published)": ("model.rotary=false",),
    "distance bias instead of rotary": ("model.rotary=false", "model.distance_bias=true"),
    "distance bias and rotary": ("model.distance_bias=true",),
    "output head (published)": ("model.head=true",),
    "SwiGLU": ("model.feed_forward=swiglu",),
    "gates and SwiGLU (LiGR)": ("model.gated=true", "model.feed_forward=swiglu"),
    "cosine, temperature 0.07": ("model.temperature=0.07",),
    "dropout 0.1": ("model.dropout=0.1",),
    "dropout 0.3": ("model.dropout=0.3",),
    "2 heads": ("model.heads=2",),
    "width 128": ("model.dimensions=128",),
    "width 256": ("model.dimensions=256",),
    "width 256, cosine, dropout 0.1": ("model.dimensions=256", "model.temperature=0.07", "model.dropout=0.1"),
    "4 blocks": ("model.blocks=4",),
    "batches of 128": ("train.batch_size=128",),
    "batches of 32": ("train.batch_size=32",),
    "weights not averaged": ("train.average_decay=0",),
    "histories of 100": ("model.max_length=100",),
    "sampled softmax, 1000 a history": ("train.loss=sampled", "train.negatives=1000"),
    "gBCE, 256 a history": ("train.loss=gbce", "train.negatives=256"),
    "one look-up an id": ("model.id_lookups=1",),
    "+ attributes": ("model.attributes=true",),
    "+ text": ("model.text=true",),
    "+ attributes + text": ("model.attributes=true", "model.text=true"),
    "+ attributes + text, id dropout 0.1": ("model.attributes=true", "model.text=true", "model.id_dropout=0.1"),
    "next item": (NEXT,),
    "next item, output head": (NEXT, "model.head=true"),
    "next item, distance bias instead of rotary": (NEXT, "model.rotary=false", "model.distance_bias=true"),
    "next item, gates and SwiGLU (LiGR)": (NEXT, "model.gated=true", "model.feed_forward=swiglu"),
    "next item, cosine, temperature 0.07": (NEXT, "model.temperature=0.07"),
    "next item, dropout 0.3": (NEXT, "model.dropout=0.3"),
    "next item, batches of 128": (NEXT, "train.batch_size=128"),
    "next item, sampled softmax, 1000 a history": (NEXT, "train.loss=sampled", "train.negatives=1000"),
    "next item + attributes + text": (NEXT, "model.attributes=true", "model.text=true", "model.id_dropout=0.1"),
}


def test_accuracy(model: Bert4Rec, settings: Settings, dataset: Dataset, encoders: Encoders) -> dict[str, float]:
    """HR and NDCG at 10 of the held-out last items, every item ranked; `cold/...` of items without training events."""
    vectors, allowed = model.item_vectors()
    held_out = dataset.split.test
    queries = encode_queries(
        model.encoder,
        torch.from_numpy(vectors[:, :-1]).to(activation_dtype(settings.train.precision)),
        held_out.histories.items,
        held_out.histories.offsets,
        settings.model.max_length,
        encoders.side(held_out.histories),
    )
    ranking = rank_targets(lambda start, stop: queries[start:stop] @ vectors.T, held_out, allowed, top_k=1)
    cold = (held_out.targets != PADDING) & ~dataset.trained_items()[held_out.targets]
    of_cold = accuracy(ranking.ranks[cold], (10,), part="cold") if cold.any() else {}
    return accuracy(ranking.ranks, (10,), part="test") | of_cold


def measure(
    settings: Settings, dataset: Dataset, label: str, change: Callable[[Bert4Rec], None] = lambda model: None
) -> dict[str, float]:
    """Train one configuration, its untrained model changed by `change`, and read its test figures."""
    began, cpu = time.perf_counter(), time.process_time()
    text = item_text(settings, dataset) if settings.model.text else None
    encoders = fit_encoders(settings, dataset)
    features, side = item_features(dataset, encoders, text), encoders.side_features(dataset.split.train)
    model = build_model(settings, features, side=side)
    change(model)

    def on_epoch(entry: dict[str, float]) -> None:
        if PRIMARY in entry:
            common.say(f"  {label}, epoch {entry['epoch']}: loss {entry['loss']:.3f}, validation {entry[PRIMARY]:.4f}")

    training = train_model(model, settings, dataset, encoders, on_epoch)
    found = test_accuracy(model, settings, dataset, encoders)
    return {
        "validation": max(entry[PRIMARY] for entry in training.history if PRIMARY in entry),
        "hr": found["test/hr_at_10"],
        "ndcg": found["test/ndcg_at_10"],
        **{name.partition("_at")[0].replace("/", "_"): value for name, value in found.items() if "cold/" in name},
        "best_epoch": training.best_epoch,
        "minutes": (time.perf_counter() - began) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
    }


def show(figures: dict[str, Any]) -> None:
    def both(runs: list[dict[str, float]], name: str) -> str:
        values = [run[name] for run in runs]
        return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")

    rows = [
        {
            "row": name,
            "overrides": " ".join(row["overrides"]) or "-",
            "validation NDCG@10": both(row["runs"], "validation"),
            "test HR@10": both(row["runs"], "hr"),
            "test NDCG@10": both(row["runs"], "ndcg"),
            "CPU minutes": both(row["runs"], "cpu_minutes").partition(" ")[0],
        }
        for name, row in figures["rows"].items()
    ]
    print(f"{figures['base']}, {figures['epochs']} epochs, --set {' --set '.join(figures['plain'])}\n")
    print(common.table(rows))


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--base", default="ml-1m", help="a configuration in configs/, and the data folder's name")
    parser.add_argument("--only", nargs="*", help="rows by name")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add runs to this file; take those that are there")
    parser.add_argument("--set", nargs="*", action="extend", default=[], help="overrides for every row")
    given = parser.parse_args()
    kept = common.Kept(given.keep)
    unknown = set(given.only or ()) - set(ROWS)
    if unknown:
        sys.exit(f"there is no row {sorted(unknown)[0]!r}; rows: {'; '.join(ROWS)}")
    base = "ml-latest-small" if given.quick else given.base
    epochs = 1 if given.quick else given.epochs
    chosen = given.only or (list(ROWS)[:2] if given.quick else list(ROWS))
    plain = [*PLAIN, f"train.epochs={epochs}", "train.evaluate_every=5", "train.patience=1000", *given.set]
    figures: dict[str, Any] = {"base": base, "epochs": epochs, "plain": plain, "rows": {}}
    with tempfile.TemporaryDirectory(prefix="recsys-ablations-") as folder:
        common_overrides = [f"data_root={(given.data / base).resolve()}", f"warehouse={folder}", *plain]
        config = common.ROOT / "configs" / f"{base}.toml"
        report = ingest(load_settings(config, common_overrides))
        dataset = prepare(load_settings(config, common_overrides), report.versions)
        if any("model.text=true" in ROWS[name] for name in chosen):
            represent(load_settings(config, common_overrides), report.versions)
        for name in chosen:
            runs = []
            for seed in range(given.seeds):
                settings = load_settings(config, [*common_overrides, *ROWS[name], f"seed={seed}"])
                label = " ".join([base, str(given.data.resolve()), *plain, *ROWS[name], f"seed={seed}"])
                runs.append(kept.figures(label, partial(measure, settings, dataset, name)))
                common.say(f"{name}: {runs[-1]}")
            figures["rows"][name] = {"overrides": list(ROWS[name]), "runs": runs}
    common.answer(given, figures, show)


if __name__ == "__main__":
    common.from_shell(main)
