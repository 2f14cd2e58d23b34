"""Recformer's training throughput in tokens a second, beside a straightforward Longformer of transformers.

    .venv/bin/python benchmarks/recformer_throughput.py --data DATA

Fine-tuning steps on recformer-scientific from the training part of leave-one-out: the same batches of histories, the
same width, blocks, heads, dropout and window of 64, the same softmax over a constant item table, random weights.
Longformer is used as its documentation shows: a batch padded to its longest history, global attention on the first
token, bf16 by autocast where the processor multiplies bf16 natively; attention dropout is off on both sides. Beside
the published form stands the one of configs/scientific-recformer.toml, with its estimate of an epoch: steps, and the
item table that stage one encodes anew. A token is one of a history's text, never padding.

Model FLOPs are the matrix products that the task needs, forward and backward, with real tokens and the pairs of tokens
that attention sees. The bf16 rate is what a plain bf16 product reaches here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl
import torch
from training_throughput import bf16_rate

from recsys.columns import TITLE
from recsys.features.device import best_device
from recsys.features.tokens import ItemTokens, tokenise
from recsys.models.recformer.encode import best_dtype, encode, item_table
from recsys.models.recformer.finetune import Targets, softmax_loss
from recsys.models.recformer.inputs import read, token_lengths
from recsys.models.recformer.model import Recformer, Shape
from recsys.models.recformer.start import ready, start
from recsys.settings import RecformerSettings
from recsys.settings.read import load_settings
from recsys.training.learner import Learner

ATTRIBUTES = (TITLE, "brand", "category")
WINDOW, BATCH = 64, 32
WARM_UP = 1 if best_device().type == "cpu" else 3  # steps; on an accelerator allocations and choices of kernels
STEPS, QUICK_STEPS, QUICK_ITEMS, QUICK_BATCH = 20, 2, 200, 8
CONFIG = Path(__file__).resolve().parent.parent / "configs" / "scientific-recformer.toml"


def catalogue(folder: Path) -> pl.DataFrame:
    """Attributes of the items in the order of their numbers."""
    numbers = pl.read_json(folder / "smap.json").unpivot(variable_name="code", value_name="number")
    texts = pl.read_json(folder / "meta_data.json").unpivot(variable_name="code", value_name="item").unnest("item")
    return numbers.join(texts, on="code").sort("number").select(ATTRIBUTES)


def training_part(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(items int32 [N] from 1, offsets): train.json is leave-one-out's training part."""
    histories = pl.read_json(folder / "train.json").unpivot(value_name="items")["items"]
    items = histories.explode().to_numpy().astype(np.int32) + 1
    return items, np.concatenate([[0], np.cumsum(histories.list.len().to_numpy())]).astype(np.int64)


class Steps:
    """The same fine-tuning steps for whichever encoder."""

    def __init__(self, tokens: ItemTokens, items: np.ndarray, offsets: np.ndarray, batch: int, steps: int) -> None:
        self.tokens, self.items = tokens, items
        targets = Targets.of(tokens, items, offsets)
        rng = np.random.default_rng(0)
        chosen = [rng.choice(len(targets.users), batch, replace=False) for _ in range(steps + WARM_UP)]
        self.batches = [(offsets[targets.users[users]], targets.draw(users, rng)) for users in chosen]
        self.epoch = len(targets.users) / batch  # steps

    def lengths(self, limits: Any) -> np.ndarray:
        """Tokens of every timed history."""
        parts = [token_lengths(self.tokens, self.items, *batch, limits) for batch in self.batches[WARM_UP:]]
        return np.concatenate(parts)

    def seconds(self, modules: torch.nn.Module, width: int, queries: Callable[..., torch.Tensor]) -> float:
        """Seconds of all steps but those of the warm-up."""
        learner = Learner(modules, steps=99, learning_rate=1e-5, weight_decay=0.0, warmup_share=0.0, clip_norm=1.0)
        device = best_device()
        table = torch.nn.functional.normalize(torch.randn(self.tokens.size + 1, width, device=device), dim=1)
        allowed = torch.ones(self.tokens.size + 1, dtype=torch.bool, device=device)
        modules.train()
        for number, (starts, ends) in enumerate(self.batches):
            if number == WARM_UP:
                common.settled()
                began = time.perf_counter()
            labels = torch.from_numpy(self.items[ends].astype(np.int64)).to(device)
            learner.add([softmax_loss(queries(starts, ends), table, labels, allowed, 0.05)])
        common.settled()
        return time.perf_counter() - began


