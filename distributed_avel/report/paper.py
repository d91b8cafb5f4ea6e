"""Tables 1 to 7 of the paper: the published figures, and what to train for each row.

The paper is *Temporal Label-Refinement for Weakly-Supervised Audio-Visual Event Localization*. Its
figures are on AVE (Tables 1 to 5 and 7) and on LLP (Table 6), in percent. Figures that the paper
does not report are omitted. Reports show these figures only as those of the paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from distributed_avel.arms import WITHOUT_CONTRASTIVE_LOSS
from distributed_avel.metrics import parsing, segment
from distributed_avel.models import UNVERIFIED, is_verified

RowOutput = Literal["prediction", "repeated", "truth"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """The model and arm of a row of a table, and the output that the row evaluates.

    Args:
        model: Name of a base model in the registry.
        arm: Ablation arm.
        windows: Window N and stride s; those of the configuration by default.
        threshold: tau; that of the configuration by default.
        output: "prediction": segment predictions; "repeated": the video-level prediction repeated
            over all segments; "truth": the ground-truth video-level label repeated over all
            segments, which needs no model.
    """

    model: str = "ave"
    arm: str = "base"
    windows: tuple[int, int] | None = None
    threshold: float | None = None
    output: RowOutput = "prediction"

    @property
    def trained(self) -> "Experiment":
        """The experiment with segment predictions; rows with the same one share a training."""
        return replace(self, output="prediction")


WEAK_LABELS = "weak labels"
"""Source of a row that repeats the video-level labels over both modalities, without a model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One row of a table.

    Args:
        name: Name in the first column.
        paper: Figures that the paper reports, in percent, by metric.
        source: What to train and evaluate.
        note: Note below the table.
    """

    name: str
    paper: Mapping[str, float]
    source: Experiment | Literal["weak labels"]
    note: str = ""

    @property
    def mark(self) -> str:
        """Marks a model that is not verified against its authors' code; empty if it is.

        Tables list these rows last, below this mark.
        """
        if not isinstance(self.source, Experiment) or is_verified(self.source.model):
            return ""
        return UNVERIFIED


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperTable:
    """One table of the paper.

    Args:
        number: Number in the paper.
        title: Title.
        rows: Rows, from top to bottom.
        first_column: Heading of the first column.
        metrics: Metrics of the columns.
        data: Data set of the paper's figures.
    """

    number: int
    title: str
    rows: tuple[TableRow, ...]
    first_column: str = "System"
    metrics: tuple[str, ...] = segment.SEGMENT_METRICS
    data: Literal["AVE", "LLP"] = "AVE"


COMPARABLE = {"AVE": ("ave", "ave_features"), "LLP": ("llp", "llp_features")}
"""Data sets (`--data.name`) whose results are comparable with the paper's, by its data set."""

SETTINGS = {
    "AVE": (
        "the paper: AVE with VGG-19 and VGGish features, g soft_margin on softmax outputs, Adam "
        "0.001, batches of 64, 200 epochs in Step 1 and 100 in Step 3, tau 0.05, N 4, s 2 where "
        "a table does not say otherwise"
    ),
    "LLP": (
        "the paper: LLP with ResNet-152, R(2+1)D and VGGish features, Adam 0.0003, batches of 16, "
        "label smoothing 0.9 in the visual modality"
    ),
}
"""Training settings of the paper (Sec. 5.1)."""

_Ratios = tuple[float, float, float]


def _figures(
    accuracy: float, weighted_f1: float, non_ave: _Ratios, ave: _Ratios
) -> dict[str, float]:
    """Name the figures of a row; `non_ave` and `ave` are F1, recall and precision."""
    return dict(zip(segment.SEGMENT_METRICS, (accuracy, weighted_f1, *non_ave, *ave), strict=True))


def _parsing(*figures: float) -> dict[str, float]:
    """Name the figures of a row: A, V, AV, Type@AV, Event@AV at segment level, then event level."""
    return dict(zip(parsing.PARSING_METRICS, figures, strict=True))


