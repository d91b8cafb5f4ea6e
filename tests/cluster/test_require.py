"""Requests that can never be scheduled are refused with the arithmetic; others are accepted."""

from pathlib import Path

import pytest

from distributed_avel.cluster import session
from distributed_avel.cluster.resources import unmet
from distributed_avel.cluster.session import require
from distributed_avel.config import validate
from distributed_avel.errors import ResourceError
from distributed_avel.stages.resources import requirements

CPU_NODE, GPU_NODE = {"CPU": 8.0, "GPU": 0.0}, {"CPU": 8.0, "GPU": 1.0}


def config_of(**sections):
    return validate(sections, "test")


@pytest.mark.parametrize(
    ("sections", "nodes"),
    [
        ({"extract": {"num_actors": 7}}, [CPU_NODE]),
        ({"train": {"num_workers": 4, "cpus_per_worker": 8}}, [CPU_NODE] * 4),
        ({"train": {"num_workers": 2, "use_gpu": True}}, [CPU_NODE, GPU_NODE, GPU_NODE]),
        ({"refine": {"num_actors": 4, "gpus_per_actor": 0.25}}, [GPU_NODE]),
    ],
)
def test_requests_that_fit_are_accepted(sections, nodes):
    assert unmet(requirements(config_of(**sections)), nodes) == []


@pytest.mark.parametrize(
    ("sections", "nodes", "problem"),
    [
        (
            {"extract": {"num_actors": 8}},
            [CPU_NODE],
            "  extract: 9 CPUs and 0 GPUs (extract.num_actors 8 x extract.cpus_per_actor 1 + 1 for "
            "Ray Data), but there are 8 CPUs and 0 GPUs",
        ),
        (
            {"train": {"num_workers": 3, "cpus_per_worker": 5}},
            [CPU_NODE] * 2,
            "  train: 3 times 5 CPUs and 0 GPUs, each on one node (train.num_workers 3 x "
            "train.cpus_per_worker 5), but there is room for 2",
        ),
        (
            {"refine": {"num_actors": 3, "gpus_per_actor": 0.5}},
            [GPU_NODE],
            "  refine: 4 CPUs and 1.5 GPUs (refine.num_actors 3 + 1 for Ray Data), but there are "
            "8 CPUs and 1 GPUs",
        ),
    ],
)
def test_requests_that_do_not_fit_are_refused_with_the_arithmetic(sections, nodes, problem):
    assert unmet(requirements(config_of(**sections)), nodes) == [problem]


def test_an_autoscaling_cluster_counts_with_its_maximum_size(monkeypatch):
    monkeypatch.setattr(session, "_BOOTSTRAP", Path(__file__).parents[2] / "cluster.yaml")
    require(requirements(config_of(train={"num_workers": 4, "use_gpu": True})))

    with pytest.raises(ResourceError) as error:
        require(requirements(config_of(train={"num_workers": 5, "use_gpu": True})))

    assert str(error.value).splitlines() == [
        "the cluster can never run this, even when it has grown to 1 x (8 CPUs, 0 GPUs) and "
        "4 x (8 CPUs, 1 GPUs):",
        "  train: 10 CPUs and 5 GPUs (train.num_workers 5 x train.cpus_per_worker 2), but there "
        "are 40 CPUs and 4 GPUs",
    ]
