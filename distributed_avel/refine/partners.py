"""Partner videos: which video fills the segments outside the window.

A partner is a training video that shares no label with V(i); where a file is several videos, as
45 of AVE's are, none of them does. By default it is one without any event: disjoint *event* videos
leave 40-49 % of the event windows undetected, event-free ones 7-21 % (measured on synthetic
features).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distributed_avel.errors import DatasetError

PartnerKind = Literal["event_free", "disjoint"]


class PartnerPool:
    """The training videos that may be partners.

    Args:
        labels_VK: Video-level labels, background last, shape (V, K).
        files: The file of each video. Two videos of one file are never partners.
        kind: "event_free" prefers videos without any event, if there are any.
    """

    def __init__(
        self, labels_VK: NDArray[np.bool_], files: Sequence[str], kind: PartnerKind
    ) -> None:
        self.labels_VK = labels_VK
        self._file_ids = np.unique(np.asarray(files, dtype=str), return_inverse=True)[1]
        self._file_id = {file: int(i) for file, i in zip(files, self._file_ids, strict=True)}
        # A file that is several videos shows the events of all of them.
        shown_FK = np.zeros((self._file_ids.max(initial=-1) + 1, labels_VK.shape[1]), dtype=bool)
        np.logical_or.at(shown_FK, self._file_ids, labels_VK)
        self._shown_VK = shown_FK[self._file_ids]
        self._event_free_V = ~self._shown_VK[:, :-1].any(axis=1)
        self._event_free_only = kind == "event_free" and bool(self._event_free_V.any())
        self._candidates: dict[bytes, NDArray[np.intp]] = {}

    def draw(self, label_K: NDArray[np.bool_], file: str, number: int) -> int:
        """The partner that a random `number` stands for, as an index into the pool.

        A video without an event takes any video with one; its own label is background, and
        partners share no label.

        Raises:
            DatasetError: No training video shares no label with this one.
        """
        candidates = self._disjoint(label_K)
        candidates = candidates[self._file_ids[candidates] != self._file_id.get(file, -1)]
        if not len(candidates):
            raise DatasetError(
                f"{file}: every training video shares a label with it, so it has no partner; "
                "add training videos of other classes or without any event"
            )
        return int(candidates[number % len(candidates)])

    def _disjoint(self, label_K: NDArray[np.bool_]) -> NDArray[np.intp]:
        key = label_K.tobytes()
        if key not in self._candidates:
            may_V = ~(self._shown_VK & label_K).any(axis=1)
            if self._event_free_only and not label_K[-1]:
                may_V &= self._event_free_V
            self._candidates[key] = np.flatnonzero(may_V)
        return self._candidates[key]
