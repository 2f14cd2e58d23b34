from __future__ import annotations

import numpy as np
import torch

from recsys.models.recency import RecencySum


def test_it_begins_with_seven_tenths_a_step_back() -> None:
    items = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])  # the first position is padding
    found = RecencySum(6)(items, None)[0].detach()
    expected = [[0, 0], [1, 0], [0.7, 1], [0.49 + 1, 0.7 + 1]]
    assert np.allclose(found, expected, atol=1e-6)
    wanted = torch.tensor([[3, 1]])
    assert np.allclose(RecencySum(6)(items, wanted)[0].detach(), [expected[3], expected[1]], atol=1e-6)
