"""Object stores as pyarrow and Delta reach them, from one set of environment variables, and their errors as sentences.

Delta, polars and obstore read `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`,
`AWS_ENDPOINT_URL` and `AWS_ALLOW_HTTP` themselves. pyarrow is given the endpoint and the region here, so that it asks
the same server. A connection without encryption is refused unless `AWS_ALLOW_HTTP` allows it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn
from urllib.parse import urlsplit

from deltalake.exceptions import DeltaError
from pyarrow import ArrowException, fs

from recsys.errors import InputError, RecsysError
from recsys.logins import login_problem
from recsys.storage.addresses import masked

_TRUE: Final = ("true", "1", "yes", "on")
_S3: Final = ("s3://", "s3a://")
_PLAIN: Final = (
    "AWS_ENDPOINT_URL is an address without encryption; set AWS_ALLOW_HTTP=true where that is meant, as on this machine"
)
_DENIED: Final = (
    "check the credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they allow"
)
# what a store or a library says, and what to do: a second attempt would fail in the same way
_LASTING: Final = (
    (
        re.compile(r"169\.254\.169\.254|IMDS|instance metadata|security-credentials|api/token", re.IGNORECASE),
        "no credentials are in the environment: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    (
        re.compile(
            r"AccessDenied|ACCESS_DENIED|InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|"
            r"SIGNATURE_DOES_NOT_MATCH|ExpiredToken|InvalidToken|INVALID_CLIENT_TOKEN|InvalidClientTokenId|"
            r"necessary privileges|403 Forbidden|401 Unauthorized|HTTP status 40[13]\b|valid authentication credentials"
        ),
        _DENIED,
    ),
    (re.compile(r"NoSuchBucket|NO_SUCH_BUCKET|Bucket '[^']*' not found"), "make the bucket, or choose another"),
    (re.compile(r"scheme is not allowed"), _PLAIN),
)
_KIND: Final = re.compile(r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d+)\))? during (\w+) operation: ([^(;]*)")


def is_url(path: str) -> bool:
    """Return whether a path names a store rather than a local file."""
    return "://" in path


def filesystem(path: str, environment: Mapping[str, str] = os.environ) -> tuple[fs.FileSystem, str]:
    """The file system of a folder or URL, and the folder's name there.

    Raises
    ------
    InputError
        The endpoint of the environment is without encryption, and nothing allows that; or the URL holds a login.
    """
    if not is_url(path):
        return fs.LocalFileSystem(), path
    need_no_login(path)
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if not endpoint or not path.startswith(_S3):
        return fs.FileSystem.from_uri(path)
    check_encrypted(endpoint, environment)
    address = urlsplit(endpoint)
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    store = fs.S3FileSystem(
        endpoint_override=f"{address.netloc}{address.path.rstrip('/')}",
        scheme=address.scheme,
        region=region,
        connect_timeout=15,
        request_timeout=60,
    )
    return store, path.partition("://")[2]


def need_no_login(url: str) -> None:
    """Refuse a URL with a login, which whatever is made from it would name.

    Raises
    ------
    InputError
        Says which variables hold it instead.
    """
    if problem := login_problem(url):
        raise InputError(f"{problem[0].upper()}{problem[1:]}.")


def check_encrypted(endpoint: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse an address that begins with `http://`, unless `AWS_ALLOW_HTTP` allows it.

    Raises
    ------
    InputError
        Says what to set.
    """
    if endpoint.startswith("http://") and not allows_http(environment):
        raise InputError(f"{_PLAIN}.")


def allows_http(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether connections without encryption are meant."""
    return environment.get("AWS_ALLOW_HTTP", "").lower() in _TRUE


def said(error: BaseException) -> str:
    """Words of a store's error, in one line, without colours, requests and secrets."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).split("↳")
    text = ": ".join(" ".join(line.split()) for line in lines)
    code = re.search(r"<Code>([^<]*)</Code>", text)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    if code:
        return masked(f"{code[1]}: {message[1]}" if message else code[1]).rstrip(".")
    if kind := _KIND.search(text):
        name = f"HTTP status {kind[2]}" if kind[1] == "UNKNOWN" and kind[2] else kind[1]
        return masked(f"{name}: {kind[4].strip().rstrip('.,')}").rstrip(".")
    text = re.sub(r"(?i)^kernel error -> ", "", text.partition(" Debug source")[0])
    text = re.sub(r",? ?after \d+ retries, max_retries:? ?\d+, retry_timeout:? ?\d+s", "", text)
    text = re.sub(r"Error performing (\w+) (\S+?)(?:\?\S*)? in [\d.]+\S?s", r"\1 \2", text)
    return masked(text)[:300].rstrip(". ")


def advice(error: BaseException) -> str | None:
    """Advice on a store's error that a second attempt would meet again; None: it may pass."""
    text = str(error)
    return next((act for pattern, act in _LASTING if pattern.search(text)), None)


def fail(what: str, error: BaseException) -> NoReturn:
    """Raise a store's error as one sentence.

    Parameters
    ----------
    what
        Subject and verb, with the place, such as "The table s3://shop/items cannot be opened".

    Raises
    ------
    InputError
        Only a person can help; the sentence says how.
    RecsysError
        It may pass, and its cause says so.
    """
    if act := advice(error):
        raise InputError(f"{what} ({said(error)}); {act}.")
    raise RecsysError(f"{what}: {said(error)}.") from ConnectionError(type(error).__name__)


@contextlib.contextmanager
def reaching(place: str, what: str) -> Iterator[None]:
    """Turn the errors of libraries about a store into one sentence; those of local files come through.

    Parameters
    ----------
    place
        A path or URL.
    what
        See `fail`.

    Raises
    ------
    RecsysError
        The store refuses, or cannot be reached.
    """
    try:
        yield
    except (OSError, DeltaError, ArrowException) as error:
        if not is_url(place):
            raise
        fail(what, error)
