from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.columns import PADDING
from recsys.models.sequential.batches import batches, windows
from recsys.models.sequential.bert4rec import MASK, inference_input, pad_left
from recsys.models.sequential.objectives import cloze, cut_at_random, next_items

lengths = st.lists(st.integers(1, 30), min_size=1, max_size=20)


def padded(row_lengths: list[int]) -> np.ndarray:
    items = np.arange(1, sum(row_lengths) + 1, dtype=np.int32)
    ends = np.cumsum(row_lengths)
    return pad_left(items, ends - row_lengths, ends)


@given(lengths, st.integers(0, 2**32), st.floats(0.05, 0.9), st.floats(0, 1))
def test_cloze_hides_the_right_number_and_labels_what_stood_there(
    row_lengths: list[int], seed: int, probability: float, last_share: float
) -> None:
    tokens = padded(row_lengths)
    task = cloze(
        tokens,
        np.random.default_rng(seed),
        mask_probability=probability,
        mask_last_share=last_share,
        last_weight=7.0,
    )
    assert task.wanted is not None and task.weights is not None
    for row, before in enumerate(tokens):
        whole = before[before != PADDING]
        asked = np.flatnonzero(task.labels[row])
        after = task.tokens[row].copy()
        places = task.wanted[row, asked]
        assert len(set(places)) == len(places)
        assert ((after == MASK).nonzero()[0] == np.sort(places)).all()
        after[places] = task.labels[row, asked]  # with the labels put back, the row is the history, or a start of it
        found = after[after != PADDING]
        assert (found == whole[: len(found)]).all()
        if task.weights[row, 0] == 7:
            assert places.tolist() == [tokens.shape[1] - 1] and len(found) >= min(2, len(whole))
        else:
            assert len(found) == len(whole)
            assert len(places) == max(1, np.rint(len(whole) * probability))


def test_every_event_but_the_first_is_cut_after_alike() -> None:
    tokens = padded([0] + [5] * 4000)[1:]
    ends = cut_at_random(tokens, np.random.default_rng(0))[:, -1]
    place = ends - tokens[:, 0]  # 0: the first event
    assert np.abs(np.bincount(place, minlength=5) / 4000 - [0, 0.25, 0.25, 0.25, 0.25]).max() < 0.03


def test_every_position_is_trained_both_ends_included() -> None:
    tokens = padded([10] * 2000)
    task = cloze(tokens, np.random.default_rng(0), mask_probability=0.2, mask_last_share=0.0)
    share = (task.tokens == MASK).mean(0)
    assert np.abs(share - 0.2).max() < 0.05


def test_histories_that_hide_their_last_item_end_at_any_event_but_the_first() -> None:
    """Otherwise only the newest event of each history would ever be asked for as serving asks."""
    tokens = padded([6] * 4000)
    task = cloze(tokens, np.random.default_rng(0), mask_probability=0.2, mask_last_share=1.0)
    assert (task.tokens[:, -1] == MASK).all() and ((task.tokens == MASK).sum(1) == 1).all()
    first = tokens[:, 0]
    asked = task.labels[:, 0] - first  # the place of the event, from 0
    assert np.abs(np.bincount(asked, minlength=6) / 4000 - [0, 0.2, 0.2, 0.2, 0.2, 0.2]).max() < 0.03
    for row in range(50):  # what stands before the question is what came before that event
        events = task.tokens[row][task.tokens[row] > 0]
        assert events.tolist() == list(range(first[row], first[row] + asked[row]))


def test_the_last_item_alone_is_hidden_in_its_share() -> None:
    tokens = padded([10] * 2000)
    task = cloze(tokens, np.random.default_rng(0), mask_probability=0.4, mask_last_share=0.3)
    alone = ((task.tokens == MASK).sum(1) == 1) & (task.tokens[:, -1] == MASK)
    assert abs(alone.mean() - 0.3) < 0.05


def test_the_next_item_is_asked_at_every_event_but_the_last() -> None:
    task = next_items(np.array([[0, 0, 7, 8], [1, 2, 3, 4]]))
    assert task.tokens.tolist() == [[0, 0, 7], [1, 2, 3]]
    assert task.labels.tolist() == [[0, 0, 8], [2, 3, 4]]
    assert task.wanted is None


@given(lengths, st.integers(2, 12))
def test_windows_cover_every_event_once_but_for_stumps(row_lengths: list[int], longest: int) -> None:
    offsets = np.cumsum([0, *row_lengths])
    starts, ends = windows(offsets, longest)
    covered = np.zeros(offsets[-1], dtype=int)
    for start, end in zip(starts, ends, strict=True):
        assert 2 <= end - start <= longest
        covered[start:end] += 1
    assert covered.max() <= 1
    for start, end in pairwise(offsets):
        missed = (end - start) - covered[start:end].sum()
        assert missed == (1 if (end - start) % longest == 1 else 0)  # a window of one event teaches nothing
        if end - start > 1:
            assert covered[end - 1] == 1


@given(st.integers(0, 2**32), st.integers(1, 9))
def test_an_epoch_holds_every_window_once(seed: int, batch_size: int) -> None:
    row_lengths = [2, 3, 9, 4, 4, 2, 7]
    items = np.arange(1, sum(row_lengths) + 1, dtype=np.int32)
    ends = np.cumsum(row_lengths)
    seen = [
        tuple(row[row != PADDING])
        for batch in batches(items, ends - row_lengths, ends, batch_size, np.random.default_rng(seed))
        for row in batch
    ]
    expected = [tuple(items[e - n : e]) for e, n in zip(ends, row_lengths, strict=True)]
    assert sorted(seen) == sorted(expected)


def test_inference_input_keeps_the_newest_and_appends_the_mask() -> None:
    items = np.array([1, 2, 3, 4, 5, 6], dtype=np.int32)
    offsets = np.array([0, 4, 5, 6, 6])
    tokens = inference_input(items, offsets, np.array([0, 1]), max_length=3)
    assert tokens.tolist() == [[3, 4, MASK], [PADDING, 5, MASK]]
    assert inference_input(items, offsets, np.array([3]), max_length=3).tolist() == [[MASK]]


def test_without_a_mask_the_newest_event_asks() -> None:
    items = np.array([1, 2, 3, 4, 5], dtype=np.int32)
    offsets = np.array([0, 4, 5, 5])
    tokens = inference_input(items, offsets, np.array([0, 1]), max_length=3, masked=False)
    assert tokens.tolist() == [[2, 3, 4], [PADDING, PADDING, 5]]
    assert inference_input(items, offsets, np.array([2]), max_length=3, masked=False).tolist() == [[PADDING]]
