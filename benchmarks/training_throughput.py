"""Training throughput in tokens a second, beside RecTools and RecBole in the same architecture.

    make peers
    .venv/bin/python benchmarks/training_throughput.py --data DATA

All train on the same histories of ml-1m (the training part of leave-one-out, the newest 200 events of each user), with
the same width, blocks, heads, length, batch and dropout rate and full softmax, one after the other, each in the
precision that it comes with. A token is an event of a history, never padding. An epoch counts from its first batch to
its last step, building batches and masks included, preparing the data excluded; the first epoch is the warm-up, the
figure is the median of the others.

Where torch sees an accelerator, ours trains there and the peers, which are set up for a processor, are left out.

The feed-forward is 4 D wide for cloze and D for next item, as RecTools' BERT4Rec and SASRec have it. What differs,
because it is how each is built: RecTools drops out inside attention, computes in fp32 and scores every position.
RecBole makes a row of every beginning of a history; it is timed by the step, tokens of exactly those rows, and its
SASRec asks one question a row where the others ask one a token.

Model FLOPs are the matrix products that the task needs, forward and backward, with real tokens only and logits where
there is a label. The bf16 rate is what a plain bf16 product reaches there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import common
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from recsys.data.sequences import Sequences
from recsys.data.splits import leave_one_out
from recsys.features.device import best_device
from recsys.settings import ModelSettings, TrainSettings

RECTOOLS_OF = {"cloze": "BERT4RecModel", "next-item": "SASRecModel"}
WIDENING = {"cloze": 4, "next-item": 1}  # of the feed-forward, in multiples of D, as RecTools' two have it
RECBOLE_OF = {"cloze": "BERT4Rec", "next-item": "SASRec"}
MASKED = 0.15  # RecTools' default, for both sides
MODEL = ModelSettings(
    dimensions=64,
    blocks=2,
    heads=2,
    max_length=200,
    dropout=0.2,  # RecTools' default
    rotary=False,  # RecTools has learned positions, counted from the end, and no head
    head=False,
    temperature=None,
)
BATCH = 128
QUICK_USERS, QUICK_EPOCHS, QUICK_STEPS = 64, 2, 2


def training_part(file: Path, users: int | None) -> Sequences:
    """Data that both sides train on."""
    everything = leave_one_out(common.histories(file, users)).train
    kept = everything.select(np.flatnonzero(everything.lengths >= 2))
    return common.renumbered(common.newest(kept, MODEL.max_length))


def flops(model: ModelSettings, lengths: np.ndarray, items: int, masked: float = MASKED) -> float:
    """Model FLOPs of one epoch of its objective: 2 a multiply-add, the backward pass twice the forward one."""
    D = model.dimensions
    tokens = lengths.sum()
    if model.objective == "cloze":
        labels, pairs = masked * tokens, (lengths**2).sum()
    else:
        labels, pairs = tokens - len(lengths), (lengths * (lengths + 1) / 2).sum()
    # projections and feed-forward; scores and mixing
    block = tokens * (4 + 2 * model.feed_forward_multiple) * D**2 + 2 * pairs * D
    return float(3 * 2 * (model.blocks * block + labels * D * items))


def shaped(objective: str) -> ModelSettings:
    """The architecture of an objective."""
    return MODEL.model_copy(update={"objective": objective, "feed_forward_multiple": WIDENING[objective]})


def bf16_rate(seconds: float = 1.0) -> float:
    """FLOPs a second of a plain bf16 product, on the accelerator if there is one: the best of a second's tries."""
    size = 8192 if torch.cuda.is_available() else 1536
    a, b = (torch.randn(size, size, device=best_device()).bfloat16() for _ in range(2))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        common.settled()
        began = time.perf_counter()
        torch.matmul(a, b)
        common.settled()
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def ours(histories: Sequences, objective: str, epochs: int) -> list[float]:
    """Seconds of each timed epoch."""
    settings = shaped(objective)
    train = TrainSettings(epochs=epochs + 1, batch_size=BATCH, mask_probability=MASKED, **common.PLAIN)
    model = common.id_model(int(histories.items.max()), settings).to(best_device())
    return common.epoch_seconds(model, histories, train, settings.max_length)[1:]


def rectools(histories: Sequences, objective: str, epochs: int) -> dict[str, Any] | None:
    """Seconds of each timed epoch, and RecTools' version."""
    arguments = {
        "n_factors": MODEL.dimensions,
        "n_blocks": MODEL.blocks,
        "n_heads": MODEL.heads,
        "session_max_len": MODEL.max_length,
        "dropout_rate": MODEL.dropout,
        "batch_size": BATCH,
        "loss": "softmax",
    } | ({"mask_prob": MASKED} if objective == "cloze" else {})
    answer = common.ask_peer(
        "with_rectools",
        {"task": "train", "model": RECTOOLS_OF[objective], "arguments": arguments, "epochs": epochs},
        items=histories.items,
        offsets=histories.offsets,
    )
    if answer and (answer["events"], answer["items"]) != (len(histories.items), int(histories.items.max())):
        raise RuntimeError(f"RecTools trained on {answer['events']} events of {answer['items']} items, not on ours")
    return answer


