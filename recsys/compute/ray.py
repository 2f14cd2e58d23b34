"""The engine of many machines: a Ray task a shard, and a group of actors for a training (recsys/compute/group.py).

Ray sends a task to a machine with a free core, keeps its result there until it is fetched, and does it again where the
machine or the process is lost. The work itself goes into Ray's object store once; a process that gets its first task
of it fetches it, and keeps it until it gets another's.
"""

from __future__ import annotations

import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.exceptions import RayError, RayTaskError

from recsys.compute.base import Engine, Result, Shard, Tell
from recsys.compute.cluster import connect, has_room, inspect
from recsys.compute.group import LostError, run_group
from recsys.errors import RecsysError, first_line

_AHEAD: Final = 2  # tasks a core that are handed out before their results are asked for
_KEPT: dict[str, Callable[[Any], Any]] = {}  # in a process of Ray's: the work of its newest task


@dataclass(frozen=True, kw_only=True)
class Ray(Engine):
    """Work on the machines of a Ray cluster; see `recsys.settings.compute` for the names.

    Attributes
    ----------
    warehouse
        Folder or URL that every machine has to see.
    """

    address: str
    cores: int
    retries: int
    warehouse: str

    def check(self, warehouse: str, together: int = 1) -> None:
        """Connect to the cluster, once a process, and look at each of its machines; see `Engine.check`."""
        connect(self.address)
        inspect(warehouse, self.cores)
        has_room(together, self.cores)

    def together(self, work: Callable[[Tell], None], count: int, told: Tell, lost: Tell) -> None:
        """Run `work` in several processes at once; see `Engine.together`."""
        for left in reversed(range(self.retries + 1)):
            self.check(self.warehouse)
            try:
                return run_group(work, count, self.cores, told)
            except LostError as error:
                if not left:
                    raise RecsysError(
                        f"A process of the training was lost on the Ray cluster {self.address} ({first_line(error)}), "
                        "more often than compute.retries: its machine ended or ran out of memory; run it again, "
                        "training goes on from its last checkpoint."
                    ) from error
                lost("A process of the training was lost; all begin again from the last checkpoint.")

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """Yield the result of each shard; see `Engine.map`."""
        waiting: deque[Any] = deque()
        send: Callable[[Any], Any] | None = None
        try:
            for shard in shards:
                if send is None:
                    self.check(self.warehouse)
                    send = self._sender(work)
                waiting.append(send(shard))
                while len(waiting) > self._ahead():
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:  # nobody wants what is left, after an error
            for left in waiting if ray.is_initialized() else ():
                ray.cancel(left)

    def _sender(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Put the work into the store; returns what begins a task of it."""
        # spread: Ray would fill half of a machine before it asks the next one
        options = {"num_cpus": self.cores, "max_retries": self.retries, "scheduling_strategy": "SPREAD"}
        task, name = ray.remote(**options)(_done), uuid.uuid4().hex
        given = [ray.put(work)]  # in a list Ray does not fetch it for every task
        return lambda shard: task.remote(name, given, shard)

    def _ahead(self) -> int:
        """Tasks under way at once; a cluster may have grown."""
        return max(1, int(ray.cluster_resources().get("CPU", 1)) // self.cores) * _AHEAD

    def _result(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, RayError):
                raise self._lost(cause) from error
            if not isinstance(cause, Exception):
                raise
            raise cause from None
        except RayError as error:
            raise self._lost(error) from error

    def _lost(self, error: BaseException) -> RecsysError:
        return RecsysError(
            f"A task was lost on the Ray cluster {self.address} and could not be done again ({type(error).__name__}: "
            f"{first_line(error)}): its machine ended or ran out of memory; run it again, with more compute.cores for "
            "fewer tasks at once if it was memory, or a larger compute.retries."
        )


def _done(name: str, given: list[Any], shard: Any) -> Any:
    """Do a shard, in a process of Ray's."""
    if name not in _KEPT:
        # arrays are those of Ray's store, for all processes of a machine; torch warns that nobody may write to them
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        _KEPT.clear()
        _KEPT[name] = ray.get(given[0])
    return _KEPT[name](shard)
