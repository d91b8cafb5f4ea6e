"""Pseudo-labels from window probabilities, and the choice of tau (Secs. 4.2 and 5.3).

The argument `background` says whether the last column of labels and probabilities is background.
Labels of parsing have no background, and two columns per class: audio and visual.

Shape suffixes used in this file:
    V = videos    W = windows    T = segments    G = thresholds
    E = columns of events    K = E, plus 1 if there is a column for background
    P = (window, labelled class) pairs    S = spliced copies of a video
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distributed_avel.errors import DatasetError

Threshold = float | Mapping[str, float]
"""tau, or one tau for each group of columns (`Task.parts`) by its name."""


THRESHOLD_RULES = {
    "validation": "chosen to remove the share of window labels that is wrong on validation",
    "screened": "the best of several Steps 3 on validation, pre-selected by the window labels",
    "spliced": "chosen to separate training windows from those without one modality of the video",
}
"""Description of each rule that `refine.threshold` accepts."""


def threshold_text(threshold: Threshold) -> str:
    """Format tau, such as "0.05" or "0.2 heard and 0.7 seen"."""
    if isinstance(threshold, Mapping):
        return " and ".join(f"{value:.4g} {part}" for part, value in threshold.items())
    return f"{threshold:.4g}"


def threshold_rule(threshold: float | str, labels: str = "hard") -> str:
    """Describe how tau is chosen, for tables.

    Args:
        threshold: `refine.threshold`.
        labels: `refine.labels`; soft labels have no tau.
    """
    if labels == "soft":
        return "none, because window labels are soft"
    return THRESHOLD_RULES[threshold] if isinstance(threshold, str) else f"{threshold:g}, given"


def filter_scores(
    prob_VWK: NDArray[np.floating], labels_VK: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Compute Z-hat: the window probabilities, 0 for classes outside the video label (eq. 10).

    Args:
        prob_VWK: Video-level probabilities of the synthetic videos, in 0..1.
        labels_VK: Video-level labels Y of the original videos.

    Returns:
        Shape (V, W, K).
    """
    return (prob_VWK * labels_VK[:, None, :]).astype(np.float32)


def pseudo_labels(
    prob_VWK: NDArray[np.floating],
    labels_VK: NDArray[np.bool_],
    threshold: float | NDArray[np.float64],
    *,
    background: bool = True,
) -> NDArray[np.bool_]:
    """Threshold Z-hat at tau to obtain the pseudo-labels of the windows (eq. 11).

    Args:
        prob_VWK: Z-hat (`filter_scores`), in 0..1.
        labels_VK: Video-level labels.
        threshold: tau in (0, 1), of all columns or of each column.
        background: Whether the last column is background.

    Returns:
        Shape (V, W, K).
    """

    labels_VWK = (prob_VWK >= threshold) & labels_VK[:, None, :]
    # The paper leaves windows without any event open. As background they reach 80 % accuracy and
    # 52 % non-AVE F1, with all-zero targets 76 and 24 (prototype).
    if background:
        labels_VWK[..., -1] = ~labels_VWK[..., :-1].any(axis=-1)
    return labels_VWK


def soft_labels(
    prob_VWK: NDArray[np.floating], labels_VK: NDArray[np.bool_], *, background: bool = True
) -> NDArray[np.float32]:
    """Use Z-hat as soft targets, without a threshold (Sec. 6), shape (V, W, K).

    The target of background is 1 minus the probability of the most probable event.
    """
    soft_VWK = (prob_VWK * labels_VK[:, None, :]).astype(np.float32)
    if background:
        soft_VWK[..., -1] = 1.0 - soft_VWK[..., :-1].max(axis=-1)
    return soft_VWK


def repeated_labels(labels_VK: NDArray[np.bool_], num_windows: int) -> NDArray[np.bool_]:
    """Repeat the video-level label Y in every window (the paper's LR_dummy), shape (V, W, K).

    LR_dummy differs from LR only in the targets of eq. (13): L_LR is the mean over the T1 windows
    of the original video, and L_MIL is added. Both arms train on the same number of loss terms,
    so a difference between them is due to the labels. The paper could also be read as a second
    L_MIL on the whole video. A video without an event is background in every window.
    """
    return np.repeat(labels_VK[:, None, :], num_windows, axis=1)


