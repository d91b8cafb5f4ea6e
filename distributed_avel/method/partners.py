"""Partner videos V(j), which fill the segments outside the window of a synthetic video.

A partner is a training video that shares no label with V(i). If several videos of the data set
are cut from one file, as for 45 files of AVE, none of them may share a label with V(i). By
default, partners have no event at all: with disjoint *event* videos as partners, the base model
misses the event in 40-49 % of the event windows; with event-free ones in 7-21 % (measured on
synthetic features).

Shape suffixes used in this file:
    V = training videos    F = files    K = event classes + background
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distributed_avel.errors import DatasetError

PartnerKind = Literal["event_free", "disjoint"]


class PartnerPool:
    """Training videos from which partners are drawn.

    Args:
        labels_VK: Video-level labels, background last.
        files: File of each video. Two videos of one file are never partners.
        kind: "event_free": only videos without any event, if there are any; "disjoint": any
            video that shares no label.
        lengths_V: Number of segments of each video; None if all are equal.
    """

    def __init__(
        self,
        labels_VK: NDArray[np.bool_],
        files: Sequence[str],
        kind: PartnerKind,
        lengths_V: NDArray[np.integer] | None = None,
    ) -> None:
        self.labels_VK = labels_VK
        self._lengths_V = lengths_V
        self._file_ids = np.unique(np.asarray(files, dtype=str), return_inverse=True)[1]
        self._file_id = {file: int(i) for file, i in zip(files, self._file_ids, strict=True)}
        # A file that contains several videos shows the events of all of them.
        file_labels_FK = np.zeros(
            (self._file_ids.max(initial=-1) + 1, labels_VK.shape[1]), dtype=bool
        )
        np.logical_or.at(file_labels_FK, self._file_ids, labels_VK)
        self._file_labels_VK = file_labels_FK[self._file_ids]
        self._event_free_V = ~np.any(self._file_labels_VK[:, :-1], axis=1)
        self._event_free_only = kind == "event_free" and bool(self._event_free_V.any())
        self._candidates: dict[bytes, NDArray[np.intp]] = {}

    def draw(
        self, label_K: NDArray[np.bool_], file: str, number: int, num_segments: int | None = None
    ) -> int:
        """Select a partner by a random number.

        The partner of a video without an event is any video with one, because partners share no
        label and its own label is background.

        Args:
            label_K: Video-level label of the video.
            file: File of the video.
            number: Random non-negative integer; equal numbers select equal partners.
            num_segments: Length of the video, if lengths differ. A partner with an event is no
                longer than the video if there is one, because segments of longer partners are
                skipped, and the event with them.

        Returns:
            Index of the partner in the pool.

        Raises:
            DatasetError: Every training video shares a label with this one.
        """
        candidates = self._disjoint(label_K)
        candidates = candidates[self._file_ids[candidates] != self._file_id.get(file, -1)]
        if not len(candidates):
            raise DatasetError(
                f"{file}: it has no partner video, because every training video shares a label "
                "with it; add training videos of other classes or without any event"
            )
        if self._lengths_V is not None and num_segments is not None:
            is_short = self._lengths_V[candidates] <= num_segments
            fits = candidates[is_short | self._event_free_V[candidates]]
            candidates = fits if len(fits) else candidates
        return int(candidates[number % len(candidates)])

    def _disjoint(self, label_K: NDArray[np.bool_]) -> NDArray[np.intp]:
        key = label_K.tobytes()
        if key not in self._candidates:
            is_candidate_V = ~(self._file_labels_VK & label_K).any(axis=1)
            if self._event_free_only and not label_K[-1]:
                is_candidate_V &= self._event_free_V
            self._candidates[key] = np.flatnonzero(is_candidate_V)
        return self._candidates[key]
