"""Video-level metrics, which need no times: mAP and F1 of the events of whole videos.

Shape suffixes used in this file:
    V = videos    C = event classes
"""

import numpy as np
from numpy.typing import NDArray

VIDEO_METRICS = ("video_map", "video_f1")
"""Keys of `video_metrics`, in the order of the tables."""


def video_metrics(
    labels_VC: NDArray[np.bool_], prob_VC: NDArray[np.floating], predicted_VC: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Compute all `VIDEO_METRICS`, in percent.

    * mAP: mean average precision over the classes that occur, with the videos ranked by the
      probability of the class.
    * F1: micro-average over all classes.

    A metric is None if it is undefined (0/0): mAP without any event, F1 without any event or
    predicted event.

    Args:
        labels_VC: Video-level labels.
        prob_VC: Probability of each event in the video, in 0..1.
        predicted_VC: Predicted events.
    """
    # Imported here because it takes a second, and most processes do not need it.
    from sklearn.metrics import average_precision_score, f1_score

    occurs_C = labels_VC.any(axis=0)
    metrics: dict[str, float | None] = dict.fromkeys(VIDEO_METRICS)
    if occurs_C.any():
        prob_VC = np.asarray(prob_VC, dtype=float)
        average = average_precision_score(labels_VC[:, occurs_C], prob_VC[:, occurs_C])
        metrics["video_map"] = 100 * float(average)
    if labels_VC.any() or predicted_VC.any():
        # Of a single column, `average="micro"` would be the accuracy, which counts negatives, too.
        metrics["video_f1"] = 100 * float(f1_score(labels_VC.ravel(), predicted_VC.ravel()))
    return metrics
