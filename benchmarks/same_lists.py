"""Lists of the exact search beside those of two plain ways, for every history of a configuration's newest bundle.

    .venv/bin/python benchmarks/same_lists.py configs/ml-1m.toml --set data_root=DATA --set warehouse=FOLDER

The warehouse holds a bundle, as `recsys train` leaves it. Each user of the log gets 100 items without what he has had:
by the program; by the scores of all pairs, sorted whole (ties by code); and by FAISS's flat index, which former
versions asked. The first two must be equal to the last bit. FAISS adds in another order, so items whose scores differ
in their last bits may change places there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import common
import faiss
import numpy as np

from recsys.bundles.store import latest_bundle
from recsys.columns import PADDING
from recsys.data.prepare import prepare
from recsys.data.sequences import Sequences
from recsys.retrieval.exact import exact_scores
from recsys.retrieval.index import ItemIndex, build_index
from recsys.retrieval.top_k import top_k
from recsys.serving.recommender import open_bundle
from recsys.settings.read import load_settings
from recsys.storage.warehouse import current_versions

K: Final = 100
USERS: Final = 64  # compared at once
QUICK_USERS: Final = 128


def sorted_whole(index: ItemIndex, queries: np.ndarray, histories: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scores [b, K] of all pairs, sorted: the search's definition."""
    users, size = len(queries), len(index.vectors)
    rows, codes = np.divmod(np.arange(users * size, dtype=np.int64), size)
    scores = exact_scores(queries, index.vectors, rows, codes).reshape(users, size)
    scores[:, ~index.exact_search.holds] = -np.inf
    scores[np.repeat(np.arange(users), histories.lengths), histories.items] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    found = np.take_along_axis(scores, best, axis=1)
    return np.where(np.isfinite(found), best, PADDING), found


def by_faiss(flat: Any, index: ItemIndex, queries: np.ndarray, histories: Sequences) -> np.ndarray:
    """Codes [b, K] as FAISS's flat index orders them."""
    longest = int(histories.lengths.max(initial=0))
    members = np.flatnonzero(index.exact_search.holds)
    places = flat.search(queries, min(K + longest, len(members)))[1]
    codes = np.full((len(queries), K), PADDING)
    for user, found in enumerate(members[places]):
        own = histories.items[histories.offsets[user] : histories.offsets[user + 1]]
        left = found[~np.isin(found, own)][:K]
        codes[user, : len(left)] = left
    return codes


def compared(bundle: Path, histories: Sequences) -> dict[str, Any]:
    """Users whose lists are equal, both ways."""
    served = open_bundle(bundle)
    model = served.model
    index = build_index(model.vectors, model.allowed)
    flat = faiss.IndexFlatIP(model.vectors.shape[1])
    flat.add(np.ascontiguousarray(model.vectors[index.exact_search.holds]))
    queries = served.encode(histories)
    codes, scores = top_k(index, queries, histories, k=K)
    equal = bits = places = 0
    for start in range(0, len(histories), USERS):
        own = slice(start, start + USERS)
        some = histories.select(np.arange(start, min(start + USERS, len(histories))))
        wanted, values = sorted_whole(index, queries[own], some)
        equal += int((codes[own] == wanted).all(axis=1).sum())
        bits += int((scores[own] == values).all(axis=1).sum())
        places += int((codes[own] == by_faiss(flat, index, queries[own], some)).sum())
        common.say(f"{min(start + USERS, len(histories)):,} of {len(histories):,} users")
    return {
        "items": int(index.exact_search.holds.sum()),
        "width": model.vectors.shape[1],
        "users": len(histories),
        "equal lists": equal,
        "equal scores": bits,
        "places as FAISS has them": places / codes.size,
    }


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    told = figures["compared"]
    share = f"{told['places as FAISS has them']:.5f}"
    print(common.table([{"log": figures["log"]} | told | {"places as FAISS has them": share}]))


def main(arguments: list[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as `recsys run` takes it")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK_USERS} users: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args(arguments)
    settings = load_settings(given.config, given.set)
    histories = prepare(settings, current_versions(settings.warehouse)).split.test.histories
    if given.quick:
        histories = histories.select(np.arange(min(QUICK_USERS, len(histories))))
    found = compared(latest_bundle(settings.warehouse, settings.name), histories)
    common.answer(given, {"log": settings.name, "compared": found}, show)


if __name__ == "__main__":
    common.from_shell(main)
