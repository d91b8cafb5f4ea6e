"""The state of the lease board, without Ray."""

from distributed_avel.cluster.leases import Leases
from tests.troubled import wait_until


def test_one_holder_at_a_time_has_a_stage():
    leases = Leases()

    assert leases.ask("a", "first")
    assert not leases.ask("a", "second")
    assert leases.ask("a", "first")  # which renews it
    assert leases.ask("b", "second")

    leases.release("a", "first", "base")
    assert leases.ask("a", "second")
    assert leases.computed() == {"a": "base"}


def test_the_lease_of_a_silent_holder_passes_on_and_stays_there():
    leases = Leases(lease_s=1.0)
    leases.ask("a", "dead")

    assert not leases.ask("a", "second")
    wait_until(lambda: leases.ask("a", "second"))
    leases.release("a", "dead", None)
    assert not leases.ask("a", "third")
