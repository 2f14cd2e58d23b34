"""What Recformer reads of a history, against results worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.features.tokens import FILL, FIRST, NAME, VALUE, ItemTokens
from recsys.models.recformer.inputs import Limits, groups, read, token_lengths

# item 1: 10 11, item 2: 20, item 3: 30 31 32, item 4 has no text
CATALOGUE = ItemTokens(
    tokens=np.array([10, 11, 20, 30, 31, 32], dtype=np.int32),
    types=np.array([NAME, VALUE, VALUE, NAME, VALUE, VALUE], dtype=np.uint8),
    offsets=np.array([0, 0, 2, 3, 6, 6]),
)
LIMITS = Limits(items=3, tokens=8, first=1, padding=0)


def ask(*histories: list[int], limits: Limits = LIMITS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes = np.array([code for history in histories for code in history], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, histories)])
    return codes, offsets[:-1], offsets[1:]


def test_the_newest_item_comes_first_with_its_own_number() -> None:
    given = read(CATALOGUE, *ask([1, 2, 3]), LIMITS)
    assert given.tokens.tolist() == [[1, 30, 31, 32, 20, 10, 11]]
    assert given.types.tolist() == [[FIRST, NAME, VALUE, VALUE, VALUE, NAME, VALUE]]
    assert given.items.tolist() == [[0, 1, 1, 1, 2, 3, 3]]
    assert given.lengths.tolist() == [7]


def test_what_does_not_fit_is_the_oldest() -> None:
    few = replace(LIMITS, items=2)
    assert read(CATALOGUE, *ask([1, 2, 3]), few).tokens.tolist() == [[1, 30, 31, 32, 20]]
    short = replace(LIMITS, tokens=6)
    assert read(CATALOGUE, *ask([1, 2, 3]), short).tokens.tolist() == [[1, 30, 31, 32, 20, 10]]
    shorter = replace(LIMITS, tokens=3)
    assert read(CATALOGUE, *ask([1, 2, 3]), shorter).tokens.tolist() == [[1, 30, 31]]


def test_padding_is_on_the_right_and_has_its_own_ids() -> None:
    given = read(CATALOGUE, *ask([2], [1, 2, 3], []), LIMITS)
    assert given.tokens[0].tolist() == [1, 20, 0, 0, 0, 0, 0]
    assert given.types[0].tolist() == [FIRST, VALUE, *[FILL] * 5]
    assert given.items[0].tolist() == [0, 1, *[LIMITS.items] * 5]
    assert given.tokens[2].tolist() == [1, 0, 0, 0, 0, 0, 0]  # no history: the first token alone
    assert given.lengths.tolist() == [2, 7, 1]


def test_an_item_without_text_takes_its_place_and_no_token() -> None:
    given = read(CATALOGUE, *ask([2, 4, 1]), LIMITS)
    assert given.tokens.tolist() == [[1, 10, 11, 20]]
    assert given.items.tolist() == [[0, 1, 1, 3]]


def test_attributes_in_another_order_move_tokens_and_not_items() -> None:
    swapped = ItemTokens(
        tokens=np.array([11, 10, 20, 32, 30, 31], dtype=np.int32),
        types=CATALOGUE.types,
        offsets=CATALOGUE.offsets,
    )
    one, other = (read(catalogue, *ask([1, 2, 3]), LIMITS) for catalogue in (CATALOGUE, swapped))
    assert one.tokens.tolist() != other.tokens.tolist()
    assert sorted(one.tokens.ravel()) == sorted(other.tokens.ravel())
    assert (one.items == other.items).all()


def test_lengths_are_known_before_anything_is_read() -> None:
    generator = np.random.default_rng(0)
    histories = [list(generator.integers(1, 5, generator.integers(0, 7))) for _ in range(40)]
    for limits in (LIMITS, replace(LIMITS, tokens=4), replace(LIMITS, items=1)):
        arguments = ask(*histories)
        assert (token_lengths(CATALOGUE, *arguments, limits) == read(CATALOGUE, *arguments, limits).lengths).all()


def test_a_width_can_be_a_multiple_that_padding_fills() -> None:
    arguments = ask([1, 2, 3], [1])
    plain, wide = read(CATALOGUE, *arguments, LIMITS), read(CATALOGUE, *arguments, LIMITS, multiple=16)
    width = plain.tokens.shape[1]
    assert wide.tokens.shape[1] == 16 > width
    for name in ("tokens", "types", "places", "items"):
        assert (getattr(wide, name)[:, :width] == getattr(plain, name)).all()
    assert (wide.tokens[:, width:] == LIMITS.padding).all() and (wide.lengths == plain.lengths).all()


def test_every_history_is_in_one_group_of_like_length_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 200)
    for filled in (0.25, 0.75, 1.0):
        parts = list(groups(lengths, 120, filled))
        assert sorted(np.concatenate(parts)) == list(range(200))
        for part in parts:
            longest, shortest = lengths[part].max(), lengths[part].min()
            assert len(part) == 1 or len(part) * longest <= 120
            assert shortest >= int(filled * longest)
    assert [part.tolist() for part in groups(np.array([500]), 120, 0.75)] == [[0]]  # one always goes
    assert list(groups(np.zeros(0, dtype=np.int64), 120, 1.0)) == []