def window_truth(
    segment_labels_VTK: NDArray[np.bool_], mask_WT: NDArray[np.bool_], *, background: bool = True
) -> NDArray[np.bool_]:
    """Compute the ground-truth labels of the windows from those of the segments.

    Args:
        segment_labels_VTK: Ground truth of each segment.
        mask_WT: Segments of each window.
        background: Whether the last column is background; it is set if a window has no event.

    Returns:
        Shape (V, W, K).
    """
    inside_VWTK = segment_labels_VTK[:, None] & mask_WT[None, :, :, None]
    truth_VWK = np.any(inside_VWTK, axis=2)
    if background:
        truth_VWK[..., -1] = ~truth_VWK[..., :-1].any(axis=-1)
    return truth_VWK


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """Agreement of pseudo-labels with the ground truth of windows, for each tau.

    It is computed over all pairs of a window and a class of the video-level label.

    Args:
        thresholds_G: Values of tau.
        sensitivity_G: Share of the pairs whose class occurs in the window that tau keeps.
        specificity_G: Share of the pairs whose class does not occur that tau removes.
        num_present: Number of pairs whose class occurs.
        num_absent: Number of pairs whose class does not occur.
    """

    thresholds_G: NDArray[np.float64]
    sensitivity_G: NDArray[np.float64]
    specificity_G: NDArray[np.float64]
    num_present: int
    num_absent: int

    @property
    def absent_share(self) -> float:
        """Share of the pairs whose class does not occur in the window."""
        return self.num_absent / (self.num_present + self.num_absent)


def separation_curve(
    prob_VWK: NDArray[np.floating],
    spliced_SVWK: NDArray[np.floating],
    labels_VK: NDArray[np.bool_],
    thresholds_G: NDArray[np.float64],
    *,
    background: bool = True,
) -> ThresholdCurve:
    """Compare windows of videos with windows of spliced videos, whose labels are known to be wrong.

    The labels of windows of the videos count as present: whether an event of the video-level label
    occurs in a window is unknown without times, and most windows have it.

    Args:
        prob_VWK: Z-hat of the videos.
        spliced_SVWK: Z-hat of S spliced copies of each video that lack its events.
        labels_VK: Video-level labels of the videos.
        thresholds_G: Values of tau.
        background: Whether the last column is background.
    """
    num_events = labels_VK.shape[-1] - background
    present_P = _labelled(prob_VWK[..., :num_events], labels_VK[:, :num_events])
    absent_P = np.concatenate(
        [_labelled(of_V[..., :num_events], labels_VK[:, :num_events]) for of_V in spliced_SVWK]
    )
    return ThresholdCurve(
        thresholds_G=thresholds_G,
        sensitivity_G=1.0 - _below(present_P, thresholds_G),
        specificity_G=_below(absent_P, thresholds_G),
        num_present=len(present_P),
        num_absent=len(absent_P),
    )


def most_separating(curve: ThresholdCurve) -> tuple[float, float]:
    """Return the tau with the largest Youden index (sensitivity + specificity - 1), and the index.

    Of a run of equally good values, the middle one is returned.
    """
    youden_G = curve.sensitivity_G + curve.specificity_G - 1.0
    best = np.flatnonzero(youden_G >= youden_G.max() - 1e-12)
    return float(curve.thresholds_G[_middle_of_longest_run(best)]), float(youden_G.max())


def threshold_for_share(
    prob_VWK: NDArray[np.floating],
    labels_VK: NDArray[np.bool_],
    removed_share: float,
    thresholds_G: NDArray[np.float64],
    *,
    background: bool = True,
) -> float:
    """Choose the tau that removes a given share of the (window, labelled class) pairs.

    The share is that of wrong labels on the validation split, so that the pseudo-labels of the
    training windows have the true prevalence if both splits have the same. A tau that is best for
    validation windows would remove almost nothing from training windows, because the base model
    is more confident on the videos that it was trained on.

    Args:
        prob_VWK: Z-hat of the training videos.
        labels_VK: Video-level labels of the training videos.
        removed_share: Share of the pairs to remove, in 0..1.
        thresholds_G: Candidates, ascending.
        background: Whether the last column is background.

    Returns:
        The candidate with the closest share; the middle one of the longest run of ties.
    """
    share_G = removed_shares(prob_VWK, labels_VK, thresholds_G, background=background)
    distance_G = np.abs(share_G - removed_share)
    nearest = np.flatnonzero(distance_G <= distance_G.min() + 1e-12)
    return float(thresholds_G[_middle_of_longest_run(nearest)])


