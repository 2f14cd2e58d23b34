"""Products of int8 that are compared with a threshold while they are in registers: no score is written that fails it.

Processors with AVX-512 VNNI multiply 64 pairs of numbers in one instruction, `vpdpbusd`: 16 sums of four products each,
of unsigned and signed numbers. So 16 items lie side by side, four columns of each, and 128 is added to every one.
Importing this module compiles it, so ask `choice.in_registers` first: without the instruction LLVM ends the process.

Shapes: b users, a multiple of `USERS`; M items, a multiple of `ITEMS`; D columns, a multiple of 4, of which an int32
holds four; n items that a user has room for.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import int32, int64, types, uint32, uint64, void
from numba.core import cgutils
from numba.extending import intrinsic

from recsys.loops.compiled import _compiled

LANES: Final = 16  # int32 of a register
PARTS: Final = 2  # registers of items, and
USERS: Final = 8  # users whose products with them are summed at once: 16 sums of the 32 registers
ITEMS: Final = PARTS * LANES
SIGNS: Final = -0x7F7F7F80  # the highest bit of four int8: to exchange it adds 128 to each
SHIFT: Final = 128


@intrinsic
def _tile(typing: Any, items: Any, queries: Any, first: Any, least: Any, scores: Any, reached: Any) -> Any:
    """Multiply 32 items int32 [D / 4, 32] and the queries of 8 users from the first on, out of int32 [b, D / 4].

    Fills `scores` int32 [8, 32], and `reached` uint32 [8] with a bit for each item whose score is at least `least` [b].
    """

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        number = ir.IntType(32)
        vector = ir.VectorType(number, LANES)
        kinds = signature.args
        arrays = [context.make_array(kinds[one])(context, builder, given[one]) for one in (0, 1, 3, 4, 5)]
        tile, asked, floor, out, bits = (array.data for array in arrays)
        tile, out = (builder.bitcast(place, vector.as_pointer()) for place in (tile, out))
        width = cgutils.unpack_tuple(builder, arrays[1].shape, 2)[1]
        index = width.type
        multiply = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), "llvm.x86.avx512.vpdpbusd.512"
        )

        def every(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, number(0))
            mask = ir.Constant(vector, [0] * LANES)
            return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

        users = [builder.add(builder.trunc(given[2], index), index(user)) for user in range(USERS)]
        own = [builder.gep(asked, [builder.mul(user, width)]) for user in users]
        zero = ir.Constant(vector, [0] * LANES)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(PARTS)] for _ in users]
        for of_user in sums:
            for total in of_user:
                builder.store(zero, total)
        with cgutils.for_range(builder, width) as loop:
            start = builder.mul(loop.index, index(PARTS))
            parts = [
                builder.load(builder.gep(tile, [builder.add(start, index(part))]), align=4) for part in range(PARTS)
            ]
            for query, of_user in zip(own, sums, strict=True):
                four = every(builder.load(builder.gep(query, [loop.index])))
                for part, total in zip(parts, of_user, strict=True):
                    builder.store(builder.call(multiply, [builder.load(total), part, four]), total)
        for place, (user, of_user) in enumerate(zip(users, sums, strict=True)):
            threshold, mask = every(builder.load(builder.gep(floor, [user]))), number(0)
            for part, total in enumerate(of_user):
                found = builder.load(total)
                builder.store(found, builder.gep(out, [index(place * PARTS + part)]), align=4)
                passes = builder.icmp_signed(">=", found, threshold)
                some = builder.zext(builder.bitcast(passes, ir.IntType(LANES)), number)
                mask = builder.or_(mask, builder.shl(some, number(part * LANES)))
            builder.store(mask, builder.gep(bits, [index(place)]))
        return context.get_dummy_value()

    return types.void(items, queries, first, least, scores, reached), code


@intrinsic
def _lowest(typing: Any, mask: Any) -> Any:
    """Return the place of the lowest bit of uint32 that is set."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.cttz(given[0], ir.Constant(ir.IntType(1), True))

    return types.uint32(types.uint32), code


@_compiled(void(int32[:, ::1], int32[:, ::1], int32[::1], int32[::1], int32[:, ::1], int32[:, ::1], int64[::1]))
def compare(rows, queries, least, shifts, places, found, counts):  # type: ignore[no-untyped-def]
    """Add to each user's places and scores the items whose product with the query reaches his threshold.

    Parameters
    ----------
    rows, queries
        int8 [M, D] and [b, D], four to an int32.
    least, shifts
        int32 [b] thresholds of products to which `SHIFT` times the sum of the query, `shifts`, was added.
    places, found, counts
        As `collected.collect` fills them; scores are without what was added.
    """
    size, width, users, room = len(rows), rows.shape[1], len(queries), places.shape[1]
    tile = np.empty((width, ITEMS), dtype=np.int32)
    scores, reached = np.empty((USERS, ITEMS), dtype=np.int32), np.empty(USERS, dtype=np.uint32)
    for start in range(uint64(0), uint64(size), uint64(ITEMS)):
        for item in range(uint64(ITEMS)):
            for column in range(uint64(width)):
                tile[column, item] = rows[start + item, column] ^ int32(SIGNS)
        for first in range(uint64(0), uint64(users), uint64(USERS)):
            _tile(tile, queries, first, least, scores, reached)
            for own in range(uint64(USERS)):
                mask = reached[own]
                if mask == uint32(0):
                    continue
                user = first + own
                count, shift = uint64(counts[user]), shifts[user]
                if count + uint64(ITEMS) > uint64(room):
                    counts[user] = room + 1  # too many
                    continue
                while mask:
                    item = uint64(_lowest(mask))
                    mask &= mask - uint32(1)
                    places[user, count] = start + item
                    found[user, count] = scores[own, item] - shift
                    count += uint64(1)
                counts[user] = count
