"""The arms of the paper's tables: what each trains on, and which stages it needs."""

from dataclasses import dataclass
from typing import Literal

from distributed_avel.config import Arm

WindowLabels = Literal["refined", "alone", "dummy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmPlan:
    """One arm.

    Args:
        auxiliary: Whether its Step 1 has the auxiliary loss.
        windows: Where the labels of the windows of its Step 3 come from: synthetic videos
            ("refined"), the windows of the original videos ("alone"), the video-level label
            ("dummy"). None where Step 1 is all.
    """

    auxiliary: bool = False
    windows: WindowLabels | None = None

    @property
    def scores_windows(self) -> bool:
        """Whether it has a Step 2."""
        return self.windows in ("refined", "alone")


ARMS: dict[Arm, ArmPlan] = {
    "base": ArmPlan(),
    "PL": ArmPlan(windows="alone"),
    "LR_dummy": ArmPlan(windows="dummy"),
    "LR": ArmPlan(windows="refined"),
    "A": ArmPlan(auxiliary=True),
    "A+LR": ArmPlan(auxiliary=True, windows="refined"),
}


def arm_label(model: str, arm: Arm) -> str:
    """The name of an arm in tables, such as AVE or AVE+A+LR."""
    return model.upper() if arm == "base" else f"{model.upper()}+{arm}"
