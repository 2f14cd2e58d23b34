"""Arrays and frames as files that the system maps into memory: processes share their pages, and nobody can write.

Arrays are NumPy's `.npy`, frames Arrow's IPC without compression. Both are written piece by piece.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import polars as pl
import pyarrow as pa

from recsys.data.sequences import Sequences

ARRAY: Final = ".npy"
FRAME: Final = ".arrow"


class ArrayWriter:
    """Writes a flat array piece by piece; a context that ends with a whole file."""

    def __init__(self, path: Path, dtype: type) -> None:
        self._dtype, self._count = np.dtype(dtype), 0
        self._file = path.open("wb")
        self._write_header()

    def append(self, values: np.ndarray) -> None:
        """Add values [n] at the end."""
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self._count += len(values)

    def _write_header(self) -> None:
        # room for a longer count is left by the library, so that the header can be written again
        described = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, described)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self._file.seek(0)
            self._write_header()
        self._file.close()


class FrameWriter:
    """Writes frames of one schema one below the other; a context that ends with a whole file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows at the end; at least one frame must come, if only an empty one."""
        table = frame.to_arrow()
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._path), table.schema)
        self._writer.write_table(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def write_array(path: Path, values: np.ndarray) -> None:
    """Write one array."""
    with ArrayWriter(path, values.dtype.type) as writer:
        writer.append(values)


def read_array(path: Path) -> np.ndarray:
    """Map an array; nothing can be written into it."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except ValueError:  # nothing cannot be mapped
        values = np.load(path, allow_pickle=False)
        values.setflags(write=False)
        return values


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write one frame."""
    frame.write_ipc(path, compression="uncompressed")


def read_frame(path: Path) -> pl.DataFrame:
    """Map a frame."""
    with pa.memory_map(str(path)) as file:
        found = pl.from_arrow(pa.ipc.open_file(file).read_all())
    assert isinstance(found, pl.DataFrame)
    return found


class HistoriesWriter:
    """Writes the events of histories block by block: `NAME-items`, `NAME-offsets`, `NAME-times`, `NAME-context`."""

    def __init__(self, folder: Path, name: str, *, times: bool, context: bool) -> None:
        self._items = ArrayWriter(folder / f"{name}-items{ARRAY}", np.int32)
        self._offsets = ArrayWriter(folder / f"{name}-offsets{ARRAY}", np.int64)
        self._times = ArrayWriter(folder / f"{name}-times{ARRAY}", np.int64) if times else None
        self._context = FrameWriter(folder / f"{name}-context{FRAME}") if context else None
        self._offsets.append(np.zeros(1, dtype=np.int64))
        self._end = 0

    @staticmethod
    def others(name: str, *, times: bool, context: bool) -> list[str]:
        """Names of the files that do not depend on the codes of items."""
        return [f"{name}-offsets{ARRAY}", *[f"{name}-times{ARRAY}"] * times, *[f"{name}-context{FRAME}"] * context]

    def append(self, block: Sequences, items: np.ndarray | None = None, context: pl.DataFrame | None = None) -> None:
        """Add the histories of further users; `items` int32 [N] and `context` take the place of theirs."""
        self._items.append(block.items if items is None else items)
        self._offsets.append(block.offsets[1:] + self._end)
        self._end += int(block.offsets[-1])
        if self._times is not None:
            assert block.times is not None
            self._times.append(block.times)
        if self._context is not None:
            found = block.context if context is None else context
            assert found is not None
            self._context.append(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for writer in (self._items, self._offsets, self._times):
            if writer is not None:
                writer.__exit__(kind, error, at)
        if self._context is not None:
            self._context.__exit__()


def remove_times(folder: Path, name: str) -> None:
    """Take the times of written histories away: not every event has one."""
    (folder / f"{name}-times{ARRAY}").unlink()


def read_histories(folder: Path, name: str, users: pl.Series, attributes: pl.DataFrame | None = None) -> Sequences:
    """Map the histories that `HistoriesWriter` wrote."""
    times, context = folder / f"{name}-times{ARRAY}", folder / f"{name}-context{FRAME}"
    return Sequences(
        users=users,
        items=read_array(folder / f"{name}-items{ARRAY}"),
        offsets=read_array(folder / f"{name}-offsets{ARRAY}"),
        times=read_array(times) if times.exists() else None,
        attributes=attributes,
        context=read_frame(context) if context.exists() else None,
    )