@dataclass(frozen=True, slots=True)
class RemovedShare:
    """Share of the labels of training windows that a tau removes, in 0..1.

    Args:
        requested: Share that it should remove.
        achieved: Share that it removes.
    """

    requested: float
    achieved: float


def removed_shares(
    prob_VWK: NDArray[np.floating],
    labels_VK: NDArray[np.bool_],
    thresholds_G: NDArray[np.float64],
    *,
    background: bool = True,
) -> NDArray[np.float64]:
    """Compute the share of the (window, labelled class) pairs that each tau removes, in 0..1."""
    num_events = labels_VK.shape[-1] - background
    prob_P = _labelled(prob_VWK[..., :num_events], labels_VK[:, :num_events])
    return _below(prob_P, thresholds_G)


def _labelled(prob_VWE: NDArray[np.floating], labels_VE: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the probabilities of the (window, labelled class) pairs, shape (P,)."""
    prob_VWE = np.asarray(prob_VWE)
    return prob_VWE[np.broadcast_to(labels_VE[:, None], prob_VWE.shape)]


def _below(prob_P: NDArray[np.floating], thresholds_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the probabilities that each tau removes, shape (G,)."""
    # side="left" counts the probabilities below tau: eq. (11) keeps those that equal tau.
    return np.searchsorted(np.sort(prob_P), thresholds_G, side="left") / max(len(prob_P), 1)


def _middle_of_longest_run(indices: NDArray[np.intp]) -> int:
    """Return the middle element of the longest run of consecutive indices."""
    longest = max(np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1), key=len)
    return int(longest[len(longest) // 2])


def threshold_grid() -> NDArray[np.float64]:
    """Return thresholds from 6e-6 to 1 - 6e-6, evenly spaced on the logit scale.

    A linear grid would miss the good thresholds of confident models, which are close to 0 or 1.
    """
    return 1.0 / (1.0 + np.exp(-np.linspace(-12.0, 12.0, 241)))


def threshold_curve(
    prob_VWK: NDArray[np.floating],
    labels_VK: NDArray[np.bool_],
    truth_VWK: NDArray[np.bool_],
    thresholds_G: NDArray[np.float64],
    *,
    background: bool = True,
) -> ThresholdCurve:
    """Compare the pseudo-labels of annotated videos with their segment labels (Sec. 5.3).

    Args:
        prob_VWK: Z-hat.
        labels_VK: Video-level labels.
        truth_VWK: Ground truth of the windows, see `window_truth`.
        thresholds_G: Values of tau.
        background: Whether the last column is background.

    Raises:
        DatasetError: Every labelled class occurs in every window, or none occurs in any, so that
            the curve is undefined.
    """
    num_events = truth_VWK.shape[-1] - background
    truth_VWE = truth_VWK[..., :num_events]
    labelled_VWE = np.broadcast_to(labels_VK[:, None, :num_events], truth_VWE.shape)
    prob_P = np.asarray(prob_VWK[..., :num_events])[labelled_VWE]
    present_P = truth_VWE[labelled_VWE]
    if present_P.all() or not present_P.any():
        raise DatasetError(
            "tau cannot be chosen on the validation split: "
            f"{int(present_P.sum())} of {len(present_P)} windows have their event, and both "
            "windows with and without it are needed; annotate more videos"
        )
    kept_GP = prob_P[None, :] >= thresholds_G[:, None]
    return ThresholdCurve(
        thresholds_G=thresholds_G,
        sensitivity_G=kept_GP[:, present_P].mean(axis=1),
        specificity_G=(~kept_GP[:, ~present_P]).mean(axis=1),
        num_present=int(present_P.sum()),
        num_absent=int((~present_P).sum()),
    )