def _accuracy(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy}


_AVE = _figures(67.1, 61.5, (2.1, 1.1, 25.8), (73.7, 81.3, 67.4))
_CMRA = _figures(69.6, 63.5, (0.5, 0.3, 8.3), (76.6, 84.6, 70.0))
_PSP = _figures(70.0, 64.6, (5.9, 3.3, 29.3), (77.2, 84.7, 70.9))
_AVE_PL = _figures(67.5, 62.3, (3.2, 1.7, 23.5), (74.3, 81.7, 68.1))
_AVE_DUMMY = _figures(67.8, 61.9, (0.5, 0.3, 6.9), (74.6, 82.4, 68.2))
_AVE_LR = _figures(69.1, 67.7, (30.7, 25.3, 39.1), (75.7, 78.6, 73.0))
_AVE_A_LR = _figures(70.2, 68.6, (32.3, 25.5, 43.9), (76.4, 79.9, 73.2))
_PSP_A_LR = _figures(72.2, 69.7, (25.8, 18.2, 44.3), (79.0, 84.1, 74.5))
_WINDOWS = {
    (2, 2): _figures(69.5, 68.7, (40.1, 35.4, 46.3), (75.0, 76.9, 73.2)),
    (3, 1): _figures(69.4, 68.3, (33.6, 27.5, 43.3), (75.5, 78.5, 72.7)),
    (4, 2): _AVE_A_LR,
    (5, 5): _figures(68.7, 66.0, (23.6, 16.1, 43.9), (75.0, 80.1, 70.5)),
}
_NUM_WINDOWS = {(2, 2): 5, (3, 1): 8, (4, 2): 4, (5, 5): 2}
_BY_THRESHOLD = {0.01: 67.3, 0.03: 68.1, 0.05: 70.2, 0.07: 68.7, 0.10: 67.8}

_REFINED = Experiment(arm="A+LR")
_FROM_ABSTRACT = f"{UNVERIFIED}: only its paper's abstract was available, most details are ours"
_FROM_NOTES = f"{UNVERIFIED}: only its paper's abstract and published notes were available"

PAPER_LOSS = "soft_margin"
"""g that the paper uses for localization."""

