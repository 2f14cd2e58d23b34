"""Bytes of local and remote files in blocks, unpacked by the ending of their names."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from recsys.errors import InputError
from recsys.storage.remote import filesystem

_STREAMS: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}  # what pyarrow unpacks
PACKED: Final = (*_STREAMS, ".xz", ".zip")
_ARCHIVES: Final = (".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar", ".z", ".br")  # what nothing here unpacks
FAILURES: Final = (  # of a file that is away, out of reach or damaged
    *(OSError, pa.ArrowException, ValueError, EOFError, RuntimeError),
    *(lzma.LZMAError, zipfile.BadZipFile, zlib.error),
)


def is_packed(path: str) -> bool:
    """Return whether a name says that the file is compressed: `.csv.gz`, `.CSV.GZ`."""
    return path.lower().endswith(PACKED)


def without_packing(name: str) -> str:
    """A file's name without the endings of its compression.

    >>> without_packing("log.CSV.gz")
    'log.CSV'
    """
    while is_packed(name):
        name = name[: -len(Path(name).suffix)]
    return name


def refuse_archive(path: str) -> None:
    """Refuse what is packed in a way that is not read: `.7z`, `.tar.gz`."""
    ending = Path(without_packing(path)).suffix.lower()
    if ending in _ARCHIVES:
        raise InputError(
            f"{path} is packed in a way that is not read ({ending}); unpack it, or pack the file itself as .gz or .zst."
        )


def read_blocks(path: str, size: int, *, unpack: bool = True) -> Iterator[bytes]:
    """A file's content in blocks of up to `size` bytes, from a path or a URL.

    Raises
    ------
    InputError
        A `.zip` that holds several files, or none.
    Exception
        One of FAILURES.
    """
    store, inside = filesystem(path)
    ending = Path(path).suffix.lower() if unpack else ""
    with ExitStack() as stack:
        stream: Any
        if ending == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(store.open_input_file(inside))))
            stream = stack.enter_context(archive.open(_member(path, archive)))
        else:
            stream = stack.enter_context(store.open_input_stream(inside, compression=_STREAMS.get(ending)))
            if ending == ".xz":
                stream = stack.enter_context(lzma.open(stream))
        while block := stream.read(size):
            yield block


def _member(path: str, archive: zipfile.ZipFile) -> str:
    """The one file that an archive holds; folders and a Mac's notes do not count."""
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise InputError(
            f"{Path(path).name} holds {len(names)} files{f' ({shown})' if names else ''}; a .zip is read where it "
            "holds one: unpack it and name the file inside."
        )
    return names[0]
