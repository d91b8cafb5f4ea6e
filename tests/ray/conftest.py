"""Start Ray once for all tests, because it takes seconds and workers are reused."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_avel.cluster.session import ray_session
from distributed_avel.config import ClusterConfig

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local cluster with 4 logical CPUs, on loopback, with a token.

    Its workers can import test modules, as the driver can.
    """
    with pytest.MonkeyPatch.context() as patch:
        for folder in (HERE, HERE.parent, HERE.parents[1]):
            patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        with ray_session(ClusterConfig(num_cpus=4)):
            yield
