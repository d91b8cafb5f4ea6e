"""Base class of the stages, and the context that the stages of a pipeline share.

A stage declares what its result depends on. A hash of that is its fingerprint, and its artifact is
`<run_dir>/<stage>/<fingerprint>/`. `Stage.ensure` reuses the artifact if it is finished and
undamaged, and computes it otherwise, after the inputs of the stage.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from distributed_avel.artifacts import Artifact
from distributed_avel.cluster.progress import say
from distributed_avel.cluster.training_workers import Watch
from distributed_avel.config import RunConfig
from distributed_avel.errors import ArtifactError
from distributed_avel.provenance import provenance
from distributed_avel.registry import import_plugins
from distributed_avel.storage import Location
from distributed_avel.tasks import Task, task_of

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run, Tracker

ManifestT = TypeVar("ManifestT")


@contextmanager
def _no_lease(artifact: Artifact) -> Iterator[bool]:
    yield True


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """How a pipeline computes its stages.

    Args:
        in_process: Train and score in the current process instead of in workers. Worth it for
            stages of seconds, because workers take seconds to start.
        watch: Called after each epoch of a training in the current process.
        quiet: Do not report cached stages.
        lease: Context manager around the computation of an artifact that other processes may need
            at the same time. It yields False if another process has finished the artifact. A lease
            is the right to compute an artifact for a limited time, see `cluster.leases`.
        known: Artifacts, by the name of their stage, that are known to be finished, so that many
            pipelines on one data set do not verify all of its files again.
    """

    in_process: bool = False
    quiet: bool = False
    watch: Watch | None = None
    lease: Callable[[Artifact], AbstractContextManager[bool]] = _no_lease
    known: Mapping[str, Artifact] = field(default_factory=dict)


@dataclass(kw_only=True)
class Context:
    """Configuration and services that the stages of a pipeline share.

    Args:
        tracker: Logs each stage that is computed.
        may_run: Names of the stages that may be computed; any other must be cached. None: all.
    """

    config: RunConfig
    tracker: "Tracker"
    execution: Execution = field(default_factory=Execution)
    may_run: Sequence[str] | None = None
    _reported: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        import_plugins(self.config.plugins)  # a trial runs in a process that has not done so

    @cached_property
    def run_dir(self) -> Location:
        """The folder of the run."""
        return Location.at(self.config.resolved_run_dir)

    @cached_property
    def task(self) -> Task:
        """The task of the base model."""
        return task_of(self.config.model, self.config.train)

    def run_or_reuse(
        self,
        artifact: Artifact,
        compute: "Callable[[Run], Mapping[str, Any]]",
        command: str,
        temporary: Sequence[str] = (),
    ) -> None:
        """Compute an artifact unless it is finished and undamaged.

        Args:
            compute: Writes the files of the artifact and returns its manifest.
            command: The command that computes the stage, for the message.
            temporary: See `Artifact.finish`.

        Raises:
            ArtifactError: The artifact is not finished, and its stage is not in `may_run`.
        """
        label = f"{artifact.name} {artifact.fingerprint}"
        is_done, is_new = is_intact(artifact), label not in self._reported
        self._reported.add(label)
        if is_done:
            if is_new and not self.execution.quiet:
                say(f"{label}: cache hit")
            return
        reason = artifact.why_not_done()
        if self.may_run is not None and artifact.name not in self.may_run:
            raise ArtifactError(
                f"{artifact.name} has no result for these settings ({reason}); "
                f"run `{command}` with the same options first"
            )
        with self.execution.lease(artifact) as has_lease:
            if has_lease and artifact.restore_marker():
                say(f"{label}: {reason}; all other files are intact")
            elif has_lease:
                say(f"{label}: {reason}")
                self._compute(artifact, compute, temporary)
            else:
                say(f"{label}: finished by another process")

    def _compute(
        self,
        artifact: Artifact,
        compute: "Callable[[Run], Mapping[str, Any]]",
        temporary: Sequence[str],
    ) -> None:
        artifact.begin()
        started = time.monotonic()
        with self.tracker.stage(artifact.name) as run:
            run.params({"fingerprint": artifact.fingerprint, **artifact.depends})
            manifest = compute(run)
            seconds = round(time.monotonic() - started, 2)
            run.metrics({"seconds": seconds})
            facts = {**manifest, "seconds": seconds, "provenance": provenance()}
            artifact.finish(facts, temporary)


_reported_damage: set[str] = set()


def is_intact(artifact: Artifact) -> bool:
    """Return True if an artifact is finished and undamaged; damage is reported once per process."""
    if artifact.is_done():
        return True
    damage = artifact.damage()
    if damage is not None and damage not in _reported_damage:
        _reported_damage.add(damage)
        say(f"WARNING: {damage}")
    return False


@dataclass(frozen=True, slots=True)
class NoManifest:
    """Manifest of a stage that records no facts."""


class Stage(ABC, Generic[ManifestT]):
    """One step of a pipeline with given settings and inputs; its result may not exist yet.

    Subclasses set the class attributes, and implement `inputs`, `depends` and `compute`.
    """

    name: ClassVar[str]
    """Name of the stage, and of the folder of its artifacts."""

    revision: ClassVar[int]
    """Part of the fingerprint. Increase it if new code changes results."""

    command: ClassVar[str]
    """The command that computes the stage."""

    temporary: ClassVar[Sequence[str]] = ()
    """Path prefixes of files that are removed at the end, such as checkpoints."""

    manifest_type: ClassVar[type[Any]]
    """Dataclass of the facts that `compute` returns, `ManifestT`."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._is_ensured = False

    @abstractmethod
    def inputs(self) -> "Sequence[Stage[Any]]":
        """Return the stages that must be finished before `depends` and `compute` are called."""

    @abstractmethod
    def depends(self) -> Mapping[str, Any]:
        """Return what the result depends on, as JSON: settings and fingerprints of inputs."""

    @abstractmethod
    def compute(self, out: Location, run: "Run") -> ManifestT:
        """Write the files of the result to `out`, and return the facts for the manifest."""

    @property
    def config(self) -> RunConfig:
        """The configuration of the pipeline."""
        return self.context.config

    @cached_property
    def artifact(self) -> Artifact:
        """The artifact of the stage, finished or not."""
        known = self.context.execution.known.get(self.name)
        if known is not None:
            return known
        depends = {"revision": self.revision, **self.depends()}
        return Artifact(self.context.run_dir, self.name, depends)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the result depends on."""
        return self.artifact.fingerprint

    @property
    def location(self) -> Location:
        """The folder of the result."""
        return self.artifact.location

    @cached_property
    def manifest(self) -> ManifestT:
        """The facts that `compute` returned.

        Raises:
            ArtifactError: The stage is not finished, or its result is damaged.
        """
        content = self.artifact.manifest()
        try:
            return TypeAdapter[Any](self.manifest_type).validate_python(content)
        except ValidationError as error:
            raise ArtifactError(
                f"{self.location}: not the manifest of this stage: {error}"
            ) from None

    def is_done(self) -> bool:
        """Return True if the result is finished and undamaged; damage is reported."""
        return is_intact(self.artifact)

    def ensure(self) -> Self:
        """Compute the stage, after its inputs, or reuse its result.

        Raises:
            ArtifactError: There is no result and the stage may not run, see `Context.run_or_reuse`.
        """
        if not self._is_ensured and self.name not in self.context.execution.known:
            for stage in self.inputs():
                stage.ensure()
            self.context.run_or_reuse(self.artifact, self._compute, self.command, self.temporary)
            self.after_ensuring()
        self._is_ensured = True
        return self

    def after_ensuring(self) -> None:
        """Hook that is called once when the result exists, computed now or by an earlier run."""

    def __getstate__(self) -> dict[str, Any]:
        """Drop cached properties except the artifact, to keep a pickled stage small."""
        return {
            name: value
            for name, value in vars(self).items()
            if name == "artifact"
            or not isinstance(getattr(type(self), name, None), cached_property)
        }

    def _compute(self, run: "Run") -> Mapping[str, Any]:
        return asdict(self.compute(self.location, run))  # pyright: ignore[reportArgumentType]
