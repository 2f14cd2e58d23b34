from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.rows import read_rows, sum_by_row, write_rows
from recsys.features.rowwise import RowWiseAdagrad
from recsys.features.tables import MultiplexedTable


def reference(weight: np.ndarray, steps: list[tuple[np.ndarray, np.ndarray]], lr: float, decay: float) -> np.ndarray:
    """Row-wise Adagrad by its definition, a row at a time."""
    weight, sums = weight.astype(np.float64), np.zeros(len(weight))
    for rows, values in steps:
        for row in np.unique(rows):
            gradient = values[rows == row].sum(0) + decay * weight[row]
            sums[row] += (gradient**2).mean()
            weight[row] -= lr * gradient / (np.sqrt(sums[row]) + 1e-8)
    return weight


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_optimizer_is_the_reference(sparse: bool, decay: float) -> None:
    rng = np.random.default_rng(0)
    steps = [(rng.integers(0, 20, 60), rng.normal(size=(60, 5)).astype(np.float32)) for _ in range(6)]
    table = MultiplexedTable(30, 5, sparse=sparse)
    start = table.weight.detach().numpy().copy()
    optimizer = RowWiseAdagrad(table.parameters(), lr=0.1, weight_decay=decay)
    for rows, values in steps:
        table.gather(torch.from_numpy(rows)).backward(torch.from_numpy(values))
        optimizer.step()
        optimizer.zero_grad()
    assert table.weight.detach().numpy() == pytest.approx(reference(start, steps, 0.1, decay), abs=1e-5)
    assert (table.weight.detach().numpy()[20:] == start[20:]).all()  # never looked up, never changed
    assert optimizer.state[table.weight]["sum"].shape == (30,)  # one float a row


def test_gathers_and_bags_of_one_step_add_up() -> None:
    results = []
    for sparse in (True, False):
        torch.manual_seed(0)
        table = MultiplexedTable(12, 4, sparse=sparse)
        optimizer = RowWiseAdagrad(table.parameters(), lr=0.1)
        rows = torch.tensor([1, 5, 1, 11])
        loss = table.gather(rows).square().sum() + table.reduce(rows, torch.tensor([0, 3, 4])).sum()
        loss.backward()
        optimizer.step()
        results.append(table.weight.detach())
    assert torch.allclose(*results)


def test_its_state_can_be_saved() -> None:
    def stepped(times: int, saved: dict | None, weight: torch.Tensor) -> tuple[torch.Tensor, dict]:
        table = MultiplexedTable(6, 2, sparse=True)
        with torch.no_grad():
            table.weight.copy_(weight)
        optimizer = RowWiseAdagrad(table.parameters(), lr=0.1)
        if saved:
            optimizer.load_state_dict(saved)
        for _ in range(times):
            table.gather(torch.tensor([0, 3, 3])).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return table.weight.detach().clone(), optimizer.state_dict()

    start = torch.arange(12.0).view(6, 2)
    half, saved = stepped(2, None, start)
    assert torch.equal(stepped(2, saved, half)[0], stepped(4, None, start)[0])


@given(st.lists(st.integers(0, 9), max_size=40))
def test_sums_by_row(rows: list[int]) -> None:
    values = torch.arange(len(rows) * 2.0).view(-1, 2)
    distinct, sums = sum_by_row(torch.tensor(rows, dtype=torch.int64), values, 10)
    assert distinct.tolist() == sorted(set(rows))
    dense = torch.zeros(10, 2)
    for row, value in zip(rows, values, strict=True):
        dense[row] += value
    assert torch.equal(sums, dense[distinct])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rows_are_read_and_written_as_torch_would(dtype: torch.dtype) -> None:
    matrix = torch.randn(50, 7).to(dtype)
    rows = torch.randperm(50)[:20]
    for of in (matrix, torch.randn(7, 50).to(dtype).t()):  # the second is not contiguous
        assert torch.equal(read_rows(of, rows), of[rows])
        assert torch.equal(read_rows(of, rows.int()), of[rows])
        values = torch.randn(20, 7).to(dtype)
        expected = of.clone()
        expected[rows] = values
        write_rows(of, rows, values)
        assert torch.equal(of, expected)
