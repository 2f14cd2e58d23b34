"""Recommending with nothing trained: text vectors at several widths, as they come, by PCA and whitened.

    .venv/bin/python benchmarks/zero_training.py --data DATA

What `model.kind = "text"` does: a history is the mean of its newest items' vectors, each step back weighing .7 as much,
and items are ranked by the cosine to it. Vectors are MiniLM's of length 1: its first dimensions, its strongest
directions (PCA), or those with equal variance (whitened), both fitted on the catalogue. Test part of leave-one-out, all
items ranked: amazon-beauty without the items a user has seen, ties by the lower code as in every report of ours;
recformer-scientific with them, as its paper has it, ties in the middle. MRR is over the whole ranking.

`--warehouse` keeps tables and vectors, so that a second run encodes nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np

from recsys.columns import SENTENCE
from recsys.data.prepare import Dataset, prepare
from recsys.data.splits import HeldOut
from recsys.evaluation.metrics import MISS, per_user
from recsys.evaluation.ranking import rank_targets
from recsys.features.whitening import Whitening
from recsys.ingestion.ingest import ingest
from recsys.models.history_mean import history_means
from recsys.settings.read import load_settings
from recsys.text.represent import represent, text_vectors

WIDTHS = (16, 32, 64, 128, 256, 384)
QUICK_WIDTHS, QUICK_USERS = (16, 384), 2000
FORMS = ("raw", "PCA", "whitened")
DATA = {  # data folder: configuration, are seen items removed?, are ties ranked in the middle?
    "amazon-beauty": ("amazon-beauty", True, False),
    "recformer-scientific": ("scientific-recformer", False, True),
}


def item_vectors(raw: np.ndarray, form: str, width: int) -> np.ndarray:
    """Unit vectors float32 [V + 1, D] of the encoder's [V, E]; zeros for no item and for items without text."""
    if form == "raw":
        vectors = raw[:, :width]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    else:
        vectors = Whitening.fit(raw, width, equal=form == "whitened").apply(raw)
    return np.concatenate([np.zeros_like(vectors[:1]), vectors])


def first(held_out: HeldOut, users: int) -> HeldOut:
    """Its first so many users."""
    histories = held_out.histories
    part = histories.crop(np.arange(users), histories.offsets[:users], histories.offsets[1 : users + 1])
    return HeldOut(histories=part, targets=held_out.targets[:users])


def measure(raw: np.ndarray, held_out: HeldOut, form: str, width: int, *, seen: bool, ties: bool) -> dict[str, Any]:
    """One row: HR@10, NDCG@10 and MRR."""
    vectors = item_vectors(raw, form, width)
    queries = history_means(vectors, held_out.histories.items, held_out.histories.offsets)
    ranking = rank_targets(
        lambda start, stop: queries[start:stop] @ vectors.T,
        held_out,
        vectors.any(axis=1),
        exclude_seen=seen,
        top_k=1,
    )
    ranks = ranking.middle if ties else ranking.ranks
    return {
        "form": form,
        "dimensions": vectors.shape[1],
        "hr_at_10": float(per_user(ranks, "hr", 10).mean()),
        "ndcg_at_10": float(per_user(ranks, "ndcg", 10).mean()),
        "mrr": float(per_user(ranks, "mrr", int(MISS) - 1).mean()),
    }


def loaded(name: str, data: Path, folder: Path) -> tuple[np.ndarray, Dataset]:
    """(the encoder's vectors float32 [V, E], the prepared data) of a data set."""
    config = common.ROOT / "configs" / f"{DATA[name][0]}.toml"
    overrides = [f"data_root={(data / name).resolve()}", f"warehouse={folder / name}", "model.kind=text"]
    settings = load_settings(config, overrides)
    versions = ingest(settings).versions
    report = represent(settings, versions)
    common.say(f"{name}: {report.encoded} sentences encoded, {report.reused} known")
    dataset = prepare(settings, versions)
    return text_vectors(settings, dataset.catalogue[SENTENCE]), dataset


def figures(data: Path, folder: Path, only: list[str], quick: bool) -> dict[str, Any]:
    """All figures, JSON-friendly."""
    found: dict[str, Any] = {}
    for name in only:
        _, seen, ties = DATA[name]
        raw, dataset = loaded(name, data, folder)
        held_out = dataset.split.test
        if quick:
            held_out = first(held_out, min(QUICK_USERS, len(held_out)))
        widths = [width for width in (QUICK_WIDTHS if quick else WIDTHS) if width <= raw.shape[1]]
        rows = []
        for form in FORMS:
            for width in widths:
                rows.append(measure(raw, held_out, form, width, seen=seen, ties=ties))
                common.say(f"{name}: {rows[-1]}")
        found[name] = {
            "users": len(held_out),
            "items": len(raw),
            "seen_removed": seen,
            "ties": "middle" if ties else "code",
            "rows": rows,
        }
    return {"data": found}


def show(found: dict[str, Any]) -> None:
    """For readers."""
    for name, of in found["data"].items():
        seen = "seen items removed" if of["seen_removed"] else "seen items kept"
        ties = "ties in the middle" if of["ties"] == "middle" else "ties by the lower code"
        print(f"\n{name}: {of['users']:,} users, {of['items']:,} items, {seen}, {ties}\n")
        print(
            common.table([{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in of["rows"]])
        )


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--warehouse", type=Path, help="folder that keeps tables and vectors; else a temporary one")
    parser.add_argument("--only", nargs="*", choices=list(DATA), default=list(DATA), help="data folders")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="recsys-zero-training-") as folder:
        found = figures(given.data, given.warehouse or Path(folder), given.only, given.quick)
    common.answer(given, found, show)


if __name__ == "__main__":
    common.from_shell(main)
