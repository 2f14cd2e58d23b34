"""The training loop: cloze batches in, the weights of the best validation out."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from features.precision import native_bf16
from recsys.config import TrainSettings
from recsys.models.bert4rec import Bert4Rec
from recsys.training.batches import batches, windows
from recsys.training.objectives import cloze

OnEpoch = Callable[[dict[str, float]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """Outcome of a training: the best weights and how they were reached."""

    weights: dict[str, Tensor]
    best_epoch: int
    epochs: int
    history: list[dict[str, float]]  # one entry an epoch: epoch, loss, seconds, tokens_per_second, the validation's


def train(
    model: Bert4Rec,
    items: np.ndarray,
    offsets: np.ndarray,
    settings: TrainSettings,
    *,
    seed: int,
    max_length: int,
    validate: Callable[[Bert4Rec], dict[str, float]],
    primary: str,
    on_epoch: OnEpoch | None = None,
) -> Training:
    """Train until the epochs are over or validation stops gaining.

    Parameters
    ----------
    model
        Changed in place; ends with the best weights.
    items, offsets
        int32 [N] and int64 [U + 1], the training histories.
    seed
        Fixes order, masks, id dropout and dropout: the same seed and thread count repeat the same weights.
    max_length
        Longest window.
    validate
        Called every `settings.evaluate_every` epochs and after the last one; returns metrics.
    primary
        The metric that decides which weights are best; higher is better.
    on_epoch
        Called after every epoch with its entry of the history.

    Raises
    ------
    FloatingPointError
        The loss is no longer finite.
    """
    rng = np.random.default_rng(seed)
    bf16 = use_bf16(settings.precision)
    starts, ends = windows(offsets, max_length)
    steps = settings.epochs * -(-len(starts) // settings.batch_size)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(steps, settings.warmup_share))
    average = _Average(model, settings.average_decay)
    history: list[dict[str, Any]] = []
    best: dict[str, Tensor] = {}
    best_value, best_epoch, since_best = -math.inf, 0, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(1, settings.epochs + 1):
            began = time.perf_counter()
            total, labels, tokens = 0.0, 0, 0
            model.train()
            for batch in batches(items, starts, ends, settings.batch_size, rng):
                task = cloze(
                    batch,
                    rng,
                    mask_probability=settings.mask_probability,
                    mask_last_share=settings.mask_last_share,
                )
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                    logits = model(torch.from_numpy(task.tokens), torch.from_numpy(task.positions))
                loss = functional.cross_entropy(logits.float(), torch.from_numpy(task.labels))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
                optimizer.step()
                schedule.step()
                average.update()
                total += float(loss.detach()) * len(task.labels)
                labels += len(task.labels)
                tokens += int(np.count_nonzero(batch))
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"the loss stopped being a number in epoch {epoch}; lower train.learning_rate = "
                    f"{settings.learning_rate} or set train.precision = 'fp32'"
                )
            seconds = time.perf_counter() - began
            entry: dict[str, Any] = {
                "epoch": epoch,
                "loss": total / labels,
                "seconds": seconds,
                "tokens_per_second": tokens / seconds,
                "learning_rate": schedule.get_last_lr()[0],
            }
            if epoch % settings.evaluate_every == 0 or epoch == settings.epochs:
                with average.applied():
                    metrics = validate(model)
                    entry |= metrics
                    if metrics[primary] > best_value:
                        best_value, best_epoch, since_best = metrics[primary], epoch, 0
                        best = copy.deepcopy(model.state_dict())
                    else:
                        since_best += 1
            history.append(entry)
            if on_epoch:
                on_epoch(entry)
            if since_best >= settings.patience:
                break
    model.load_state_dict(best)
    return Training(weights=best, best_epoch=best_epoch, epochs=len(history), history=history)


def use_bf16(precision: str) -> bool:
    """Whether products run in bf16: asked for, or left to us and the processor multiplies bf16 natively."""
    return native_bf16() if precision == "auto" else precision == "bf16"


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only: not on biases, norms or vectors."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _rate(steps: int, warmup_share: float) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then cosine decay to a tenth."""
    warmup = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))

    return factor


class _Average:
    """Moving average of the weights; with decay 0 the weights themselves."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.shadow = [p.detach().clone() for p in model.parameters()] if decay else []

    def update(self) -> None:
        if self.shadow:
            torch._foreach_lerp_(self.shadow, [p.detach() for p in self.model.parameters()], 1 - self.decay)

    def applied(self) -> _Swap:
        return _Swap(list(self.model.parameters()), self.shadow)


class _Swap:
    """Puts other values into parameters for the length of a `with` block."""

    def __init__(self, parameters: list[Any], values: list[Tensor]) -> None:
        self.parameters, self.values = parameters, values

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *_: object) -> None:
        self._exchange()

    def _exchange(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=False):
            kept = parameter.data.clone()
            parameter.data.copy_(value)
            value.copy_(kept)
