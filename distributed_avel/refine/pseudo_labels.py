"""From window probabilities to pseudo-labels, and the choice of tau (Secs. 4.2 and 5.3).

Labels have a column for background, the last one, if `background` says so. Those of parsing
have none; there a class has two columns, one for what is heard and one for what is seen.

Shape suffixes used in this file:
    V = videos    W = windows    T = segments    G = thresholds
    E = columns of events    K = columns of events and, if there is one, of background
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distributed_avel.errors import DatasetError

Threshold = float | Mapping[str, float]
"""tau; where modalities are labelled apart, one for each by its name."""


THRESHOLD_RULES = {
    "validation": "chosen to remove the share of window labels that is wrong on validation",
    "screened": "chosen on validation, by the best of several Steps 3 that the window labels allow",
}
"""What each name that `refine.threshold` takes stands for."""


def threshold_text(threshold: Threshold) -> str:
    """tau for people: 0.05, or 0.2 heard and 0.7 seen."""
    if isinstance(threshold, Mapping):
        return " and ".join(f"{value:.4g} {part}" for part, value in threshold.items())
    return f"{threshold:.4g}"


def threshold_rule(threshold: float | str, labels: str = "hard") -> str:
    """How tau is found, for tables.

    Args:
        threshold: `refine.threshold`.
        labels: `refine.labels`; soft ones have no tau.
    """
    if labels == "soft":
        return "none, as window labels are soft"
    return THRESHOLD_RULES[threshold] if isinstance(threshold, str) else f"{threshold:g}, given"


def filter_scores(
    prob_VWK: NDArray[np.floating], labels_VK: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Z-hat: a class that the video was not labelled with cannot occur in a window (eq. 10)."""
    return (prob_VWK * labels_VK[:, None, :]).astype(np.float32)


def pseudo_labels(
    scores_VWK: NDArray[np.floating],
    labels_VK: NDArray[np.bool_],
    threshold: float | NDArray[np.float64],
    *,
    background: bool = True,
) -> NDArray[np.bool_]:
    """Labels of the windows (eq. 11), shape (V, W, K).

    A window in which no event reaches `threshold` is background.

    Args:
        scores_VWK: Z-hat, video-level probabilities of the synthetic videos, in [0, 1].
        labels_VK: Video-level labels.
        threshold: tau, in (0, 1), of all columns or of each.
    """
    labels_VWK = (scores_VWK >= threshold) & labels_VK[:, None, :]
    if background:
        labels_VWK[..., -1] = ~labels_VWK[..., :-1].any(axis=-1)
    return labels_VWK


def soft_labels(
    scores_VWK: NDArray[np.floating], labels_VK: NDArray[np.bool_], *, background: bool = True
) -> NDArray[np.float32]:
    """Window probabilities as targets, without a threshold (Sec. 6), shape (V, W, K).

    Background takes what the most probable event leaves.
    """
    soft_VWK = (scores_VWK * labels_VK[:, None, :]).astype(np.float32)
    if background:
        soft_VWK[..., -1] = 1.0 - soft_VWK[..., :-1].max(axis=-1)
    return soft_VWK


def repeated_labels(labels_VK: NDArray[np.bool_], num_windows: int) -> NDArray[np.bool_]:
    """The video-level label Y in every window (the paper's LR_dummy), shape (V, W, K).

    Only the target of eq. (13) changes: L_LR is still the mean, over the T1 windows of the
    original video, of g on the scores pooled within the window, and L_MIL is still added. So
    LR_dummy trains on as many terms as LR, and what LR gains over it comes from the labels. It
    is not a second L_MIL on the whole video, which would be the other reading. A video without
    an event is background in every window.
    """
    return np.repeat(labels_VK[:, None, :], num_windows, axis=1)


