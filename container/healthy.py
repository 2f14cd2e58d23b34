"""Exit 0 where a service answers at an address with status 200, and 1 where it does not: `healthy.py ADDRESS`."""

from __future__ import annotations

import sys
import urllib.request

SECONDS = 5.0


def healthy(address: str) -> bool:
    """Return whether the address answers in time."""
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if healthy(sys.argv[1]) else 1)
