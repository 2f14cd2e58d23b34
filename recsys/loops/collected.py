"""The inner loop of a search by whole numbers, compiled: what reaches a threshold, out of scores that lie in the cache.

Shapes: b users of a block, m items, n items that a user has room for.
"""

from __future__ import annotations

from typing import Final

from numba import int32, int64, uint64, void

from recsys.loops.compiled import _compiled

WIDE: Final = 64  # scores that are looked through at once; most hold nothing, and counting takes no branch
NARROW: Final = 16


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
    users, width, room = uint64(scores.shape[0]), uint64(scores.shape[1]), places.shape[1]
    for user in range(users):
        threshold, count = least[user], counts[user]
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
                for place in range(part, part + uint64(NARROW)):
                    if scores[user, place] >= threshold:
                        if count < room:
                            places[user, count] = first + int64(place)
                            found[user, count] = scores[user, place]
                        count += 1
        counts[user] = count
