"""The arrays of a safetensors file that the system maps into memory: processes share their pages, nobody can write.

The library copies every array. The blend of 10^6 items holds a GiB of text vectors, which every step and every worker
would have for itself. The format is 8 bytes with the length of a header, the header in JSON, then the arrays' bytes:
https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.numpy
from safetensors import safe_open

LEAST: Final = 64 * 2**20  # bytes of a file from which on it is mapped; smaller ones are copied, and closed
_LENGTH: Final = 8  # bytes
_ABOUT: Final = "__metadata__"  # in the header, beside the arrays
_TYPES: Final = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "F16": np.float16,
    "U32": np.uint32, "I32": np.int32, "F32": np.float32, "U64": np.uint64, "I64": np.int64, "F64": np.float64,
}  # fmt: skip


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, mapped where the file is large.

    Raises
    ------
    SafetensorError, ValueError, KeyError
        The file is no such file, or has a type that NumPy lacks.
    """
    if path.stat().st_size < LEAST:
        return dict(safetensors.numpy.load_file(path))
    with safe_open(path, framework="np"):  # says whether lengths, types and places fit each other
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = json.loads(file.read(length))
    content = np.memmap(path, dtype=np.uint8, mode="r", offset=_LENGTH + length).view(np.ndarray)
    return {
        name: content[slice(*of["data_offsets"])].view(_TYPES[of["dtype"]]).reshape(of["shape"])
        for name, of in header.items()
        if name != _ABOUT
    }
