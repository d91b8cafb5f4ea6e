"""Warnings shown above the results: signs that a training collapsed or changed nothing."""

from collections.abc import Mapping

from distributed_avel.method.pseudo_labels import RemovedShare
from distributed_avel.metrics.bootstrap import Interval
from distributed_avel.report.page_data import Report
from distributed_avel.report.tables import heading, is_naive
from distributed_avel.tasks import SegmentCounts, WindowCounts


def window_warnings(windows: WindowCounts) -> list[str]:
    """Warn if Step 2 removed (nearly) all events from the windows, or (nearly) none.

    Returns:
        At most one warning.
    """
    share = windows.background / max(1, windows.of_events)
    if share > 0.95:
        return [
            f"{share:.0%} of the windows of videos with an event have no event left, so Step 3 "
            "learns to predict background; lower refine.threshold or train Step 1 longer"
        ]
    if windows.restored > 0.5 * sum(windows.of_class):
        return [
            f"{windows.restored} of {sum(windows.of_class)} labels belong to events that "
            "the base model finds in neither modality alone, so both modalities keep them and "
            "Step 3 learns the video-level labels; lower refine.threshold or train Step 1 longer"
        ]
    if sum(windows.kept_of_class) > 0.999 * sum(windows.of_class):
        return [
            "refinement removed (nearly) no event from any window, so Step 3 learns the "
            "video-level labels; raise refine.threshold"
        ]
    return []


def share_warnings(shares: Mapping[str, RemovedShare]) -> list[str]:
    """Warn about each tau that misses the share of labels that it should remove.

    Args:
        shares: Shares from the manifest of Step 2, by group of columns (`Task.parts`).
    """
    # Many windows with the same probability make the removed share jump between grid points.
    return [
        f"{part}: tau should remove {share.requested:.1%} of the labels from the training "
        f"windows but removes {share.achieved:.1%}; no tau in the grid comes closer, because "
        "many windows have nearly the same probability; set refine.threshold to a number or to "
        "screened, or train Step 1 for fewer epochs"
        for part, share in shares.items()
        if abs(share.requested - share.achieved) > _MAX_SHARE_ERROR
    ]


_MAX_SHARE_ERROR = 0.05


def segments_text(segments: SegmentCounts) -> str:
    """Describe the base model's predictions on the training segments, the targets of arm PL."""
    text = (
        f"the base model predicts background in {segments.background} of "
        f"{segments.segments} training segments and an event outside the video-level label in "
        f"{segments.outside_label}"
    )
    if segments.of_event_free:
        text += (
            f"; in videos without an event it predicts one in "
            f"{segments.events_in_event_free} of {segments.of_event_free} segments"
        )
    return text


def prediction_warnings(background: Mapping[str, float]) -> list[str]:
    """Warn about each arm that predicts (nearly) no event.

    Args:
        background: Share of the test segments without a predicted event, in 0..1, by arm.
    """
    return [
        f"{arm} predicts no event in {share:.0%} of the test segments: it has collapsed to "
        "background"
        for arm, share in background.items()
        if share > 0.95
    ]


_GROUND_TRUTH = "GT-repeat"
_MAX_FAILED = 0.1


def result_warnings(report: Report) -> list[str]:
    """Warn about arms below a baseline or chance, and about a refined arm below its base model."""
    name = heading(report.headline)
    values = {
        arm: value
        for arm, figures in report.results.items()
        if isinstance(value := figures.get(report.headline), float)
    }
    trained = {arm: value for arm, value in values.items() if not is_naive(arm)}
    warnings = []
    if report.chance is not None and (low := _below(trained, report.chance)):
        warnings.append(
            f"{name} of {low} is not above chance ({report.chance:.1f}, the most frequent class in "
            "every segment): check the labels, and train Step 1 longer"
        )
    baseline = values.get(_GROUND_TRUTH)
    if baseline is not None and (low := _below(trained, baseline)):
        warnings.append(
            f"{name} of {low} is not above {_GROUND_TRUTH} ({baseline:.1f}): repeating the "
            "ground-truth video-level label over all segments does as well, without finding when "
            "events happen"
        )
    arms = [arm for arm in report.compared if arm in trained]
    if len(arms) > 1 and trained[arms[-1]] < trained[arms[0]]:
        base, refined = arms[0], arms[-1]
        warnings.append(
            f"refinement lost: {name} falls from {trained[base]:.1f} ({base}) to "
            f"{trained[refined]:.1f} ({refined})"
            + _interval_text(report.differences.get(report.headline))
            + "; compare other values of refine.threshold on validation"
        )
    return warnings


def failure_warnings(num_failed: int, num_videos: int) -> list[str]:
    """Warn if more than a tenth of the videos could not be used.

    Args:
        num_failed: Videos without features.
        num_videos: All videos of the data set.
    """
    if num_failed <= _MAX_FAILED * num_videos:
        return []
    return [
        f"{num_failed} of {num_videos} videos ({num_failed / num_videos:.0%}) could not be used: "
        "the results are those of a part of the data set; the reasons are at the end of the page"
    ]


def _below(values: Mapping[str, float], limit: float) -> str:
    """Name the arms that are not above a limit, with their values."""
    return ", ".join(f"{arm} ({value:.1f})" for arm, value in values.items() if value <= limit)


def _interval_text(found: Interval | None) -> str:
    if found is None:
        return ""
    return (
        f", a difference of {found.value:.1f} (95 % interval {found.low:.1f} to {found.high:.1f})"
    )