def window_truth(
    segment_labels_VTK: NDArray[np.bool_], mask_WT: NDArray[np.bool_], *, background: bool = True
) -> NDArray[np.bool_]:
    """Which events really occur in each window, shape (V, W, K); background where none does."""
    inside_VWTK = segment_labels_VTK[:, None] & mask_WT[None, :, :, None]
    truth_VWK = np.any(inside_VWTK, axis=2)
    if background:
        truth_VWK[..., -1] = ~truth_VWK[..., :-1].any(axis=-1)
    return truth_VWK


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """How well windows are relabelled at each tau.

    Of the (window, labelled class) pairs of annotated videos, `sensitivity_G` is the part
    kept where the class occurs, `specificity_G` the part removed where it does not.
    """

    thresholds_G: NDArray[np.float64]
    sensitivity_G: NDArray[np.float64]
    specificity_G: NDArray[np.float64]
    num_present: int
    num_absent: int

    @property
    def absent_share(self) -> float:
        """Part of the pairs whose class does not occur in the window."""
        return self.num_absent / (self.num_present + self.num_absent)


def threshold_for_share(
    scores_VWK: NDArray[np.floating],
    labels_VK: NDArray[np.bool_],
    removed_share: float,
    thresholds_G: NDArray[np.float64],
    *,
    background: bool = True,
) -> float:
    """Return the tau that removes this part of the (window, labelled class) pairs.

    Step 3 is trained on the windows of the training videos. There, tau removes the share of labels
    that is wrong on the validation split, so that the pseudo-labels have the true prevalence, if
    the splits agree in it. The base model is surer of the videos that it was trained on: a tau
    that is best for validation windows removes almost nothing there.

    Args:
        scores_VWK: Z-hat of the training videos.
        labels_VK: Their video-level labels.
        removed_share: In 0..1.
        thresholds_G: Ascending. The one with the nearest share is taken, of equals the middle.
    """
    share_G = removed_shares(scores_VWK, labels_VK, thresholds_G, background=background)
    distance_G = np.abs(share_G - removed_share)
    nearest = np.flatnonzero(distance_G <= distance_G.min() + 1e-12)
    longest = max(np.split(nearest, np.flatnonzero(np.diff(nearest) > 1) + 1), key=len)
    return float(thresholds_G[longest[len(longest) // 2]])


def removed_shares(
    scores_VWK: NDArray[np.floating],
    labels_VK: NDArray[np.bool_],
    thresholds_G: NDArray[np.float64],
    *,
    background: bool = True,
) -> NDArray[np.float64]:
    """Return the part of the (window, labelled class) pairs that each tau removes, in 0..1."""
    num_events = labels_VK.shape[-1] - background
    scores_VWE = np.asarray(scores_VWK[..., :num_events])
    labelled_VWE = np.broadcast_to(labels_VK[:, None, :num_events], scores_VWE.shape)
    scores_P = np.sort(scores_VWE[labelled_VWE])
    return np.searchsorted(scores_P, thresholds_G, side="left") / max(len(scores_P), 1)


def threshold_grid() -> NDArray[np.float64]:
    """Thresholds from 6e-6 to 1 - 6e-6, evenly spaced on the logit scale."""
    return 1.0 / (1.0 + np.exp(-np.linspace(-12.0, 12.0, 241)))


def threshold_curve(
    scores_VWK: NDArray[np.floating],
    labels_VK: NDArray[np.bool_],
    truth_VWK: NDArray[np.bool_],
    thresholds_G: NDArray[np.float64],
    *,
    background: bool = True,
) -> ThresholdCurve:
    """Compare the pseudo-labels of annotated videos with their segment labels (Sec. 5.3).

    Raises:
        DatasetError: Every labelled class occurs in every window, or none does, so that no
            tau is better than another.
    """
    num_events = truth_VWK.shape[-1] - background
    truth_VWE = truth_VWK[..., :num_events]
    labelled_VWE = np.broadcast_to(labels_VK[:, None, :num_events], truth_VWE.shape)
    scores_P = np.asarray(scores_VWK[..., :num_events])[labelled_VWE]
    present_P = truth_VWE[labelled_VWE]
    if present_P.all() or not present_P.any():
        raise DatasetError(
            f"the validation split cannot tell good thresholds from bad ones: "
            f"{int(present_P.sum())} of {len(present_P)} windows have their event; "
            "annotate more videos"
        )
    kept_GP = scores_P[None, :] >= thresholds_G[:, None]
    return ThresholdCurve(
        thresholds_G=thresholds_G,
        sensitivity_G=kept_GP[:, present_P].mean(axis=1),
        specificity_G=(~kept_GP[:, ~present_P]).mean(axis=1),
        num_present=int(present_P.sum()),
        num_absent=int((~present_P).sum()),
    )
