"""Names of the servers that tests of this folder write to; their fixtures are for all tests."""

from __future__ import annotations

from tests.servers import OWNER, PASSWORD, WRITTEN, ObjectStore, Postgresql, Redis

__all__ = ["OWNER", "PASSWORD", "WRITTEN", "ObjectStore", "Postgresql", "Redis"]
