"""The two tasks, and the task of each base model."""

from distributed_avel.config import ModelConfig, TrainConfig
from distributed_avel.models.base import model_class
from distributed_avel.tasks.base import Modality, SegmentCounts, Task, WindowCounts
from distributed_avel.tasks.evaluation import (
    EvaluationLabels,
    best_epoch_metric,
    criterion_of,
    lacks_times,
)
from distributed_avel.tasks.localization import Localization
from distributed_avel.tasks.parsing import Parsing

__all__ = [
    "EvaluationLabels",
    "Localization",
    "Modality",
    "Parsing",
    "SegmentCounts",
    "Task",
    "WindowCounts",
    "best_epoch_metric",
    "criterion_of",
    "lacks_times",
    "task_class",
    "task_of",
]

_TASKS: dict[str, type[Task]] = {"localization": Localization, "parsing": Parsing}


def task_class(model: str) -> type[Task]:
    """Return the task class of a base model, by the name of the model."""
    return _TASKS[model_class(model).task]


def task_of(model: ModelConfig, train: TrainConfig) -> Task:
    """Create the task of a run from its configuration."""
    if task_class(model.name) is Parsing:
        return Parsing(visual_smoothing=train.visual_smoothing)
    pooling = model_class(model.name).pooling if model.pooling == "model" else model.pooling
    return Localization(pooling=pooling, loss=train.loss)
