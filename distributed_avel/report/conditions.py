"""State which figures need the times of events, and what is used without them."""

from collections.abc import Sequence

from distributed_avel.datasets import Video
from distributed_avel.report.tables import heading
from distributed_avel.tasks import Task, best_epoch_metric


def times_conditions(
    task: Task, test: Sequence[Video], validation: Sequence[Video], keep: str
) -> dict[str, str]:
    """Describe figures that are absent, partial or replaced because videos have no times.

    Args:
        task: Task of the models.
        test: Test videos with features.
        validation: Validation videos with features.
        keep: `train.keep`.

    Returns:
        Conditions for tables; empty if all videos have times.
    """
    conditions = {}
    annotated_V = task.annotated(test)
    if not annotated_V.any():
        names = ", ".join(heading(metric) for metric in task.metrics)
        conditions["segment metrics"] = (
            f"absent, because none of {len(test)} test videos has the times of its events: {names}"
        )
    elif not annotated_V.all():
        with_times = [v for v, annotated in zip(test, annotated_V, strict=True) if annotated]
        num_events = sum(bool(video.labels) for video in with_times)
        conditions["segment metrics"] = (
            f"of {len(with_times)} of {len(test)} test videos: {num_events} with the times of "
            f"their events, {len(with_times) - num_events} without an event; video metrics are of "
            "all"
        )
    validated_V = task.annotated(validation)
    if validated_V.all():
        return conditions
    num_annotated = int(validated_V.sum())
    conditions["times in validation"] = f"{num_annotated} of {len(validation)} videos"
    if keep == "best":
        metric = task.best_epoch if num_annotated else best_epoch_metric(task, {})
        conditions["best epoch"] = f"by {heading(metric)} on validation"
    return conditions
