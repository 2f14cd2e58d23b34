from __future__ import annotations

import torch
from torch.nn import functional

from recsys.models.sequential.recency import STEP, RecencyQuery
from recsys.settings import ModelSettings

SETTINGS = ModelSettings(
    dimensions=8, heads=2, max_length=6, objective="next-item", recency_mean=True, temperature=0.1, dropout=0.5
)


def test_it_begins_with_seven_tenths_a_step_back() -> None:
    items = torch.zeros(1, 4, 8)
    items[0, 1:, :2] = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # the first position is padding
    query, states = RecencyQuery(SETTINGS), torch.randn(1, 4, 8)  # what the encoder says does not count yet
    expected = functional.normalize(torch.tensor([[0.0, 0], [1, 0], [0.7, 1], [0.49 + 1, 0.7 + 1]]), dim=-1)
    torch.testing.assert_close(query(items, None, states)[0, :, :2].detach(), expected)
    wanted = torch.tensor([[3, 1]])
    torch.testing.assert_close(query(items, wanted, states[:, :2])[0, :, :2].detach(), expected[[3, 1]])


def test_a_step_of_the_optimizer_moves_the_weights_thirty_times_as_far_as_a_map() -> None:
    items, query = torch.randn(1, 3, 8), RecencyQuery(SETTINGS).eval()
    query(items, None, None)[0, 2, 0].backward()
    before = STEP * query.by_steps.detach().clone()
    torch.optim.Adam(query.parameters(), lr=0.001).step()
    moved = (STEP * query.by_steps.detach() - before).abs()
    torch.testing.assert_close(moved, torch.tensor([0.03, 0.03, 0.03, 0, 0, 0]))  # the history has three events
    torch.testing.assert_close(query.after_mean.weight.abs().max().item(), 0.001)


def test_its_maps_read_the_mean_and_the_newest_item() -> None:
    items, query = torch.zeros(1, 3, 8), RecencyQuery(SETTINGS).eval()
    items[0, [0, 1, 2], [0, 1, 2]] = 1  # three items, a dimension each
    with torch.no_grad():
        query.after_mean.weight[3, 0] = 1  # what has the oldest in its mean asks for dimension 3
        query.after_newest.weight[4, 2] = 1  # what has the last as its newest asks for dimension 4
        found = query(items, None, torch.zeros(1, 3, 8))[0]
    mean = functional.normalize(torch.tensor([[1.0, 0, 0], [0.7, 1, 0], [0.49, 0.7, 1]]), dim=-1)
    torch.testing.assert_close(found[:, 3], mean[:, 0])
    assert found[:, 4].tolist() == [0, 0, 1]
