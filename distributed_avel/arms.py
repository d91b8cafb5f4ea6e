"""The ablation arms: what each trains on, and which stages it needs.

A new arm is one entry of `ARMS`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Scored = Literal["refined", "alone", "segments", "exchanged"]
"""Input of Step 2: windows in synthetic videos ("refined") or of the original videos ("alone"),
single segments of the original videos ("segments"), or one modality of the original video beside
the other modality of a partner video ("exchanged")."""

WindowLabels = Scored | Literal["dummy"]
"""The source of the labels of Step 3: what Step 2 scores, or the video-level label in every window
("dummy")."""

WITHOUT_CONTRASTIVE_LOSS = "without the contrastive loss of Wu and Yang (2021)"
"""Remark on the figures of arm MA."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """An ablation arm.

    Args:
        description: For tables; `{base}` stands for the arm whose Step 1 it uses.
        auxiliary: Train Step 1 with the auxiliary loss.
        windows: The source of the labels of Step 3; None if there is only Step 1. Labels of
            "segments" are the ground truth of a fully supervised Step 3: g on every segment,
            without L_MIL.
    """

    description: str
    auxiliary: bool = False
    windows: WindowLabels | None = None

    @property
    def scored(self) -> Scored | None:
        """Input of Step 2; None if the arm has no Step 2."""
        return None if self.windows == "dummy" else self.windows

    @property
    def has_threshold(self) -> bool:
        """Return True if the labels of Step 3 are thresholded at tau."""
        return self.windows not in (None, "dummy", "segments")

    @property
    def needs_modalities(self) -> bool:
        """Return True if each modality is labelled, so that the model has to predict both."""
        return self.windows == "exchanged"


ARMS: dict[str, Arm] = {
    "base": Arm(description="the base model, trained on video-level labels (Step 1)"),
    "PL": Arm(
        windows="segments",
        description="retrained, fully supervised, on the predictions of {base} for each training "
        "segment (the paper's PL)",
    ),
    "LR_alone": Arm(
        windows="alone",
        description="retrained on pseudo-labels that {base} predicts for windows of the original "
        "videos, without partner videos",
    ),
    "LR_dummy": Arm(
        windows="dummy",
        description="retrained with the video-level label in every window, without Step 2",
    ),
    "LR": Arm(windows="refined", description="retrained on the refined labels of {base} (Step 3)"),
    "A": Arm(auxiliary=True, description="Step 1 with the auxiliary loss, not refined"),
    "A+LR": Arm(
        auxiliary=True,
        windows="refined",
        description="retrained on the refined labels of {base} (Step 3)",
    ),
    "MA": Arm(
        windows="exchanged",
        description="retrained on labels of each modality, which {base} predicts after the other "
        "modality is exchanged with that of a video with other events; "
        f"{WITHOUT_CONTRASTIVE_LOSS}",
    ),
}
"""The arms by name. MA is the modality-aware exchange of Wu and Yang (2021) alone."""


def check_arms(arms: Iterable[str]) -> None:
    """Refuse names of arms that do not exist.

    Raises:
        ValueError: The message has the unknown names and the arms that exist.
    """
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise ValueError(f"no arm {', '.join(map(repr, unknown))}; there are: {', '.join(ARMS)}")


def arm_label(model: str, arm: str) -> str:
    """The name of an arm in tables, such as AVE or AVE+A+LR."""
    return model.upper() if arm == "base" else f"{model.upper()}+{arm}"


def arm_description(model: str, arm: str) -> str:
    """Describe an arm of a base model in one line."""
    base = arm_label(model, "A" if ARMS[arm].auxiliary else "base")
    return ARMS[arm].description.format(base=base)


def refined_arm(arms: Sequence[str]) -> str | None:
    """The arm whose tau and windows a report shows, if any.

    Refined windows come before exchanged modalities, and the auxiliary loss before none.
    """
    refined = [arm for arm in arms if ARMS[arm].windows in ("refined", "exchanged")]
    order = {"refined": 0, "exchanged": 1}
    return min(
        refined,
        key=lambda arm: (order[str(ARMS[arm].windows)], not ARMS[arm].auxiliary),
        default=None,
    )
