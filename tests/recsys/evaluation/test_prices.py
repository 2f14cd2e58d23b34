"""The price of a rule by hand: gains, the paired difference, rows that move, baskets."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.splits import HeldOut
from recsys.evaluation.prices import compared
from tests.recsys.rules.shops import histories_of


def held_out(targets: list[int], others: list[list[int]] | None = None) -> HeldOut:
    histories = histories_of(*[[9]] * len(targets))
    rest = None if others is None else histories_of(*others)
    return HeldOut(histories=histories, targets=np.array(targets, dtype=np.int32), others=rest)


def test_a_price_is_the_paired_difference_of_the_lists() -> None:
    with_rule = np.array([[1, 2, 3], [4, 5, 0], [7, 8, 9]])
    without = np.array([[2, 1, 3], [4, 5, 6], [7, 8, 9]])
    found = compared(with_rule, without, held_out([2, 6, 0]), np.arange(3), 0)
    ndcg, hr = found["ndcg_at_10"], found["hr_at_10"]
    second, third = 1 / np.log2(3), 1 / 2
    assert ndcg["with"] == pytest.approx(second / 3) and ndcg["without"] == pytest.approx((1 + third) / 3)
    assert ndcg["difference"] == pytest.approx((second - 1 - third) / 3)
    assert (hr["with"], hr["without"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert ndcg["low"] <= ndcg["difference"] <= ndcg["high"] <= 0
    assert (found["moved"], found["rows"]) == (3, 9)


def test_lists_of_other_lengths_and_a_baskets_other_items() -> None:
    found = compared(np.array([[1, 2]]), np.array([[3, 4, 1]]), held_out([1], [[3, 4, 1]]), np.zeros(1, int), 0)
    assert found["ndcg_at_10"]["with"] == found["ndcg_at_10"]["without"] == 1.0  # 3 and 4 came at once with 1
    assert (found["moved"], found["rows"]) == (3, 3)
