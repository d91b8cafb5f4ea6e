"""One Ray start for all tests: it takes seconds, and workers are reused."""

from collections.abc import Iterator

import pytest

from distributed_avel.config import ClusterConfig
from distributed_avel.runtime.session import ray_session


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local cluster with 4 logical CPUs, on loopback, with a token."""
    with ray_session(ClusterConfig(num_cpus=4)):
        yield
