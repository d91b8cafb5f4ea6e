import pytest

from distributed_avel.cluster.resources import plan_concurrency
from distributed_avel.config import RefineConfig, RunConfig, TrainConfig
from distributed_avel.errors import ResourceError
from distributed_avel.stages.resources import trial_resources


def config(**train) -> RunConfig:
    return RunConfig(train=TrainConfig(**train), refine=RefineConfig(num_actors=2))


def nodes(*machines: tuple[float, float]) -> list[dict[str, float]]:
    return [{"CPU": cpus, "GPU": gpus} for cpus, gpus in machines]


def test_in_process_trials_are_packed_per_machine():
    needs = trial_resources(config(cpus_per_worker=2), gpus_per_trial=0.0)

    assert plan_concurrency(needs, nodes((4, 0))) == 2
    assert plan_concurrency(needs, nodes((3, 0), (3, 0))) == 2  # not 3: no trial spans machines
    assert plan_concurrency(needs, nodes((16, 0)), limit=3) == 3


def test_fractional_gpus_are_packed_on_one_gpu_but_never_span_two():
    needs = trial_resources(config(cpus_per_worker=1, use_gpu=True), gpus_per_trial=0.25)
    assert plan_concurrency(needs, nodes((16, 1))) == 4
    assert plan_concurrency(needs, nodes((3, 1))) == 3

    needs = trial_resources(config(cpus_per_worker=1, use_gpu=True), gpus_per_trial=0.6)
    assert plan_concurrency(needs, nodes((16, 2))) == 2


def test_nested_trainers_leave_resources_for_the_workers_of_every_trial():
    needs = trial_resources(config(num_workers=2, cpus_per_worker=1), gpus_per_trial=0.0)

    assert not needs.in_process
    assert plan_concurrency(needs, nodes((4, 0))) == 1  # two actors and Ray Data need 3
    assert plan_concurrency(needs, nodes((4, 0), (4, 0))) == 2


@pytest.mark.parametrize(
    ("train", "machines", "arithmetic"),
    [
        (
            {"cpus_per_worker": 8},
            [(4, 0), (4, 0)],
            r"needs 8 CPUs .* on one machine .*cluster has \(4",
        ),
        ({"cpus_per_worker": 1, "use_gpu": True}, [(4, 0)], "1 GPUs"),
        (
            {"num_workers": 4, "cpus_per_worker": 2},
            [(4, 0)],
            r"needs 8.01 CPUs .*num_workers 4 x train.cpus_per_worker 2 = 8",
        ),
    ],
)
def test_what_can_never_run_is_refused_with_the_arithmetic(train, machines, arithmetic):
    with pytest.raises(ResourceError, match=arithmetic):
        plan_concurrency(trial_resources(config(**train), 0.0), nodes(*machines))
