"""How a stage comes to be there: found as somebody left it, or computed, timed and finished."""

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
"""Of the code behind each stage. Raise it with a change that makes other results."""

STAGES = tuple(REVISIONS)
"""Names of the stages, in order."""

_JOB_OF = {
    "data": "jobs/extract.py",
    "extract": "jobs/extract.py",
    "base": "jobs/train_base.py",
    "refine": "jobs/refine.py",
    "screen": "jobs/retrain.py",
    "retrain": "jobs/retrain.py",
    "evaluate": "jobs/evaluate.py",
    "report": "jobs/evaluate.py",
}


@contextmanager
def _nobody_else(stage: Stage) -> Iterator[bool]:
    yield True


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where stages are computed, and how.

    Args:
        here: Train and score in this process rather than in workers of their own: what takes
            seconds is not worth their start.
        watch: Called after each epoch of a training in this process.
        quiet: Say nothing of stages that are there.
        alone_at: Holds a stage that others may want at the same moment. It yields whether the
            stage is still to be computed; where it is not, somebody did so meanwhile.
        made: The stages `data` and `extract`, if they are known to be there: many pipelines of
            one data set need not look at all of its files again.
    """

    here: bool = False
    quiet: bool = False
    watch: Watch | None = None
    alone_at: Callable[[Stage], AbstractContextManager[bool]] = _nobody_else
    made: Mapping[str, Stage] = field(default_factory=dict)


_told: set[str] = set()


def is_intact(stage: Stage) -> bool:
    """Whether a stage is done; what is damaged is said, once in a process."""
    if stage.is_done():
        return True
    damage = stage.damage()
    if damage is not None and damage not in _told:
        _told.add(damage)
        say(f"WARNING: {damage}")
    return False


class StageMaker:
    """Computes the stages of a run that are not there.

    Args:
        may_run: Names of the stages that may be computed; another that is not there is an error.
    """

    def __init__(self, tracker: Tracker, may_run: tuple[str, ...], place: Place) -> None:
        self._tracker = tracker
        self._may_run = may_run
        self._place = place
        self._said: set[str] = set()

    def ensure(self, stage: Stage, compute: Callable[[Run], dict[str, Any]]) -> Stage:
        """The stage, computed if it is not there."""
        label = f"{stage.name} {stage.fingerprint}"
        is_done, is_new = is_intact(stage), label not in self._said
        self._said.add(label)
        if is_done:
            if is_new and not self._place.quiet:
                say(f"{label}: done before")
            return stage
        why = stage.why_not_done()
        if stage.name not in self._may_run:
            raise ArtifactError(
                f"{stage.name} is not there for these settings ({why}); "
                f"run `python {_JOB_OF[stage.name]}` with the same options first"
            )
        with self._place.alone_at(stage) as is_mine:
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
