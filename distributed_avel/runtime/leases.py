"""A stage that several trials want at the same moment is computed by one of them.

Stages lie on any file system, and object storage has no locks. So the trials of a sweep ask an
actor, the board, before they compute a stage: one gets a lease, the others wait until the stage
is there. A holder says again and again that it lives; when it falls silent, its lease passes on.

Leases save work, and correctness does not rest on them: should a holder that was thought dead go
on after all, both would write the same files.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle

from distributed_avel.artifacts import Stage

LEASE_S = 20.0
"""A holder that was silent for so long is taken for dead."""

_RENEW_EVERY_S = 2.0
_ASK_EVERY_S = 0.5


class Leases:
    """Who computes which stage now, and what was computed: the state of the board.

    Args:
        lease_s: How long a lease lasts without a word from its holder.
    """

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._held: dict[str, tuple[str, float]] = {}
        self._computed: dict[str, str] = {}

    def ask(self, key: str, holder: str) -> bool:
        """Whether the lease of a stage is now this holder's; asking again renews it."""
        now_s = time.monotonic()
        owner, until_s = self._held.get(key, (holder, now_s))
        if owner != holder and until_s > now_s:
            return False
        self._held[key] = (holder, now_s + self._lease_s)
        return True

    def give_back(self, key: str, holder: str, computed: str | None) -> None:
        """End a lease; `computed` is the stage's name if the holder computed it."""
        if computed is not None:
            self._computed[key] = computed
        if self._held.get(key, ("", 0.0))[0] == holder:
            del self._held[key]

    def computed(self) -> dict[str, str]:
        """Names of the stages that were computed, by fingerprint."""
        return dict(self._computed)


LeaseBoard = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Leases)
"""The board as an actor. Restarted, it knows of no lease until the holders renew theirs."""


def computed_stages(board: ActorHandle) -> dict[str, str]:
    """What `Leases.computed` of a board says."""
    computed: Any = ray.get(board.computed.remote())
    return computed


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Takes leases from a board; for `stages.Place.alone_at`."""

    board: ActorHandle

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[bool]:
        """Hold a stage while it is computed, or wait until somebody else has done so."""
        holder, key = uuid.uuid4().hex, stage.fingerprint
        while not ray.get(self.board.ask.remote(key, holder)):
            time.sleep(_ASK_EVERY_S)
            if stage.is_done():
                yield False
                return
        if stage.is_done():  # between the caller's look and the lease
            ray.get(self.board.give_back.remote(key, holder, None))
            yield False
            return
        stop = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(key, holder, stop), daemon=True)
        renewal.start()
        computed = None
        try:
            yield True
            computed = stage.name
        finally:
            stop.set()
            renewal.join()
            ray.get(self.board.give_back.remote(key, holder, computed))

    def _renew(self, key: str, holder: str, stop: threading.Event) -> None:
        while not stop.wait(_RENEW_EVERY_S):
            self.board.ask.remote(key, holder)
