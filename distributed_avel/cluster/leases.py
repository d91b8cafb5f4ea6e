"""Leases: if several trials need the same stage, only one of them computes it.

A lease is the right to compute a stage for a limited time. Artifacts may be on object storage,
which has no locks, so the trials of a sweep ask an actor before they compute a stage. One trial
gets the lease; the others wait until the stage is finished. The holder renews its lease; if it
dies, the lease expires and another trial gets it.

Leases save work. Correctness does not depend on them: two trials that compute the same stage write
the same files.
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

from distributed_avel.artifacts import Artifact

LEASE_S = 20.0
"""A lease that is not renewed for this long expires."""

_RENEW_EVERY_S = 2.0
_ASK_EVERY_S = 0.5


class Leases:
    """The leases of all stages, and the names of the stages that were computed.

    Args:
        lease_s: Time after which a lease that is not renewed expires.
    """

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._held: dict[str, tuple[str, float]] = {}
        self._computed: dict[str, str] = {}

    def ask(self, key: str, holder: str) -> bool:
        """Acquire or renew the lease of a stage; return False if another holder has it."""
        now_s = time.monotonic()
        owner, until_s = self._held.get(key, (holder, now_s))
        if owner != holder and until_s > now_s:
            return False
        self._held[key] = (holder, now_s + self._lease_s)
        return True

    def release(self, key: str, holder: str, computed: str | None) -> None:
        """End a lease; `computed` is the name of the stage if the holder computed it."""
        if computed is not None:
            self._computed[key] = computed
        if self._held.get(key, ("", 0.0))[0] == holder:
            del self._held[key]

    def computed(self) -> dict[str, str]:
        """Names of the stages that were computed, by fingerprint."""
        return dict(self._computed)


LeaseActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Leases)
"""`Leases` as an actor. After a restart it has no lease until the holders renew theirs."""


def computed_stages(leases: ActorHandle) -> dict[str, str]:
    """Call `Leases.computed` of the actor."""
    computed: Any = ray.get(leases.computed.remote())
    return computed


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Acquires leases from a `LeaseActor`; see `stages.stage.Execution`."""

    leases: ActorHandle

    @contextmanager
    def __call__(self, stage: Artifact) -> Iterator[bool]:
        """Yield True with the lease held, or False once another holder has finished the stage."""
        holder, key = uuid.uuid4().hex, stage.fingerprint
        while not ray.get(self.leases.ask.remote(key, holder)):
            time.sleep(_ASK_EVERY_S)
            if stage.is_done():
                yield False
                return
        if stage.is_done():  # finished between the caller's check and the lease
            ray.get(self.leases.release.remote(key, holder, None))
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
            ray.get(self.leases.release.remote(key, holder, computed))

    def _renew(self, key: str, holder: str, stop: threading.Event) -> None:
        while not stop.wait(_RENEW_EVERY_S):
            self.leases.ask.remote(key, holder)
