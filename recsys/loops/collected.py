"""The inner loops of a search by whole numbers, compiled: what reaches a threshold, out of scores in the cache.

Shapes: b users of a block, m items, n items that a user has room for, k wanted.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import float64, int32, int64, uint64, void

from recsys.loops.compiled import _F8, _I8, _compiled

WIDE: Final = 64  # scores that are looked through at once; most hold nothing, and counting takes no branch
NARROW: Final = 16
NONE: Final = -(2**31)  # below the score of every item
BINS: Final = 256  # of scores of a user
ROUNDED: Final = 2.0**-22  # of a score, four times what rounding it to float32 takes


@_compiled(void(int32[:, ::1], int32[::1], int64, int32[:, ::1], int32[:, ::1], int64[::1]))
def collect(scores, least, first, places, found, counts):  # type: ignore[no-untyped-def]
    """Add to each user's places and scores what reaches his threshold.

    Parameters
    ----------
    scores
        int32 [b, m] of the items from place `first` on; m is a multiple of `WIDE`.
    least
        int32 [b] thresholds.
    places, found
        int32 [b, n], filled up to `counts`.
    counts
        int64 [b]: what reached it so far, also beyond n.
    """
    users, width, room = uint64(scores.shape[0]), uint64(scores.shape[1]), uint64(places.shape[1])
    for user in range(users):
        threshold, count = least[user], uint64(counts[user])
        for start in range(uint64(0), width, uint64(WIDE)):
            reached = int32(0)
            for place in range(uint64(WIDE)):
                reached += int32(scores[user, start + place] >= threshold)
            if reached == 0:
                continue
            for part in range(start, start + uint64(WIDE), uint64(NARROW)):
                reached = int32(0)
                for place in range(uint64(NARROW)):
                    reached += int32(scores[user, part + place] >= threshold)
                if reached == 0:
                    continue
                if count + NARROW > room:
                    count = max(room, count) + uint64(1)  # too many
                    continue
                for place in range(part, part + uint64(NARROW)):  # no branch: what does not reach it is overwritten
                    places[user, count] = first + int64(place)
                    found[user, count] = scores[user, place]
                    count += uint64(scores[user, place] >= threshold)
        counts[user] = count


@_compiled(void(int32[::1], int32))
def _replace(heap, value):  # type: ignore[no-untyped-def]
    """Put a value in place of the smallest, which is the root of a heap."""
    root, size = 0, len(heap)
    while 2 * root + 1 < size:
        child = 2 * root + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if value <= heap[child]:
            break
        heap[root] = heap[child]
        root = child
    heap[root] = value


@_compiled(void(int32[:, ::1], int64, int32[::1]))
def ranked(scores, rank, found):  # type: ignore[no-untyped-def]
    """Fill int32 [b] with the score of each user of this rank, from 1, out of scores [b, m]."""
    width = uint64(scores.shape[1])
    heap = np.empty(rank, dtype=np.int32)
    for user in range(uint64(scores.shape[0])):
        heap[:] = NONE
        for start in range(uint64(0), width, uint64(WIDE)):
            stop, least, reached = min(start + uint64(WIDE), width), heap[0], int32(0)
            for place in range(start, stop):
                reached += int32(scores[user, place] > least)
            if reached == 0:
                continue
            for place in range(start, stop):
                if scores[user, place] > heap[0]:
                    _replace(heap, scores[user, place])
        found[user] = heap[0]


@_compiled(void(int32[:, ::1], int32[:, ::1], int64[::1], _I8, _I8, int64, int64, int32[::1], _F8, int64[::1]))
def settle(places, scores, counts, hidden, bounds, size, k, guess, margin, kept):  # type: ignore[no-untyped-def]
    """Leave of what was collected the items that may be among the k best of each user.

    Parameters
    ----------
    places, scores, counts
        As `collect` filled them; `places` [b, n] begin with those that are left, ascending, afterwards.
    hidden, bounds
        int64 ascending keys `row * size + place` of pairs that may not be found, and [b + 1] where each user's begin.
    size
        M; places from there on are no items.
    guess
        int32 [b]: whoever has fewer than k items from it on was asked for too much.
    margin
        float64 [b]: how much less than an item's a score may be whose item is as good.
    kept
        int64 [b]: receives how many are left; -1 where that is not known.
    """
    room, bins = places.shape[1], np.empty(BINS, dtype=np.int32)
    for user in range(len(counts)):
        kept[user] = -1
        if counts[user] > room:
            continue
        out, stop, count, above = bounds[user], bounds[user + 1], uint64(0), 0
        lowest, highest = int64(2**31), int64(NONE)
        for column in range(uint64(counts[user])):
            place, score = places[user, column], int64(scores[user, column])
            key = user * size + place
            while out < stop and hidden[out] < key:
                out += 1
            if place >= size or (out < stop and hidden[out] == key):
                continue
            places[user, count], scores[user, count] = place, score
            count += uint64(1)
            above += int64(score >= guess[user])
            lowest, highest = min(lowest, score), max(highest, score)
        if above < k:
            continue
        # a score that k items reach, most likely a little below that of the last of them: the foot of its bin
        wide = uint64((highest - lowest) // BINS + 1)
        bins[:] = 0
        for column in range(count):
            bins[uint64(int64(scores[user, column]) - lowest) // wide] += 1
        place, reached = BINS, 0
        while reached < k:
            place -= 1
            reached += bins[place]
        foot = float64(max(lowest + place * int64(wide), int64(guess[user])))
        least = max(np.floor(foot - margin[user] - ROUNDED * abs(foot)) - 1, float64(NONE + 1))
        left = uint64(0)
        for column in range(count):
            places[user, left] = places[user, column]
            left += uint64(scores[user, column] >= least)
        kept[user] = left
