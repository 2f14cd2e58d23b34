"""Objects of a store by obstore: uploads, downloads, and small objects that are replaced on condition.

S3-compatible stores, and by the same code Google's and Azure's. Credentials come from the store's usual environment
variables, see `recsys.storage.remote`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from recsys.errors import InputError, RecsysError
from recsys.storage.remote import allows_http, check_encrypted, fail, need_no_login

try:
    import obstore
    from obstore import exceptions as failures
    from obstore.store import from_url
except ModuleNotFoundError as error:
    raise InputError(
        "A URL as warehouse, bundle or export target needs the package obstore; run `pip install obstore`."
    ) from error

_LARGE: Final = 16 << 20  # bytes of a part of an upload, and read at a time


@contextlib.contextmanager
def opened(url: str, what: str, endpoint: str | None = None) -> Iterator[Any]:
    """Yield the store of a URL's prefix; errors of it become one sentence.

    Parameters
    ----------
    what
        Subject and verb of that sentence, see `recsys.storage.remote.fail`.
    endpoint
        Address of the server, where it is not that of the environment; one without encryption is then meant.

    Raises
    ------
    InputError
        Access is denied, there is no such bucket, the address is without encryption, or the URL holds a login.
    RecsysError
        The store cannot be reached; its cause says that this may pass.
    """
    need_no_login(url)
    if endpoint is None:
        check_encrypted(os.environ.get("AWS_ENDPOINT_URL", ""))
    plain = allows_http() if endpoint is None else endpoint.startswith("http://")
    config = {} if endpoint is None else {"endpoint": endpoint}
    options = {"allow_http": plain, "connect_timeout": "15s"}
    retries = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
    try:
        yield from_url(url, config=config, client_options=options, retry_config=retries)  # type: ignore[call-overload]
    except RecsysError:
        raise
    except (failures.BaseError, OSError, ValueError) as error:
        fail(what, error)


def read(store: Any, name: str) -> tuple[bytes, str] | None:
    """The content and the tag of an object; None where there is none. A missing bucket is an error."""
    try:
        found = obstore.get(store, name)
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise
        return None
    return bytes(found.bytes()), str(found.meta["e_tag"])


def replace(store: Any, name: str, content: bytes, tag: str | None) -> bool:
    """Write an object if it still has the tag that it was read with (None: if there is none); whether it did.

    A store whose answer is lost is asked again, and then refuses: the object is what was to be written.
    """
    try:
        obstore.put(store, name, content, mode="create" if tag is None else {"e_tag": tag})
    except (failures.AlreadyExistsError, failures.PreconditionError):
        found = read(store, name)
        return found is not None and found[0] == content
    return True


def sizes(store: Any, prefix: str) -> dict[str, int]:
    """Size (bytes) by name of the objects below a prefix."""
    return {held["path"]: int(held["size"]) for batch in obstore.list(store, prefix=prefix) for held in batch}


def folders(store: Any) -> list[str]:
    """Names of the folders at the top, ascending."""
    return sorted(obstore.list_with_delimiter(store)["common_prefixes"])


def upload(store: Any, name: str, path: Path) -> None:
    """Make a file an object; it is there whole or not at all."""
    obstore.put(store, name, path, chunk_size=_LARGE)


def download(store: Any, name: str, path: Path) -> None:
    """Write an object to a file.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    """
    with path.open("wb") as file:
        for block in obstore.get(store, name).stream(min_chunk_size=_LARGE):
            file.write(block)


def delete(store: Any, name: str) -> None:
    """Delete an object, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        obstore.delete(store, name)
