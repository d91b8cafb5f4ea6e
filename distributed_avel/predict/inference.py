"""Probabilities of the segments of one video, of any length, in memory that does not grow with it.

Shape suffixes: M = segments of the video, T = segments of the training videos, R = regions,
D = feature or code size, K = columns of labels (see `tasks.Task`), I = intervals of P to a segment.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.models import BaseModel
from distributed_avel.tasks import Task
from distributed_avel.train.arithmetic import reproducible_arithmetic
from distributed_avel.train.predict import segment_codes

CPU = torch.device("cpu")


class WindowScorer:
    """Scores one video from its features, which may arrive in pieces of any length.

    A video of at most T segments is scored as a whole. A longer one is scored in windows of T
    segments that overlap by half; where windows overlap, their probabilities are averaged.
    Segments are encoded T at a time. The result depends on this video alone, and not on the pieces.

    Args:
        num_segments: T, the number of segments of the training videos.
    """

    def __init__(
        self, task: Task, model: BaseModel, num_segments: int, device: torch.device = CPU
    ) -> None:
        self._task, self._model, self._device = task, model, device
        self._num_segments = num_segments
        self._audio_MD: NDArray[np.float32] | None = None  # segments that are not encoded yet
        self._visual_MRD: NDArray[np.float16] | None = None
        self._codes_1MD: Tensor | None = None  # from segment `_codes_start` on
        self._codes_start = 0
        self._next_window = 0
        self._sums_K: list[NDArray[np.float64]] = []
        self._counts: list[int] = []

    @torch.no_grad()
    def add(self, audio_MD: NDArray[np.float32], visual_MRD: NDArray[np.float16]) -> None:
        """Add the features of the next segments, and score the windows that they complete."""
        # Some matrix products round differently in another memory layout.
        audio_MD, visual_MRD = np.ascontiguousarray(audio_MD), np.ascontiguousarray(visual_MRD)
        if self._audio_MD is None or self._visual_MRD is None:
            self._audio_MD, self._visual_MRD = audio_MD, visual_MRD
        else:
            self._audio_MD = np.concatenate([self._audio_MD, audio_MD])
            self._visual_MRD = np.concatenate([self._visual_MRD, visual_MRD])
        # The last T segments wait until it is known whether the video ends with them.
        while len(self._audio_MD) > self._num_segments:
            self._encode(self._num_segments)
            self._score_windows()

    @torch.no_grad()
    def finish(self) -> NDArray[np.float32]:
        """Return the probabilities of all segments, shape (M, K), in [0, 1]."""
        assert self._audio_MD is not None
        if self._codes_1MD is None:
            with reproducible_arithmetic(self._device):
                codes_1MD = self._encoded(len(self._audio_MD))
                # as it is: a mean in float64 would be rounded again
                return self._task.segment_prob(self._model, codes_1MD.clone())[0].cpu().numpy()
        self._encode(len(self._audio_MD))
        self._score_windows()
        last = self._codes_start + self._codes_1MD.shape[1] - self._num_segments
        if len(self._counts) < last + self._num_segments:
            self._score(last)
        return (np.stack(self._sums_K) / np.array(self._counts)[:, None]).astype(np.float32)

    def _encoded(self, count: int) -> Tensor:
        """Encode the first segments that are not encoded yet, shape (1, count, D)."""
        assert self._audio_MD is not None
        assert self._visual_MRD is not None
        audio_MD, self._audio_MD = np.split(self._audio_MD, [count])
        visual_MRD, self._visual_MRD = np.split(self._visual_MRD, [count])
        return segment_codes(self._model, audio_MD[None], visual_MRD[None], device=self._device)

    def _encode(self, count: int) -> None:
        with reproducible_arithmetic(self._device):
            codes_1MD = self._encoded(count)
        if self._codes_1MD is not None:
            codes_1MD = torch.cat([self._codes_1MD, codes_1MD], dim=1)
        self._codes_1MD = codes_1MD

    def _score_windows(self) -> None:
        """Score the windows whose segments are encoded; forget codes that no window needs."""
        assert self._codes_1MD is not None
        end = self._codes_start + self._codes_1MD.shape[1]
        while self._next_window + self._num_segments <= end:
            self._score(self._next_window)
            self._next_window += _hop(self._num_segments)
        # The last window of the video begins after this one.
        first = max(self._codes_start, end - self._num_segments)
        first = min(first, self._next_window)
        self._codes_1MD = self._codes_1MD[:, first - self._codes_start :]
        self._codes_start = first

    def _score(self, start: int) -> None:
        assert self._codes_1MD is not None
        at = start - self._codes_start
        with reproducible_arithmetic(self._device):
            # Copies are at aligned addresses; elsewhere, some matrix products round differently.
            window_1TD = self._codes_1MD[:, at : at + self._num_segments].clone()
            prob_1TK = self._task.segment_prob(self._model, window_1TD)
        for offset, prob_K in enumerate(prob_1TK[0].cpu().numpy().astype(np.float64)):
            if start + offset == len(self._counts):
                self._sums_K.append(prob_K)
                self._counts.append(1)
            else:
                self._sums_K[start + offset] += prob_K
                self._counts[start + offset] += 1


def segment_probabilities(
    task: Task,
    model: BaseModel,
    audio_MD: NDArray[np.float32],
    visual_MRD: NDArray[np.float16],
    num_segments: int,
    device: torch.device = CPU,
) -> NDArray[np.float32]:
    """Probabilities of the segments of one video, shape (M, K), in [0, 1]; see `WindowScorer`.

    Args:
        num_segments: T, the number of segments of the training videos.
    """
    scorer = WindowScorer(task, model, num_segments, device)
    scorer.add(audio_MD, visual_MRD)
    return scorer.finish()


def merge_phases(prob_of_phase: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Average the probabilities of timelines that are shifted by a part of a segment.

    Args:
        prob_of_phase: Probabilities (M_p, K) of the segments of timeline p, which starts at p / P
            segments. A timeline may have no segments, except the first.

    Returns:
        Probabilities of intervals of 1 / P segments up to the end of the first timeline, shape
        (P M_0, K): the mean over the segments that cover an interval.
    """
    num_phases = len(prob_of_phase)
    num_intervals = num_phases * len(prob_of_phase[0])
    sum_IK = np.zeros((num_intervals, prob_of_phase[0].shape[1]))
    count_I1 = np.zeros((num_intervals, 1))
    for phase, prob_MK in enumerate(prob_of_phase):
        prob_IK = np.repeat(prob_MK, num_phases, axis=0)[: num_intervals - phase]
        sum_IK[phase : phase + len(prob_IK)] += prob_IK
        count_I1[phase : phase + len(prob_IK)] += 1
    return (sum_IK / count_I1).astype(np.float32)


def _hop(num_segments: int) -> int:
    return max(1, num_segments // 2)