def ours(model: Recformer, steps: Steps) -> float:
    """Seconds of the timed steps."""

    def queries(starts: np.ndarray, ends: np.ndarray) -> torch.Tensor:
        return encode(model, steps.tokens, steps.items, starts, ends, dtype=best_dtype())

    return steps.seconds(model, model.shape.width, queries)


def longformer(shape: Shape, dropout: float, steps: Steps) -> float:
    """Seconds of the timed steps."""
    from transformers import LongformerConfig, LongformerModel

    config = LongformerConfig(
        vocab_size=shape.words,
        hidden_size=shape.dimensions,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.tokens + 2 + WINDOW,
        attention_window=WINDOW,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
        pad_token_id=1,
    )
    network = LongformerModel(config, add_pooling_layer=False)
    network.embeddings.word_embeddings.requires_grad_(False)
    native, device = best_dtype() == torch.bfloat16, best_device()
    network.to(device)

    def queries(starts: np.ndarray, ends: np.ndarray) -> torch.Tensor:
        given = read(steps.tokens, steps.items, starts, ends, shape.limits)
        tokens = torch.from_numpy(given.tokens).to(device)
        mask = torch.from_numpy(np.arange(tokens.shape[1]) < given.lengths[:, None]).long().to(device)
        first = torch.zeros_like(mask)
        first[:, 0] = 1
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=native):
            states = network(tokens, attention_mask=mask, global_attention_mask=first).last_hidden_state
        return torch.nn.functional.normalize(states[:, 0].float(), dim=1)

    return steps.seconds(network, shape.dimensions, queries)


def flops(shape: Shape, lengths: np.ndarray) -> float:
    """Model FLOPs of training on histories: 2 a multiply-add, the backward pass twice the forward one."""
    seen = np.minimum(lengths, lengths if shape.window is None else shape.window + 2) * lengths
    block = lengths.sum() * (4 * shape.dimensions**2 + 2 * shape.dimensions * shape.inner)
    return float(3 * 2 * shape.blocks * (block + 2 * seen.sum() * shape.dimensions))


def figures(folder: Path, quick: bool) -> dict[str, Any]:
    """All figures, JSON-friendly."""
    configured = load_settings(CONFIG).recformer
    frame, (items, offsets) = catalogue(folder), training_part(folder)
    batch, count = (QUICK_BATCH, QUICK_STEPS) if quick else (BATCH, STEPS)
    rate, rows = bf16_rate(), []
    published = RecformerSettings(
        init=configured.init, layers=configured.layers, max_items=50, max_tokens=512, window=WINDOW
    )
    for name, settings in (("as published", published), ("scientific-recformer.toml", configured)):
        begun = start(settings, [frame], 0)
        model = ready(begun.model, settings)
        tokens = tokenise(frame, ATTRIBUTES, begun.tokenizer, settings.attribute_tokens)
        steps = Steps(tokens, items, offsets, batch, count)
        lengths = steps.lengths(model.shape.limits)
        common.say(f"{name}: {count} steps of {lengths.sum() / count:.0f} tokens")
        seconds = ours(model, steps)
        row: dict[str, Any] = {
            "form": name,
            "tokens_per_second": lengths.sum() / seconds,
            "share_of_bf16_rate": flops(model.shape, lengths) / seconds / rate,
            "epoch_seconds": seconds / count * steps.epoch,
        }
        began = time.perf_counter()
        some = min(QUICK_ITEMS if quick else 2000, tokens.size)
        part = ItemTokens(tokens=tokens.tokens, types=tokens.types, offsets=tokens.offsets[: some + 2])
        item_table(model, part)
        row["table_seconds"] = (time.perf_counter() - began) * len(tokens.tokens) / part.offsets[-1]
        if name == "as published":
            common.say("the same steps by Longformer")
            theirs = longformer(model.shape, settings.dropout, steps)
            row |= {"longformer_tokens_per_second": lengths.sum() / theirs, "ratio_to_longformer": theirs / seconds}
        rows.append({key: float(value) if key != "form" else value for key, value in row.items()})
    return {"blocks": configured.layers, "bf16_gflops": rate / 1e9, "forms": rows}


def show(found: dict[str, Any]) -> None:
    """For readers."""
    names = list(dict.fromkeys(key for row in found["forms"] for key in row))
    rows = [{key: row.get(key, "") for key in names} for row in found["forms"]]
    print(common.table([{k: f"{v:,.2f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]))
    print(f"{found['blocks']} blocks of MiniLM; the bf16 rate: {found['bf16_gflops']:,.0f} GFLOP/s")


def main() -> None:
    given = common.options(__doc__).parse_args()
    common.answer(given, figures(given.data / "recformer-scientific", given.quick), show)


if __name__ == "__main__":
    common.from_shell(main)
