"""Leases on stages, without Ray."""

from distributed_avel.cluster.leases import Leases
from tests.troubled import wait_until


def test_a_stage_has_one_lease_holder_at_a_time():
    leases = Leases()

    assert leases.ask("a", "first")
    assert not leases.ask("a", "second")
    assert leases.ask("a", "first")  # renews the lease
    assert leases.ask("b", "second")

    leases.release("a", "first", "base")
    assert leases.ask("a", "second")
    assert leases.computed() == {"a": "base"}


def test_an_expired_lease_passes_to_one_other_holder():
    leases = Leases(lease_s=1.0)
    leases.ask("a", "dead")

    assert not leases.ask("a", "second")
    wait_until(lambda: leases.ask("a", "second"))
    leases.release("a", "dead", None)
    assert not leases.ask("a", "third")
