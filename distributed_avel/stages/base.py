"""Stage `base` (Step 1): train the base model, with or without the auxiliary loss L_A."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from distributed_avel.config import RunConfig
from distributed_avel.method.windows import windows_of_length
from distributed_avel.stages.cache_keys import STEP_3, refine_section, training_settings
from distributed_avel.stages.features import FeatureStage
from distributed_avel.stages.stage import Context, Stage
from distributed_avel.stages.training import TrainingStage
from distributed_avel.storage import Location
from distributed_avel.tasks import Task
from distributed_avel.train.initial_weights import WeightsSource, initial_weights, read_source

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run


@dataclass(frozen=True, slots=True)
class BaseManifest:
    """Facts about the training.

    Args:
        num_videos: Number of training videos.
    """

    num_videos: int


class BaseTraining(TrainingStage[BaseManifest]):
    """Step 1.

    Args:
        auxiliary: Train with the auxiliary loss L_A (eqs. 15 to 18).
    """

    name = "base"
    revision = 4
    command = "avel train-base"
    manifest_type = BaseManifest

    def __init__(self, context: Context, features: FeatureStage, *, auxiliary: bool) -> None:
        super().__init__(context, features)
        self.auxiliary = auxiliary

    def inputs(self) -> Sequence[Stage[Any]]:
        """Return the features."""
        return (self.features,)

    def depends(self) -> Mapping[str, Any]:
        """Return the settings, and the training and validation videos."""
        task = self.context.task
        return {
            "settings": settings(self.config, task, auxiliary=self.auxiliary),
            **({"weights": self.source.sha256} if self.source else {}),
            **self.videos_identity(),
        }

    def compute(self, out: Location, run: "Run") -> BaseManifest:
        """Train from scratch, or from the weights that are set."""
        config = self.config
        num_videos = self.train(
            out,
            run,
            name="base+A" if self.auxiliary else "base",
            num_epochs=config.train.base_epochs,
            windows_of=partial(
                windows_of_length, window=config.refine.window, stride=config.refine.stride
            ),
            partners=config.refine.partners if self.auxiliary else None,
            initial=initial_weights(self.source, self.untrained()) if self.source else None,
        )
        return BaseManifest(num_videos)

    @cached_property
    def source(self) -> WeightsSource | None:
        """The file of weights that the training starts with, if one is set.

        Raises:
            WeightsError: It does not exist.
        """
        place = self.config.model.weights
        return None if place is None else read_source(place)


def settings(config: RunConfig, task: Task, *, auxiliary: bool) -> dict[str, Any]:
    """Return the settings of Step 1; windows and partners are read by the auxiliary loss only."""
    read = training_settings(config, task, config.train.base_epochs)
    if auxiliary:
        unread = STEP_3 | {"num_partners", "unit_size", "use_gpu"}
        read["auxiliary"] = refine_section(config, unread)
    return read
