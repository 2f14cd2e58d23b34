"""Ask the processor for memory before it is needed: vectors of items are all over the catalogue, and no processor
foresees which comes next."""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

AHEAD: Final = 8  # pairs: as long as memory takes
LINE: Final = 16  # float32 of a cache line


@intrinsic
def prefetch(typing: Any, table: Any, row: Any, column: Any) -> Any:
    """Begin to load the cache line of an entry of a table of two dimensions; changes no result."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, given[0])
        place = cgutils.get_item_pointer(context, builder, kind, array, list(given[1:]), wraparound=False)
        number = ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        read, every_cache, data = number(0), number(3), number(1)
        builder.call(function, [builder.bitcast(place, cgutils.voidptr_t), read, every_cache, data])
        return context.get_dummy_value()

    return types.void(table, row, column), code
