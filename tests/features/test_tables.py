from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.features.hashing import hash_values, lookup_rows
from recsys.features.tables import MultiplexedTable, ShardedTable, Table


def tables() -> list[Table]:
    """The same 10 rows of width 3: dense, sparse, in shards of 4, 4 and 2."""
    torch.manual_seed(0)
    dense = MultiplexedTable(10, 3)
    sparse = MultiplexedTable(10, 3, sparse=True)
    sharded = ShardedTable.of(10, 3, 3)
    with torch.no_grad():
        sparse.weight.copy_(dense.weight)
        for shard, part in zip(sharded.shards, dense.weight.split(4), strict=True):
            shard.weight.copy_(part)
    return [dense, sparse, sharded]


def gradient(table: Table) -> torch.Tensor:
    """Of all rows, dense [M, d]."""
    parts = [p.grad for p in table.parameters()]
    shapes = [p.shape for p in table.parameters()]
    filled = [torch.zeros(shape) if part is None else part for part, shape in zip(parts, shapes, strict=True)]
    return torch.cat([part.to_dense() for part in filled])


def test_single_concatenates_the_lookups() -> None:
    for table in tables():
        weight = tables()[0].weight
        looked_up = table.single(torch.tensor([[4, 7], [7, 0]]))
        assert torch.equal(looked_up, torch.stack([weight[[4, 7]].flatten(), weight[[7, 0]].flatten()]))
        assert table.single(torch.zeros(2, 5, 4, dtype=torch.int64)).shape == (2, 5, 12)
        assert table.single(torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 6)


def test_pooled_is_the_mean_of_the_bag_and_an_empty_bag_is_zero() -> None:
    for table in tables():
        weight = tables()[0].weight
        rows = torch.tensor([[1, 9], [2, 8], [5, 5]])
        pooled = table.pooled(rows, torch.tensor([0, 2, 2, 3]))
        assert torch.allclose(pooled[0], torch.cat([weight[[1, 2]].mean(0), weight[[9, 8]].mean(0)]))
        assert torch.equal(pooled[1], torch.zeros(6))
        assert torch.equal(pooled[2], weight[[5, 5]].flatten())
        summed = table.pooled(rows, torch.tensor([0, 2, 2, 3]), "sum")
        assert torch.allclose(summed[0], 2 * pooled[0])


def test_padding_is_zero_and_learns_nothing() -> None:
    for table in tables():
        rows = torch.tensor([[[3, 10], [10, 10]], [[10, 0], [3, 3]]])
        vectors = table.gather(rows)
        assert torch.equal((vectors == 0).all(-1), rows == 10)
        vectors.sum().backward()
        assert gradient(table)[:, 0].tolist() == [1, 0, 0, 3, 0, 0, 0, 0, 0, 0]
        for parameter in table.parameters():
            parameter.grad = None
        pooled = table.pooled(torch.tensor([[10], [4], [10], [10]]), torch.tensor([0, 2, 4]))
        assert torch.equal(pooled, torch.stack([tables()[0].weight[4], torch.zeros(3)]))
        pooled.sum().backward()
        assert gradient(table)[:, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_weighted_sums_and_their_gradients() -> None:
    rows, offsets = torch.tensor([1, 2, 1, 7]), torch.tensor([0, 3, 4])
    upstream = torch.arange(6.0).view(2, 3)
    found = []
    for table in tables():
        weights = torch.tensor([0.5, 2.0, 1.0, 3.0], requires_grad=True)
        table.reduce(rows, offsets, "sum", weights).backward(upstream)
        assert weights.grad is not None
        found.append((gradient(table), weights.grad))
    weight = tables()[0].weight
    assert torch.allclose(found[0][1], (weight[rows] * upstream[[0, 0, 0, 1]]).sum(1))
    assert torch.equal(found[0][0][1], 1.5 * upstream[0]) and torch.equal(found[0][0][7], 3 * upstream[1])
    for of_table, of_weights in found[1:]:
        assert torch.allclose(of_table, found[0][0]) and torch.allclose(of_weights, found[0][1])


def test_one_table_or_several_are_the_same() -> None:
    rows = torch.randint(0, 11, (50, 4), generator=torch.Generator().manual_seed(1))
    results = []
    for table in tables():
        vectors = table.single(rows)
        (vectors * torch.arange(12.0)).sum().backward()
        results.append((vectors.detach(), gradient(table)))
    for vectors, grads in results[1:]:
        assert torch.equal(vectors, results[0][0])
        assert torch.allclose(grads, results[0][1])


def test_rows_that_do_not_exist_are_refused() -> None:
    for table in tables():
        for row in (-1, 11):
            with pytest.raises(IndexError, match="in a table of 10"):
                table.gather(torch.tensor([row]))


def test_shards_must_fit_together() -> None:
    with pytest.raises(ValueError, match=r"widths \[3, 2\]"):
        ShardedTable([MultiplexedTable(4, 3), MultiplexedTable(4, 2)])
    with pytest.raises(ValueError, match=r"\[4, 3, 4\] rows; all must be equal, the last may be smaller"):
        ShardedTable([MultiplexedTable(rows, 2) for rows in (4, 3, 4)])
    with pytest.raises(ValueError, match="0 rows of width 3"):
        MultiplexedTable(0, 3)


def test_a_uniform_start_for_click_prediction() -> None:
    weight = MultiplexedTable(1000, 8, spread=0.05).weight.detach()
    assert weight.abs().max() <= 0.05 and weight.std() == pytest.approx(0.1 / 12**0.5, rel=0.05)


def test_parameters_do_not_depend_on_the_vocabulary() -> None:
    table = MultiplexedTable(rows=64, width=4)
    many = lookup_rows(torch.from_numpy(hash_values(range(10_000))), "id", 2, table.rows)
    assert table.single(many).shape == (10_000, 8)
    assert sum(p.numel() for p in table.parameters()) == 64 * 4
    assert np.unique(many.numpy()).size == 64
