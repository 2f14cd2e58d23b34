"""Limits of requests, and the bearer token."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import Final

from recsys.errors import InputError
from recsys.service.models import RecommendRequest, SimilarRequest

TOKEN: Final = "RECSYS_TOKEN"  # the environment variable
OPEN: Final = ("/health", "/ready", "/docs", "/openapi.json", "/static-offline-docs/")  # without a token


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Upper limits of a request.

    Attributes
    ----------
    body
        (bytes)
    k
        Length of a list.
    history
        Events of a history, and items that are excluded.
    queries
        Queries of one batch.
    waiting
        Length of the model's queue; a query beyond it is refused with 503.
    """

    body: int = 1_000_000
    k: int = 1_000
    history: int = 5_000
    queries: int = 1_000
    waiting: int = 2_000

    def check(self, asked: RecommendRequest | SimilarRequest) -> None:
        """Refuse a query that asks for too much.

        Raises
        ------
        InputError
            Names the field, its size and the limit.
        """
        if asked.k > self.k:
            raise InputError(f"k = {asked.k} is above this service's limit of {self.k}.")
        if isinstance(asked, RecommendRequest):
            for name in ("history", "exclude"):
                if len(getattr(asked, name)) > self.history:
                    raise InputError(
                        f"{name} has {len(getattr(asked, name))} entries and this service's limit is {self.history}; "
                        "give the newest."
                    )


def is_allowed(token: str | None, path: str, authorization: bytes | None) -> bool:
    """Return whether a request may pass: the path is open, or the header `Authorization` holds the token."""
    if token is None or path.startswith(OPEN):
        return True
    scheme, _, given = (authorization or b"").partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token.encode())


def check_address(host: str, token: str | None, no_token: bool) -> None:
    """Refuse to answer other machines without a token.

    Raises
    ------
    InputError
        `host` is not of this machine alone, and there is no token; or the token is empty.
    """
    if token is not None and not token.strip():
        raise InputError(f"{TOKEN} is empty; give it a secret, or unset it to answer this machine alone.")
    if token is None and not no_token and not _is_loopback(host):
        raise InputError(
            f"--host {host} answers other machines, and the environment has no {TOKEN}, which requests would bear; set "
            "it, or say --no-token where something in front checks them."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