TABLES: tuple[PaperTable, ...] = (
    PaperTable(
        number=1,
        title="The base model and naive strategies",
        metrics=("accuracy", "non_ave_f1", "non_ave_recall", "non_ave_precision"),
        rows=(
            TableRow(
                name="AVE",
                paper={k: v for k, v in _AVE.items() if k == "accuracy" or k[:4] == "non_"},
                source=Experiment(),
            ),
            TableRow(
                name="AVE-repeat",
                paper={"accuracy": 69.1, "non_ave_f1": 0.0},
                source=Experiment(output="repeated"),
            ),
            TableRow(
                name="GT-repeat",
                paper={"accuracy": 82.2, "non_ave_f1": 0.0},
                source=Experiment(output="truth"),
                note="the ground-truth video-level label, repeated over all segments",
            ),
        ),
    ),
    PaperTable(
        number=2,
        title="Base models, and AVE with refined labels",
        rows=(
            TableRow(name="AVE", paper=_AVE, source=Experiment()),
            TableRow(name="AVSDN", paper=_accuracy(68.4), source=Experiment(model="avsdn")),
            TableRow(name="CMRA", paper=_CMRA, source=Experiment(model="cmran")),
            TableRow(name="PSP", paper=_PSP, source=Experiment(model="psp")),
            TableRow(name="AVE+A+LR", paper=_AVE_A_LR, source=_REFINED),
            TableRow(
                name="CMAN",
                paper=_accuracy(67.8),
                source=Experiment(model="cman"),
                note=_FROM_NOTES,
            ),
            TableRow(
                name="AVFB",
                paper=_accuracy(68.9),
                source=Experiment(model="avfb"),
                note=_FROM_ABSTRACT,
            ),
            TableRow(
                name="AVIN",
                paper=_accuracy(69.4),
                source=Experiment(model="avin"),
                note=_FROM_NOTES,
            ),
            TableRow(
                name="AVT",
                paper=_accuracy(70.2),
                source=Experiment(model="avt"),
                note=_FROM_ABSTRACT,
            ),
        ),
    ),
    PaperTable(
        number=3,
        title="Ablation of the method",
        rows=(
            TableRow(name="AVE", paper=_AVE, source=Experiment()),
            TableRow(name="AVE+PL", paper=_AVE_PL, source=Experiment(arm="PL")),
            TableRow(name="AVE+LR_dummy", paper=_AVE_DUMMY, source=Experiment(arm="LR_dummy")),
            TableRow(name="AVE+LR", paper=_AVE_LR, source=Experiment(arm="LR")),
            TableRow(
                name="AVE+A", paper={}, source=Experiment(arm="A"), note="not in the paper's table"
            ),
            TableRow(
                name="AVE+LR_alone",
                paper={},
                source=Experiment(arm="LR_alone"),
                note="windows of the original videos, without partners; not in the paper's table",
            ),
            TableRow(name="AVE+A+LR", paper=_AVE_A_LR, source=_REFINED),
        ),
    ),
    PaperTable(
        number=4,
        title="The threshold tau, with AVE+A+LR",
        first_column="tau",
        metrics=("accuracy",),
        rows=(
            *(
                TableRow(
                    name=f"{tau:.2f}",
                    paper=_accuracy(accuracy),
                    source=replace(_REFINED, threshold=tau),
                )
                for tau, accuracy in _BY_THRESHOLD.items()
            ),
            TableRow(name="configured", paper={}, source=_REFINED, note="not in the paper's table"),
        ),
    ),
    PaperTable(
        number=5,
        title="Refined labels with PSP",
        rows=(
            TableRow(name="PSP", paper=_PSP, source=Experiment(model="psp")),
            TableRow(name="PSP+A+LR", paper=_PSP_A_LR, source=Experiment(model="psp", arm="A+LR")),
        ),
    ),
    PaperTable(
        number=6,
        title="Audio-visual video parsing",
        metrics=parsing.PARSING_METRICS,
        data="LLP",
        rows=(
            TableRow(
                name="weak label repeated",
                paper={},
                source=WEAK_LABELS,
                note="the ground-truth video-level labels, repeated over all segments of both "
                "modalities",
            ),
            TableRow(
                name="HAN",
                paper=_parsing(60.1, 52.9, 48.9, 54.0, 55.4, 51.3, 48.9, 43.0, 47.7, 48.0),
                source=Experiment(model="han"),
            ),
            TableRow(
                name="HAN+LR",
                paper=_parsing(59.7, 57.9, 52.6, 56.7, 56.6, 52.2, 54.0, 46.9, 51.1, 49.2),
                source=Experiment(model="han", arm="LR"),
            ),
            TableRow(
                name="HAN+A+LR",
                paper={},
                source=Experiment(model="han", arm="A+LR"),
                note="not in the paper's table",
            ),
            TableRow(
                name="HAN+MA",
                paper={},
                source=Experiment(model="han", arm="MA"),
                note="modality-aware exchange (Wu and Yang 2021), "
                f"{WITHOUT_CONTRASTIVE_LOSS}; not in the paper's table",
            ),
        ),
    ),
    PaperTable(
        number=7,
        title="Window N and stride s, with AVE+A+LR",
        first_column="N, s (T1)",
        rows=tuple(
            TableRow(
                name=f"{window}, {stride} ({_NUM_WINDOWS[window, stride]})",
                paper=figures,
                source=replace(_REFINED, windows=(window, stride)),
            )
            for (window, stride), figures in _WINDOWS.items()
        ),
    ),
)
