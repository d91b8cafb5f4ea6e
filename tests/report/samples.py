"""Complete reports of both tasks, made of random values."""

import io

import numpy as np
from PIL import Image, ImageDraw

from distributed_avel.metrics.naive import repeat
from distributed_avel.metrics.parsing import parsing_metrics, segment_counts
from distributed_avel.metrics.segment import confusion_matrix, segment_metrics
from distributed_avel.report.page_data import (
    Failure,
    LearningCurve,
    LocalizationReport,
    ParsedVideo,
    ParsingReport,
    ThresholdPlot,
    VideoTimeline,
    WindowSummary,
)
from distributed_avel.timeline import Timeline

CLASSES = ("bell", "dog", "drum", "engine", "flute", "siren")


def make_report(
    *, classes=CLASSES, num_timelines=12, frames=True, num_segments=10, num_listed=0, **changes
):
    """Two arms and the naive ones, right in 60 % and 75 % of the segments of 80 videos.

    Args:
        num_listed: Number of videos to search and sort, of which every 80 are alike.
    """
    rng = np.random.default_rng(0)
    num_classes = len(classes)
    label_V = rng.integers(0, num_classes, size=80)
    start_V = rng.integers(0, num_segments - 2, size=80)
    end_V = np.minimum(start_V + rng.integers(2, num_segments + 1, size=80), num_segments)
    segments_T = np.arange(num_segments)
    inside_VT = (segments_T >= start_V[:, None]) & (segments_T < end_V[:, None])
    truth_VT = np.where(inside_VT, label_V[:, None], num_classes)
    repeated_VT = repeat(label_V, num_segments)
    predictions = {
        "GT-repeat": repeated_VT,
        "AVE": np.where(rng.random(truth_VT.shape) < 0.85, repeated_VT, truth_VT),
        "AVE+A+LR": np.where(rng.random(truth_VT.shape) < 0.75, truth_VT, repeated_VT),
    }
    for arm in ("AVE", "AVE+A+LR"):
        guess_VT = rng.integers(0, num_classes + 1, size=truth_VT.shape)
        wrong_VT = rng.random(truth_VT.shape) < 0.08
        predictions[arm] = np.where(wrong_VT, guess_VT, predictions[arm])
    shown = {arm: predictions[arm] for arm in ("AVE", "AVE+A+LR")}

    def timeline(number, has_frames):
        row = number % 80
        return VideoTimeline(
            video_id=f"video_{number:03d}",
            labels=(int(label_V[row]),),
            truth_T=truth_VT[row],
            predictions={arm: classes_VT[row] for arm, classes_VT in shown.items()},
            scores={
                arm: softmax(classes_VT[row], num_classes) for arm, classes_VT in shown.items()
            },
            frames=tuple(jpeg(row, t) for t in range(num_segments)) if has_frames else (),
        )

    timelines = tuple(timeline(row, frames) for row in range(num_timelines))
    thresholds = tuple((1 / (1 + np.exp(-np.linspace(-7, 7, 141)))).tolist())
    epochs = tuple(range(10, 60, 10))
    values = {
        "title": "Temporal label refinement on demo",
        "dataset": "demo",
        "synthetic": True,
        "classes": tuple(classes),
        "timeline": Timeline(num_segments=num_segments, segment_s=1.0),
        "results": {
            arm: segment_metrics(truth_VT, classes_VT, num_classes)
            for arm, classes_VT in predictions.items()
        },
        "settings": {"seed": 0, "refine": {"window": 4, "stride": 2, "threshold": "validation"}},
        "provenance": {"commit": "0123abc", "python": "3.11"},
        "confusion": {
            arm: confusion_matrix(truth_VT, classes_VT, num_classes)
            for arm, classes_VT in shown.items()
        },
        "threshold_curves": {
            "event": ThresholdPlot(
                thresholds=thresholds,
                sensitivity=tuple(1 - t**2 for t in thresholds),
                specificity=tuple(1 - (1 - t) ** 3 for t in thresholds),
                chosen=thresholds[100],
                arm="AVE+A+LR",
            )
        },
        "learning_curves": tuple(
            LearningCurve(
                arm=arm, metric=metric, epochs=epochs, values=tuple(a / e + b for e in epochs)
            )
            for metric, a in (("train/total", 30), ("val/non_ave_f1", -200))
            for b, arm in enumerate(("AVE", "AVE+A", "AVE+A+LR"), start=60 if a < 0 else 0)
        ),
        "windows": WindowSummary(
            num_videos=230,
            num_windows=920,
            num_background=301,
            of_video_C=tuple(range(150, 150 - num_classes, -1)),
            kept_C=tuple(range(100, 100 - num_classes, -1)),
        ),
        "timelines": timelines,
        "videos": tuple(timeline(row, False) for row in range(num_listed)),
        "timeline_selection": "the first of the test split by id",
        "failures": (Failure(video_id="video_900", stage="extract", error="no audio stream"),),
    }
    return LocalizationReport(**(values | changes))