def recbole(histories: Sequences, objective: str, steps: int) -> dict[str, Any] | None:
    """Seconds and tokens of each timed step, and RecBole's version."""
    settings = {
        "MAX_ITEM_LIST_LENGTH": MODEL.max_length,
        "hidden_size": MODEL.dimensions,
        "inner_size": WIDENING[objective] * MODEL.dimensions,
        "n_layers": MODEL.blocks,
        "n_heads": MODEL.heads,
        "hidden_dropout_prob": MODEL.dropout,
        "attn_dropout_prob": MODEL.dropout,
        "train_batch_size": BATCH,
        "mask_ratio": MASKED,
    }
    job = {"model": RECBOLE_OF[objective], "settings": settings, "steps": steps}
    return common.ask_peer("with_recbole", job, items=histories.items, offsets=histories.offsets)


def measure(histories: Sequences, epochs: int, steps: int) -> dict[str, Any]:
    """All figures, JSON-friendly."""
    rate = bf16_rate()
    tokens, items = len(histories.items), int(histories.items.max())
    models: list[dict[str, Any]] = []
    figures: dict[str, Any] = {"users": len(histories), "tokens": tokens, "items": items, "bf16_gflops": rate / 1e9}
    figures |= {"models": models, "ratios": {}}

    def add(side: str, name: str, objective: str, seconds: list[float]) -> None:
        needed = flops(shaped(objective), histories.lengths, items)
        models.append(
            {
                "side": side,
                "model": name,
                "objective": objective,
                "tokens_per_second": tokens / median(seconds),
                "epoch_seconds": seconds,
                "model_flops_per_token": needed / tokens,
                "share_of_bf16": needed / median(seconds) / rate,
            }
        )

    for objective, peer in RECTOOLS_OF.items():
        common.say(f"{objective}: ours, {epochs + 1} epochs")
        add("ours", objective, objective, ours(histories, objective, epochs))
        common.say(f"{objective}: RecTools' {peer}, {epochs + 1} epochs")
        answer = rectools(histories, objective, epochs) if best_device().type == "cpu" else None
        if answer:
            figures["rectools"] = answer["rectools"]
            add("RecTools", peer, objective, answer["seconds"])
        common.say(f"{objective}: RecBole's {RECBOLE_OF[objective]}, {steps} steps")
        answer = recbole(histories, objective, steps) if best_device().type == "cpu" else None
        if answer:
            figures["recbole"] = answer["recbole"]
            speed = median(n / seconds for n, seconds in zip(answer["tokens"], answer["seconds"], strict=True))
            models.append(
                {
                    "side": "RecBole",
                    "model": RECBOLE_OF[objective],
                    "objective": objective,
                    "tokens_per_second": speed,
                    "step_seconds": answer["seconds"],
                    "rows_of_an_epoch": answer["rows"],
                }
            )
    own = {of["objective"]: of["tokens_per_second"] for of in models if of["side"] == "ours"}
    for of in models:
        if of["side"] != "ours":
            figures["ratios"][f"{of['side']} {of['model']}"] = own[of["objective"]] / of["tokens_per_second"]
    for side in ("RecTools", "RecBole"):
        ratios = [ratio for name, ratio in figures["ratios"].items() if name.startswith(side)]
        if ratios:
            figures[f"ratio_to_{side.lower()}"] = min(ratios)
    return figures


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    print(f"{figures['users']:,} histories, {figures['tokens']:,} tokens, {figures['items']:,} items")
    print(f"a plain bf16 product runs at {figures['bf16_gflops']:.0f} GFLOP/s\n")
    rows = []
    for of in figures["models"]:
        ratio = figures["ratios"].get(f"{of['side']} {of['model']}")
        known = "epoch_seconds" in of  # RecBole is timed by the step, over rows of its own
        rows.append(
            {
                "": of["side"],
                "model": of["model"],
                "tokens/s": f"{of['tokens_per_second']:,.0f}",
                "ours is": f"{ratio:.1f} x" if ratio else "",
                "s/epoch": f"{median(of['epoch_seconds']):.2f}" if known else "",
                "MFLOP/token": f"{of['model_flops_per_token'] / 1e6:.2f}" if known else "",
                "share of bf16 rate": f"{of['share_of_bf16']:.1%}" if known else "",
            }
        )
    print(common.table(rows))
    if "rectools" in figures:
        print(f"\nRecTools {figures['rectools']}, RecBole {figures['recbole']}")
    else:
        print(f"\n{common.NO_PEERS}")


def show_profile(histories: Sequences) -> None:
    """Time of an epoch: operators by the time spent in them alone."""
    for objective in RECTOOLS_OF:
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            seconds = ours(histories, objective, epochs=1)[0]
        events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
        total = sum(event.self_cpu_time_total for event in events)
        print(f"\n{objective}, {seconds:.2f} s an epoch while being watched, operators by their own time\n")
        print(
            common.table(
                [
                    {"operator": event.key, "share": f"{event.self_cpu_time_total / total:.1%}", "calls": event.count}
                    for event in events[:15]
                ]
            )
        )


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs of each model, after one of warm-up")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of RecBole, after two of warm-up")
    parser.add_argument("--profile", action="store_true", help="also: which operators our time goes to")
    given: argparse.Namespace = parser.parse_args(arguments)
    histories = training_part(given.data / "ml-1m" / "ml-1m.txt", QUICK_USERS if given.quick else None)
    epochs, steps = (QUICK_EPOCHS, QUICK_STEPS) if given.quick else (given.epochs, given.steps)
    figures = measure(histories, epochs, steps)
    common.answer(given, figures, show)
    if given.profile and not given.json:
        show_profile(histories)


if __name__ == "__main__":
    common.from_shell(main)
