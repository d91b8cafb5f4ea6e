"""The arms of the paper's tables: what each trains on, and which stages it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distributed_avel.config import Arm

Scored = Literal["refined", "alone", "segments", "exchanged"]
"""What Step 2 scores: windows in synthetic videos, windows of the original videos, single segments
of the original videos, or a whole modality beside the other one of a second video."""

WindowLabels = Scored | Literal["dummy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmPlan:
    """One arm.

    Args:
        auxiliary: Whether its Step 1 has the auxiliary loss.
        windows: Where the labels of its Step 3 come from: what Step 2 scores, or the video-level
            label in every window ("dummy"). None where Step 1 is all. Labels of "segments" are
            the ground truth of a fully supervised Step 3: g on every segment, without L_MIL.
    """

    auxiliary: bool = False
    windows: WindowLabels | None = None

    @property
    def scored(self) -> Scored | None:
        """What its Step 2 scores, if it has one."""
        return None if self.windows == "dummy" else self.windows

    @property
    def has_threshold(self) -> bool:
        """Whether the labels of its Step 3 are thresholded at tau."""
        return self.windows not in (None, "dummy", "segments")


ARMS: dict[Arm, ArmPlan] = {
    "base": ArmPlan(),
    "PL": ArmPlan(windows="segments"),
    "LR_alone": ArmPlan(windows="alone"),
    "LR_dummy": ArmPlan(windows="dummy"),
    "LR": ArmPlan(windows="refined"),
    "A": ArmPlan(auxiliary=True),
    "A+LR": ArmPlan(auxiliary=True, windows="refined"),
    "MA": ArmPlan(windows="exchanged"),
}
"""The arms by their names. MA is the modality-aware exchange of Wu and Yang (2021) without the
contrastive loss that they train with beside it."""

WITHOUT_CONTRASTIVE_LOSS = "without the contrastive loss of Wu and Yang (2021)"
"""What MA lacks, wherever its figures are shown: it has their modality-aware exchange alone."""

PARSING_ARMS: frozenset[Arm] = frozenset({"MA"})
"""Arms that tell what is heard from what is seen; the model has to do so too."""


def arm_label(model: str, arm: Arm) -> str:
    """The name of an arm in tables, such as AVE or AVE+A+LR."""
    return model.upper() if arm == "base" else f"{model.upper()}+{arm}"


def refined_arm(arms: Sequence[Arm]) -> Arm | None:
    """The arm whose tau and windows a report shows: with the auxiliary loss, if there is one."""
    return next((arm for arm in ("A+LR", "LR", "MA") if arm in arms), None)
