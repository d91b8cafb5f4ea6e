"""What a reader must know before the figures: signs that a training came to nothing."""

from collections.abc import Mapping
from typing import Any


def window_warnings(windows: Mapping[str, Any]) -> list[str]:
    """What to say where (nearly) no window has an event left, or all have what they had.

    Args:
        windows: The counts of `runtime.refine.labels_of_windows`.
    """
    share = windows["background"] / max(1, windows["of_events"])
    if share > 0.95:
        return [
            f"{share:.0%} of the windows of event videos have no event left, so Step 3 learns to "
            "predict none; lower refine.threshold or train Step 1 longer"
        ]
    if windows["restored"] > 0.5 * sum(windows["of_class"]):
        return [
            f"{windows['restored']} of {sum(windows['of_class'])} labels belong to events that "
            "neither modality shows alone, so both keep them and Step 3 learns what the video "
            "labels say; lower refine.threshold or train Step 1 longer"
        ]
    if sum(windows["kept_of_class"]) > 0.999 * sum(windows["of_class"]):
        return [
            "refinement removed no event from any window, so Step 3 learns what the video labels "
            "say; raise refine.threshold"
        ]
    return []


def share_warnings(shares: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line for each part of the columns whose tau misses the share it was chosen for.

    Args:
        shares: "removed_share" of the manifest of Step 2.
    """
    return [
        f"{part}: tau was to remove {share['requested']:.1%} of the labels from the training "
        f"windows and removes {share['achieved']:.1%}; no tau of the grid comes nearer, as many "
        "windows have nearly the same probability; set refine.threshold to a number or to "
        "screened, or train Step 1 for fewer epochs"
        for part, share in shares.items()
        if abs(share["requested"] - share["achieved"]) > _MAX_SHARE_ERROR
    ]


_MAX_SHARE_ERROR = 0.05


def segments_text(segments: Mapping[str, int]) -> str:
    """What the base model predicts for the training segments, which PL takes for ground truth.

    Args:
        segments: The counts of `Task.count_segments`.
    """
    text = (
        f"the base model calls {segments['background']} of {segments['segments']} training "
        f"segments background and names an event outside the video-level label in "
        f"{segments['outside_label']}"
    )
    if segments["of_event_free"]:
        text += (
            f"; in videos without an event it names one in {segments['events_in_event_free']} of "
            f"{segments['of_event_free']} segments"
        )
    return text


def prediction_warnings(background: Mapping[str, float]) -> list[str]:
    """What to say of arms that predict (nearly) no event.

    Args:
        background: The share of the test segments without a predicted event, by arm.
    """
    return [
        f"{arm} finds no event in {share:.0%} of the test segments: it has collapsed"
        for arm, share in background.items()
        if share > 0.95
    ]
