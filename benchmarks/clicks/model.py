"""Click prediction on MovieLens-1M: the network, its training and its measures."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from clicks.data import FEATURES, WIDTH, Job, prepared, rows_of, split
from torch import Tensor, nn
from torch.nn import functional

from recsys.features.collisions import angle, overlap, projections
from recsys.features.multiplexed import FeatureBatch
from recsys.features.precision import native_bf16
from recsys.features.rowwise import RowWiseAdagrad
from recsys.features.tables import MultiplexedTable


class DeepCross(nn.Module):
    """DCN-V2 (Wang et al., 2021): a cross layer of full rank, a dense layer, one logit."""

    def __init__(self, width: int, hidden: int = 192) -> None:
        super().__init__()
        self.cross, self.dense, self.logit = nn.Linear(width, width), nn.Linear(width, hidden), nn.Linear(hidden, 1)
        for linear in (self.cross, self.dense, self.logit):
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width] to [B]."""
        x = x * self.cross(x) + x
        return self.logit(functional.relu(self.dense(x))).squeeze(1)


class Aligned(nn.Module):
    """One vector of weights a feature, all equal at first: the worst start for telling features apart."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(functional.normalize(torch.randn(1, width)).repeat(features, 1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, features * width] to [B]."""
        return x @ self.weight.flatten() + self.bias

    def mean_angle(self) -> float:
        """Mean angle of every two features' weights, degrees."""
        weights = self.weight.detach().float()
        return mean(angle(a, b) for i, a in enumerate(weights) for b in weights[:i])


class Model(nn.Module):
    """A table of an arm's rows under the head."""

    def __init__(self, job: Job, rows: int, batch: FeatureBatch) -> None:
        super().__init__()
        self.table = MultiplexedTable(rows, WIDTH[job.data] // job.lookups, spread=0.05, sparse=True)
        width, features = WIDTH[job.data], len(FEATURES[job.data])
        self.head = Aligned(features, width) if job.aligned else DeepCross(width * features)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits [B]."""
        vectors = self.table.single(batch.values)
        bags = (len(batch.offsets) - 1) // len(batch)
        if bags:
            pooled = self.table.reduce(batch.bags, batch.offsets, "mean").view(bags, len(batch), -1)
            vectors = torch.cat([vectors, pooled.transpose(0, 1).flatten(1)], 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
            return self.head(vectors).float()


def fit(job: Job, folder: Path) -> dict[str, Any]:
    """Train one arm; its measures on test in the epoch that is best on validation."""
    began = time.perf_counter()
    data = prepared(folder, job.data)
    batch, rows = rows_of(job, data.features, data.texts)
    training, validation, test = split(len(batch), job.split, job.share)
    torch.manual_seed(job.seed)
    model = Model(job, rows, batch)
    averaged = copy.deepcopy(model)
    head = averaged.head
    pairs = [(a.detach(), p.detach()) for a, p in zip(averaged.parameters(), model.parameters(), strict=True)]
    optimizers = [
        RowWiseAdagrad(model.table.parameters(), job.table_rate, weight_decay=job.table_decay),
        torch.optim.Adam(model.head.parameters(), job.head_rate, fused=True),
    ]
    best: dict[str, float] = {"validation": 0.0}
    steps, since = 0, 0
    for epoch in range(1, job.epochs + 1):
        for chosen in training[torch.randperm(len(training))].split(job.batch):
            logits = model(batch.take(chosen))
            functional.binary_cross_entropy_with_logits(logits, data.labels[chosen]).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            steps += 1
            share = (job.average + 1) / (steps + job.average)  # of the newest weights in their average
            torch._foreach_lerp_([a for a, _ in pairs], [p for _, p in pairs], share)
        auc, _ = measures(averaged, batch, data.labels, validation)
        if auc > best["validation"]:
            on_test, loss = measures(averaged, batch, data.labels, test)
            best, since = {"validation": auc, "auc": on_test, "log_loss": loss, "epoch": epoch}, 0
            best |= {"angle": head.mean_angle()} if job.aligned else {"overlap": mean_overlap(head.cross.weight, job)}
        else:
            since += 1
        if since >= job.patience:
            break
    return best | {
        "rows": rows,
        "bytes": averaged.table.weight.nbytes,
        "seconds": time.perf_counter() - began,
    }


@torch.no_grad()
def measures(model: Model, batch: FeatureBatch, labels: Tensor, rows: Tensor) -> tuple[float, float]:
    """AUC and log loss."""
    logits = torch.cat([model(batch.take(part)) for part in rows.split(8192)])
    return area(logits, labels[rows]), float(functional.binary_cross_entropy_with_logits(logits, labels[rows]))


def area(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve: the share of pairs in the right order, ties counting half."""
    _, inverse, counts = scores.double().unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0).double() - (counts - 1) / 2)[inverse]  # 1..N, means over ties
    positives = labels > 0.5
    p, n = int(positives.sum()), int((~positives).sum())
    return float((ranks[positives].sum() - p * (p + 1) / 2) / (p * n))


def mean_overlap(weight: Tensor, job: Job) -> float:
    """Mean overlap of the cross layer's projections of two features; independent ones have 1 / sqrt(width)."""
    width = WIDTH[job.data]
    columns = {str(i): slice(i * width, (i + 1) * width) for i in range(weight.shape[1] // width)}
    parts = list(projections(weight, columns).values())
    return mean(overlap(a, b) for i, a in enumerate(parts) for b in parts[:i])
