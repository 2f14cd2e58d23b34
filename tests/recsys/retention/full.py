"""A process that may not write a byte, as on a full disk, and may delete."""

from __future__ import annotations

import contextlib
import resource
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def nothing_can_be_written() -> Iterator[None]:
    """Refuse every write to a file; there is no place for temporary files either."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before, tempfile.tempdir = tempfile.tempdir, None
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        tempfile.tempdir = before
