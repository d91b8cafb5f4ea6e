"""Resources that the stages of a configuration need; `cluster.resources` checks them."""

from distributed_avel.cluster.resources import Requirement, TrialResources
from distributed_avel.config import RunConfig

TRIAL_CPUS = 0.01
"""CPUs of the process of a trial that trains in workers."""


def requirements(config: RunConfig) -> list[Requirement]:
    """Return the resources that each stage with workers or actors needs at the same time."""
    train, extract, refine = config.train, config.extract, config.refine
    return [
        Requirement(
            stage="extract",
            count=extract.num_actors,
            cpus=extract.cpus_per_actor,
            gpus=extract.gpus_per_actor,
            reserved_cpus=1,
            why=f"extract.num_actors {extract.num_actors} x extract.cpus_per_actor "
            f"{extract.cpus_per_actor} + 1 for Ray Data",
        ),
        Requirement(
            stage="train",
            count=train.num_workers,
            cpus=train.cpus_per_worker,
            gpus=int(train.use_gpu),
            why=f"train.num_workers {train.num_workers} x train.cpus_per_worker "
            f"{train.cpus_per_worker}",
        ),
        Requirement(
            stage="refine",
            count=refine.num_actors,
            cpus=1,
            gpus=refine.gpus_per_actor,
            reserved_cpus=1,
            why=f"refine.num_actors {refine.num_actors} + 1 for Ray Data",
        ),
    ]


def trial_resources(config: RunConfig, gpus_per_trial: float = 0.0) -> TrialResources:
    """Return the resources of a trial, or of one experiment of a table.

    Args:
        config: Configuration of the run.
        gpus_per_trial: GPUs of a trial that trains in its own process; 0 derives it from `config`.
    """
    train, refine = config.train, config.refine
    if train.num_workers == 1:
        return TrialResources(
            in_process=True,
            cpus=train.cpus_per_worker,
            gpus=gpus_per_trial or max(float(train.use_gpu), refine.gpus_per_actor),
            why=f"train.cpus_per_worker {train.cpus_per_worker}",
        )
    training = train.num_workers * train.cpus_per_worker
    scoring = refine.num_actors + 1
    return TrialResources(
        in_process=False,
        cpus=TRIAL_CPUS,
        gpus=0.0,
        worker_cpus=max(training, scoring),
        worker_gpus=max(
            train.num_workers * float(train.use_gpu), refine.num_actors * refine.gpus_per_actor
        ),
        why=(
            f"{TRIAL_CPUS} for the trial + the larger of train.num_workers {train.num_workers} x "
            f"train.cpus_per_worker {train.cpus_per_worker} = {training} and refine.num_actors "
            f"{refine.num_actors} + 1 for Ray Data = {scoring}"
        ),
    )
