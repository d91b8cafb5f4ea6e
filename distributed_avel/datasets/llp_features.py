"""`llp_features`: LLP with its published features (for the layout, see `llp`).

A segment has one visual row: the mean of the features of its eight frames, followed by its motion
features. HAN averages the frames of a segment directly after a linear layer, so its results are
equal with an eighth of the data.

Shape suffixes used in this file:
    V = videos    T = segments    R = visual rows of a segment (1)    F = frames
    S = frames of a segment    D = feature size
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import DataConfig
from distributed_avel.datasets.base import (
    FeatureChunk,
    VideoSet,
    register_dataset,
    register_features,
)
from distributed_avel.datasets.llp import first_folder, read_llp
from distributed_avel.datasets.problems import Problems
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location

AUDIO, FRAMES, MOTION = "vggish", "res152", "r2plus1d_18"
AUDIO_DIM, FRAME_DIM, MOTION_DIM = 128, 2048, 512
_CHUNK = 32


@register_dataset("llp_features")
def load_llp_features(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """Return LLP's videos; the uri of a video is the file of its audio features.

    Raises:
        DatasetError: An annotation file is missing; the message names it and the remedy.
    """
    folder = first_folder(root, AUDIO, f"feats/{AUDIO}")
    return read_llp(config, root, problems, folder=folder, ending="npy")


def feature_files(videos: VideoSet) -> Sequence[str]:
    """Return the three files of each video."""
    return [file for video in videos.videos for file in _three(video.uri)]


@register_features("llp_features", files_of=feature_files)
def llp_features(config: DataConfig, root: Location) -> Iterator[FeatureChunk]:
    """Yield features of the videos with all three files: audio (V, T, 128), visual (V, T, 1, 2560).

    Raises:
        DatasetError: A file is damaged, or an array has another shape; names file and remedy.
    """
    videos = load_llp_features(config, root, Problems()).videos
    for start in range(0, len(videos), _CHUNK):
        ids, audio, visual = [], [], []
        for video in videos[start : start + _CHUNK]:
            files = [root / file for file in _three(video.uri)]
            if all(file.exists() for file in files):
                audio_TD, visual_TRD = _read(files, config.num_segments)
                ids.append(video.video_id)
                audio.append(audio_TD)
                visual.append(visual_TRD)
        if ids:
            yield FeatureChunk(
                video_ids=ids, audio_VTD=np.stack(audio), visual_VTRD=np.stack(visual)
            )


def _three(uri: str) -> list[str]:
    """Return the files of audio, frame and motion features, given that of the audio features."""
    folder, _, name = uri.rpartition(f"{AUDIO}/")
    return [f"{folder}{kind}/{name}" for kind in (AUDIO, FRAMES, MOTION)]


def _read(
    files: list[Location], num_segments: int
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Read the features of one video: audio (T, D) and visual (T, R, D)."""
    audio_TD, frames_FD, motion_TD = (_array(file) for file in files)
    num_frames = len(frames_FD) if frames_FD.ndim else 0
    per_segment = max(num_frames // num_segments, 1)
    expected = (
        (num_segments, AUDIO_DIM),
        (per_segment * num_segments, FRAME_DIM),
        (num_segments, MOTION_DIM),
    )
    for file, array, shape in zip(files, (audio_TD, frames_FD, motion_TD), expected, strict=True):
        if array.shape != shape:
            raise DatasetError(
                f"{file}: expected an array of shape {shape} for data.num_segments = "
                f"{num_segments}, got {array.shape}; fetch this file again, or remove it to "
                f"leave the video out"
            )
    frames_TSD = frames_FD.reshape(num_segments, per_segment, FRAME_DIM)
    frame_TD = frames_TSD.mean(axis=1, dtype=np.float32)
    visual_TD = np.concatenate([frame_TD, motion_TD], axis=1).astype(np.float16)
    return audio_TD.astype(np.float32), visual_TD[:, None, :]


def _array(file: Location) -> NDArray[np.floating]:
    remedy = "fetch it again, or remove it to leave the video out"
    try:
        array = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DatasetError(f"{file}: not a complete .npy file ({error}); {remedy}") from None
    with np.errstate(over="ignore"):
        if array.dtype.kind != "f" or not np.isfinite(array.astype(np.float16)).all():
            raise DatasetError(f"{file}: a value is not finite in float16; {remedy}")
    return array
