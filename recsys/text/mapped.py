"""Text vectors of a large catalogue as a file in half precision, which every step and process maps into memory.

The table of vectors is in the order in which sentences were encoded, and in float32. Each step that read it would
hold it several times, several GiB at 10^6 items. So it is read once, part by part, into a file with a row an item.
The numbers of a unit vector have 11 bits in float16 and 8 in bf16, at the same size, and NumPy knows the former.

Shapes: n sentences, E width of the encoder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import CONTENT_HASH, SENTENCE, VECTOR
from recsys.data.log import home_of
from recsys.data.mapped import ARRAY, read_array
from recsys.storage.artefacts import obtain
from recsys.text.known import KnownEncoder

KIND: Final = "text"  # of the artefact
LEAST: Final = 65_536  # sentences from which on the file is worth its making; fewer are read as they are stored
AT_ONCE: Final = 65_536  # vectors that are read together
NUMBER: Final = np.float16
_FILE: Final = f"vectors{ARRAY}"

Batches = Callable[[], Iterator[pl.DataFrame]]  # `content_hash` and `vector`, some rows of the table at once


def mapped_vectors(
    warehouse: str, encoder: KnownEncoder, sentences: pl.Series, hashed: pl.DataFrame, batches: Batches
) -> np.ndarray:
    """Vectors of n sentences, float16 [n, E], mapped from this machine's disk; zeros where there is no sentence.

    Parameters
    ----------
    hashed
        The distinct sentences and their hashes; the table holds all of them.
    batches
        The encoder's rows of the table; is called where there is no file yet.

    Raises
    ------
    RecsysError
        The disk takes no more.
    """
    digest = hashlib.sha256(json.dumps([encoder.id, encoder.dimensions]).encode())
    for part in sentences.to_frame().iter_slices(AT_ONCE):
        digest.update(json.dumps(part.to_series().to_list()).encode())

    def write(folder: Path) -> dict[str, Any]:
        rows = sentences.alias(SENTENCE).to_frame().with_row_index("row").join(hashed, on=SENTENCE).drop(SENTENCE)
        _write(folder / _FILE, rows, (len(sentences), encoder.dimensions), batches)
        return {}

    return obtain(home_of(warehouse), KIND, digest.hexdigest(), write, _read)


def _read(folder: Path, _: Any) -> np.ndarray:
    return read_array(folder / _FILE)


def _write(path: Path, rows: pl.DataFrame, shape: tuple[int, int], batches: Batches) -> None:
    """Write each vector to its rows; of the rows that come twice, the last ones stay."""
    with path.open("w+b") as file:
        described = {"descr": np.dtype(NUMBER).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, described)
        file.flush()
        start, length = file.tell(), np.dtype(NUMBER).itemsize * shape[1]
        file.truncate(start + length * shape[0])
        for batch in batches():
            vectors = batch[VECTOR].explode().to_numpy().reshape(len(batch), shape[1]).astype(NUMBER)
            there = batch.select(CONTENT_HASH).with_row_index("place").join(rows, on=CONTENT_HASH)
            for row, place in there.select("row", "place").iter_rows():
                # not through memory: a full disk would end the process
                os.pwrite(file.fileno(), vectors[place].data, start + length * row)
