"""Attention and copies meant for accelerators, on the processor that tests have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import recsys.features.device
from recsys.features.device import fused_attention, sent


def test_attention_is_the_one_of_the_definition() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 5, 4)
    mask = torch.zeros(2, 1, 5, 5).masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
    expected = torch.softmax(q @ k.transpose(-1, -2) * 0.7 + mask, dim=-1) @ v
    torch.testing.assert_close(fused_attention(q, k, v, mask, scale=0.7), expected)


def test_no_kernel_is_planned_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def attention(q: Any, *_: Any, **__: Any) -> Any:
        seen.append((torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()))
        return q

    before = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(recsys.features.device, "scaled_dot_product_attention", attention)
    on_accelerator: Any = SimpleNamespace(is_cuda=True)
    fused_attention(on_accelerator, on_accelerator, on_accelerator, None)
    assert seen == [(False, True)] and torch.backends.cuda.cudnn_sdp_enabled() == before


def test_values_for_the_processor_stay_where_they_are() -> None:
    values = torch.arange(3)
    assert sent(values, torch.device("cpu")) is values
