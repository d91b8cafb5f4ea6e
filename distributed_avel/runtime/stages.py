"""Run a stage, or reuse its cached result."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from distributed_avel.artifacts import Stage
from distributed_avel.errors import ArtifactError
from distributed_avel.provenance import provenance
from distributed_avel.runtime.progress import say
from distributed_avel.runtime.tracking import Run, Tracker
from distributed_avel.runtime.training_workers import Watch

REVISIONS = {
    "data": 1,
    "extract": 3,
    "base": 3,
    "refine": 4,
    "screen": 1,
    "retrain": 3,
    "evaluate": 3,
    "report": 2,
}
"""Revision of each stage, part of its cache key. Increase it if new code changes results."""

STAGES = tuple(REVISIONS)
"""Names of the stages, in order."""

_COMMAND_OF = {
    "data": "avel extract",
    "extract": "avel extract",
    "base": "avel train-base",
    "refine": "avel refine",
    "screen": "avel retrain",
    "retrain": "avel retrain",
    "evaluate": "avel evaluate",
    "report": "avel evaluate",
}


@contextmanager
def _no_lease(stage: Stage) -> Iterator[bool]:
    yield True


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """How a pipeline computes its stages.

    Args:
        in_process: Train and score in the current process instead of in workers. Worth it for
            stages of seconds, because workers take seconds to start.
        watch: Called after each epoch of a training in the current process.
        quiet: Do not report cached stages.
        lease: Context manager around the computation of a stage that other processes may need at
            the same time. It yields False if another process has finished the stage meanwhile.
        known: The stages `data` and `extract` if they are known to be finished, so that many
            pipelines of one data set do not verify all of its files again.
    """

    in_process: bool = False
    quiet: bool = False
    watch: Watch | None = None
    lease: Callable[[Stage], AbstractContextManager[bool]] = _no_lease
    known: Mapping[str, Stage] = field(default_factory=dict)


_reported_damage: set[str] = set()


def is_intact(stage: Stage) -> bool:
    """Whether a stage is finished and undamaged; damage is reported once per process."""
    if stage.is_done():
        return True
    damage = stage.damage()
    if damage is not None and damage not in _reported_damage:
        _reported_damage.add(damage)
        say(f"WARNING: {damage}")
    return False


class StageMaker:
    """Runs stages, or reuses their cached results.

    Args:
        tracker: Logs each stage.
        may_run: Names of the stages that may be computed; any other must be cached.
        execution: How stages are computed.
    """

    def __init__(self, tracker: Tracker, may_run: tuple[str, ...], execution: Execution) -> None:
        self._tracker = tracker
        self._may_run = may_run
        self._execution = execution
        self._reported: set[str] = set()

    def ensure(self, stage: Stage, compute: Callable[[Run], dict[str, Any]]) -> Stage:
        """Run a stage, or reuse its cached result.

        Raises:
            ArtifactError: The stage is not cached and not in `may_run`.
        """
        label = f"{stage.name} {stage.fingerprint}"
        is_done, is_new = is_intact(stage), label not in self._reported
        self._reported.add(label)
        if is_done:
            if is_new and not self._execution.quiet:
                say(f"{label}: done before")
            return stage
        why = stage.why_not_done()
        if stage.name not in self._may_run:
            raise ArtifactError(
                f"{stage.name} is not there for these settings ({why}); "
                f"run `{_COMMAND_OF[stage.name]}` with the same options first"
            )
        with self._execution.lease(stage) as is_mine:
            if is_mine and stage.restore_marker():
                say(f"{label}: {why}; all other files are as they were written")
            elif is_mine:
                say(f"{label}: {why}")
                self._compute(stage, compute)
            else:
                say(f"{label}: done meanwhile")
        return stage

    def _compute(self, stage: Stage, compute: Callable[[Run], dict[str, Any]]) -> None:
        stage.begin()
        started = time.monotonic()
        with self._tracker.stage(stage.name) as run:
            run.params({"fingerprint": stage.fingerprint, **stage.depends})
            manifest = compute(run)
            seconds = round(time.monotonic() - started, 2)
            run.metrics({"seconds": seconds})
            stage.finish({**manifest, "seconds": seconds, "provenance": provenance()})
