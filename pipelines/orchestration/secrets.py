"""Secrets that a configuration names as `${prefect:BLOCK}`: blocks of the kind Secret in Prefect."""

from __future__ import annotations

from typing import Any, cast

from recsys.errors import InputError, RecsysError, first_line
from recsys.storage.environment import register


def secret_block(name: str) -> str:
    """Return the value of a Secret block.

    Raises
    ------
    InputError
        There is no such block.
    RecsysError
        Prefect does not answer.
    """
    from prefect.blocks.system import Secret  # heavy: only where a configuration names a block

    block: Any
    try:
        block = cast(Any, Secret.load)(name, _sync=True)
    except ValueError:
        raise InputError(
            f"Prefect has no block {name!r} of the kind Secret; make it, or use an environment variable."
        ) from None
    except (OSError, RuntimeError) as error:
        raise RecsysError(f"Prefect does not give the block {name!r}: {first_line(error)}.") from error
    return str(block.get())


register("prefect", secret_block)
