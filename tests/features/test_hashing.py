from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.hashing import MISSING, PADDING, cross_hashes, hash_values, lookup_rows


def splitmix_finaliser(bits: int) -> int:
    """The published finaliser in plain integers, the reference for the int64 tensors."""
    full = (1 << 64) - 1
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & full
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & full
    return bits ^ (bits >> 31)


@given(st.text(), st.integers(1, 10**6))
def test_rows_follow_the_published_hashes(value: str, rows: int) -> None:
    def unsigned(text: str) -> int:
        return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")

    looked_up = lookup_rows(torch.from_numpy(hash_values([value])), "colour", 2, rows)[0].tolist()
    for lookup, row in enumerate(looked_up):
        mixed = splitmix_finaliser(unsigned(value) ^ unsigned(f"colour\x00{lookup}"))
        assert row == (mixed & ((1 << 63) - 1)) % rows


def test_rows_are_the_same_in_another_process() -> None:
    code = (
        "import torch; from recsys.features.hashing import *;"
        "h = torch.from_numpy(hash_values(['a', 7, None]));"
        "print(lookup_rows(h, 'f', 3, 1000).tolist(), cross_hashes([h, h.flip(0)]).tolist())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    hashes = torch.from_numpy(hash_values(["a", 7, None]))
    here = f"{lookup_rows(hashes, 'f', 3, 1000).tolist()} {cross_hashes([hashes, hashes.flip(0)]).tolist()}"
    assert there == here


def test_a_number_and_its_text_are_one_value_and_missing_is_another() -> None:
    hashes = hash_values([7, "7", None, MISSING, ""])
    assert hashes[0] == hashes[1]
    assert hashes[2] == hashes[3] != hashes[4]
    assert PADDING not in hashes


def test_features_and_lookups_collide_no_more_than_chance() -> None:
    rows, values = 1024, 20_000
    hashes = torch.from_numpy(hash_values(range(values)))
    a, b = lookup_rows(hashes, "a", 2, rows), lookup_rows(hashes, "b", 1, rows)
    for left, right in ((a[:, 0], b[:, 0]), (a[:, 0], a[:, 1])):
        same = (left == right).double().mean().item()
        assert abs(same - 1 / rows) < 5 * (1 / rows / values) ** 0.5
    used = torch.bincount(a[:, 0], minlength=rows).double()
    # a fair spread: chi-square over the rows stays near its mean, rows - 1
    chi_square = ((used - values / rows) ** 2 / (values / rows)).sum().item()
    assert abs(chi_square - (rows - 1)) < 5 * (2 * (rows - 1)) ** 0.5


def test_padding_has_the_row_behind_the_last() -> None:
    hashes = torch.tensor([[PADDING, 5], [6, PADDING]])
    rows = lookup_rows(hashes, "f", 2, 10)
    assert rows.shape == (2, 2, 2)
    assert (rows == 10).all(-1).tolist() == [[True, False], [False, True]]
    assert (rows[hashes != PADDING] < 10).all()


def test_crossed_values_differ_by_every_part_and_by_their_order() -> None:
    many = torch.from_numpy(hash_values(range(300)))
    left, right = many.repeat_interleave(300), many.repeat(300)
    crossed = cross_hashes([left, right])
    assert len(crossed.unique()) == 300 * 300  # (a, b) and (b, a) included
    assert len(np.intersect1d(crossed.numpy(), many.numpy())) == 0
    assert cross_hashes([many[:1], torch.tensor([PADDING])]).tolist() == [PADDING]


@pytest.mark.parametrize(("lookups", "rows"), [(0, 10), (9, 10), (1, 0)])
def test_out_of_range_names_the_feature(lookups: int, rows: int) -> None:
    with pytest.raises(ValueError, match="'brand'"):
        lookup_rows(torch.zeros(1, dtype=torch.int64), "brand", lookups, rows)
