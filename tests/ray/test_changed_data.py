"""A data set that changes: only stages that depend on the change are recomputed."""

import os
from collections import Counter
from pathlib import Path

import pyarrow.compute as pc
import pytest
from media.clips import clip

from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import validate
from distributed_avel.pipeline import Pipeline
from distributed_avel.stages.extract import Extract
from distributed_avel.stages.stage import Execution

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.usefixtures("ray_cluster")]

HEADER = "uri,split,labels,spans,video_id"
ROWS = [
    "t0.mp4,train,dog,",
    "t1.mp4,train,dog,",
    "t2.mp4,train,bell,",
    "t3.mp4,train,bell,",
    "v0.mp4,val,dog,dog:0-2",
    "v1.mp4,val,bell,bell:1-3",
    "e0.mp4,test,dog,dog:0-1",
    "e1.mp4,test,bell,bell:0-4",
]
SHORT_S = {"t3.mp4": 1, "t1.mp4": 2, "v1.mp4": 2, "e1.mp4": 3}
"""Length of the clips that are shorter than 4 s."""

TRAINED = {"base", "refine", "retrain"}


class Study:
    """A folder of videos with a table, and pipelines on it that share a run directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows = list(ROWS)
        self.others: list[str] = []
        for number, row in enumerate(ROWS):
            name = row.partition(",")[0]
            self.write_clip(name, fps=8 + number, seconds=SHORT_S.get(name, 4))

    def write_clip(self, name: str, fps: int, seconds: float = 4) -> None:
        (self.root / name).write_bytes(clip(seconds, fps=fps))

    def with_ids(self, uri_of: dict[str, str]) -> None:
        """Add training videos with explicit ids."""
        self.others = [f"{uri},train,bell,,{video_id}" for video_id, uri in uri_of.items()]

    def run(self) -> tuple[Extract, set[str]]:
        """Run the pipeline; return the features, and the names of the stages that were computed."""
        rows = [HEADER, *(f"{row}," for row in self.rows), *self.others]
        (self.root / "videos.csv").write_text("\n".join(rows) + "\n")
        before = self.finished()
        config = validate(
            {
                "run_dir": str(self.root / "run"),
                "arms": ["LR"],
                "data": {
                    "dataset": "folder",
                    "root": str(self.root),
                    "num_segments": 4,
                    "short_videos": "keep",
                },
                "extract": {"num_actors": 1, "unit_size": 3},
                "model": {"hidden_size": 2},
                "train": {"base_epochs": 1, "retrain_epochs": 1},
                "refine": {"threshold": 0.5, "window": 2, "stride": 2, "partners": "disjoint"},
            },
            "test",
        )
        execution = Execution(in_process=True, quiet=True)
        self.pipeline = pipeline = Pipeline(config, untracked(), execution=execution)
        pipeline.evaluate().ensure()
        assert isinstance(pipeline.features, Extract)
        new = self.finished() - before
        return pipeline.features, {path.split("/")[0] for path in new}

    def finished(self) -> set[str]:
        run = self.root / "run"
        return {str(path.parent.relative_to(run)) for path in run.glob("*/*/DONE")}


def lengths(features: Extract) -> dict[str, int]:
    """The number of segments of each video."""
    videos = features.data.videos.videos
    lengths_V = features.lengths(videos)
    assert lengths_V is not None
    return {v.video_id: int(length) for v, length in zip(videos, lengths_V, strict=True)}


def content(features: Extract) -> dict[str, tuple[bytes, bytes]]:
    """Return the features of each video as bytes."""
    ids = [video.video_id for video in features.data.videos.videos]
    rows = zip(ids, *features.store.read(ids), strict=True)
    return {video_id: (audio.tobytes(), visual.tobytes()) for video_id, audio, visual in rows}


def test_only_stages_that_depend_on_changed_data_are_recomputed(tmp_path):
    study = Study(tmp_path)
    features, computed = study.run()
    assert computed == {"data", "extract", *TRAINED, "evaluate"}
    assert features.manifest.num_reused == 0
    first = content(features)
    assert lengths(features) == {row.partition(",")[0]: 4 for row in ROWS} | SHORT_S
    predictions = study.pipeline.evaluate().predictions()
    of_arm = predictions.filter(pc.field("arm") == "AVE+LR")["video_id"].to_pylist()
    assert Counter(of_arm) == {"e0.mp4": 4, "e1.mp4": 3}
    assert study.pipeline.report().ensure().is_done()

    # A new test video is the only one extracted, and causes no training.
    study.write_clip("e2.mp4", fps=20)
    study.rows.insert(0, "e2.mp4,test,dog,dog:2-3")
    features, computed = study.run()
    assert computed == {"data", "extract", "evaluate"}
    assert (features.manifest.num_videos, features.manifest.num_reused) == (9, 8)

    # A changed label extracts nothing; only training and validation labels cause training.
    study.rows[7] = "e0.mp4,test,dog,dog:1-2"
    assert study.run()[1] == {"data", "evaluate"}
    study.rows[5] = "v0.mp4,val,dog,dog:1-2"
    assert study.run()[1] == {"data", "evaluate", *TRAINED}

    # A new training video is the only one extracted, and causes training.
    study.write_clip("t4.mp4", fps=20)
    study.rows.append("t4.mp4,train,dog,")
    features, computed = study.run()
    assert computed == {"data", "extract", "evaluate", *TRAINED}
    assert features.manifest.num_reused == 9

    # A replaced file is extracted again.
    study.write_clip("t1.mp4", fps=25)
    features, computed = study.run()
    assert computed == {"extract", "evaluate", *TRAINED}
    assert features.manifest.num_reused == 9
    replaced = content(features)
    assert {name for name in first if first[name] != replaced[name]} == {"t1.mp4"}

    # A file with another modification time is extracted again, with equal features.
    os.utime(tmp_path / "e1.mp4", ns=(1, 1))
    touched, computed = study.run()
    assert computed == {"extract", "evaluate"}
    assert touched.manifest.num_reused == 9
    assert content(touched) == replaced

    # A removed video is in no result.
    study.rows = [row for row in study.rows if not row.startswith("e2.mp4")]
    features, computed = study.run()
    assert computed == {"data", "extract", "evaluate"}
    assert "e2.mp4" not in features.store
    assert features.manifest.num_videos == features.manifest.num_reused == 9

    # Two videos whose files are swapped are extracted again.
    study.with_ids({"t2": "t2.mp4", "t3": "t3.mp4"})
    correct = content(study.run()[0])
    study.with_ids({"t2": "t3.mp4", "t3": "t2.mp4"})
    swapped = content(study.run()[0])
    assert swapped["t2"] == correct["t3"] != correct["t2"] == swapped["t3"]

    # A damaged copy of a feature file is copied again.
    (damaged, *_) = sorted(Path(features.location.path).glob("features/reused-*.parquet"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    study.with_ids({})
    again, computed = study.run()
    assert again.location == features.location
    assert computed == set()  # only the features, whose marker existed before
    assert damaged.read_bytes() == whole
