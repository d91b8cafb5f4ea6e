"""`--data.dataset subfolders`: videos in ROOT/SPLIT/CLASS, such as ROOT/train/dog/1.mp4.

Each video of `val` and `test` is taken to show its event from beginning to end; videos in the
folder `nothing` have no event.
"""

from typing import get_args

from distributed_avel.config import DataConfig
from distributed_avel.datasets import Problems, Span, Split, Video, VideoSet
from distributed_avel.datasets.base import register_dataset
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

EVENT_FREE = "nothing"


@register_dataset("subfolders")
def load_subfolders(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """Return the videos below `root`; note folders without a video in `problems`."""
    timeline = Timeline(num_segments=config.num_segments, segment_s=config.segment_s)
    found = [
        (split, folder.name, file.name)
        for split in get_args(Split)
        for folder in (root / split).children()
        for file in folder.children()
    ]
    if not found:
        problems.error(f"{root}: no file in ROOT/SPLIT/CLASS, such as train/dog/1.mp4")
    classes = sorted({name for _, name, _ in found} - {EVENT_FREE})
    videos = []
    for split, name, file in found:
        labels = () if name == EVENT_FREE else (classes.index(name),)
        spans = tuple(Span(label, 0.0, timeline.duration_s) for label in labels)
        videos.append(
            Video(
                video_id=f"{split}-{name}-{file}",
                uri=f"{split}/{name}/{file}",
                split=split,
                labels=labels,
                spans=None if split == "train" else spans,
            )
        )
    return VideoSet(
        name=config.dataset,
        classes=tuple(classes),
        timeline=timeline,
        videos=tuple(videos),
        synthetic=False,
    )