PARSING_ARMS = ("HAN", "HAN+LR", "HAN+MA")


def make_parsing_report(*, classes=CLASSES, num_timelines=12, frames=True, num_listed=0, **changes):
    """Report of 40 videos with up to three events, and three arms of increasing accuracy."""
    rng = np.random.default_rng(0)
    shape = (40, 2, 10, len(classes))
    in_video_VC = np.zeros((40, len(classes)), dtype=bool)
    for row_C in in_video_VC:
        row_C[rng.choice(len(classes), size=rng.integers(1, 4), replace=False)] = True
    truth_VMTC = in_video_VC[:, None, None] & (rng.random(shape) < 0.7)
    arms = {}
    for arm, wrong in zip(PARSING_ARMS, (0.3, 0.2, 0.1), strict=True):
        flipped_VMTC = (rng.random(shape) < wrong) & in_video_VC[:, None, None]
        arms[arm] = (truth_VMTC ^ flipped_VMTC) | (rng.random(shape) < 0.01)
    repeated_VMTC = np.broadcast_to(in_video_VC[:, None, None], shape)

    def halves(events_VMTC):
        return events_VMTC[:, 0], events_VMTC[:, 1]

    def timeline(row, has_frames):
        return ParsedVideo(
            video_id=f"video_{row:03d}",
            labels=tuple(np.flatnonzero(in_video_VC[row]).tolist()),
            truth_MTC=truth_VMTC[row],
            predictions={arm: events_VMTC[row] for arm, events_VMTC in arms.items()},
            frames=tuple(jpeg(row, t) for t in range(10)) if has_frames else (),
        )

    localization = make_report(classes=classes, num_timelines=0)
    (curve,) = localization.threshold_curves.values()
    values = {name: getattr(localization, name) for name in COMMON} | {
        "title": "Audio-visual video parsing on demo",
        "results": {
            arm: parsing_metrics(*halves(truth_VMTC), *halves(events_VMTC))
            for arm, events_VMTC in {
                "GT-repeat": repeated_VMTC, "HAN-repeat": repeated_VMTC, **arms}.items()
        },
        "counts": {
            arm: tuple(map(segment_counts, halves(truth_VMTC), halves(events_VMTC)))
            for arm, events_VMTC in arms.items()
        },
        "threshold_curves": {"heard": curve, "seen": curve},
        "learning_curves": (
            LearningCurve(arm="HAN", metric="val/segment_type", epochs=(1, 2), values=(40.0, 50.0)),
        ),
        "timelines": tuple(timeline(row, frames) for row in range(num_timelines)),
        "videos": tuple(timeline(row, False) for row in range(num_listed)),
    }  # fmt: skip
    return ParsingReport(**(values | changes))


COMMON = ("dataset", "synthetic", "classes", "timeline", "settings", "provenance", "windows",
          "timeline_selection", "failures")  # fmt: skip
"""What a report of either task may have in the same words."""


def softmax(classes_T, num_classes):
    scores_TK = np.full((len(classes_T), num_classes + 1), 0.3 / num_classes)
    scores_TK[np.arange(len(classes_T)), classes_T] = 0.7
    return scores_TK


def jpeg(video, segment):
    """Return a small JPEG whose content depends on the segment."""
    image = Image.new("RGB", (112, 84), ((37 * video) % 200, (91 * video) % 200, 120))
    ImageDraw.Draw(image).ellipse((8 * segment, 20, 8 * segment + 40, 60), fill=(230, 220, 90))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return file.getvalue()
