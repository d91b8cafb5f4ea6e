"""A small example of every data set, in its published layout."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from distributed_avel.config import DataConfig, DemoConfig, SyntheticConfig, SyntheticLlpConfig
from distributed_avel.datasets.demo import render_demo
from distributed_avel.storage import Location

FACTS = Path(__file__).parents[1] / "data"

AVE_LINES = [
    "Ukulele&aaa&good&0&10",
    "Bark&bbb&good&2&5",
    "Cat&ccc&good&6&10",
    "Goat&ddd&good&1&4",
]
LLP_FILES = {
    "AVVP_train.csv": ["filename\tevent_labels", "aaaaaaaaaaa_0_10\tSpeech,Dog"],
    "AVVP_val_pd.csv": ["filename\tevent_labels", "ccccccccccc_0_10\tCar"],
    "AVVP_test_pd.csv": ["filename\tevent_labels", "ddddddddddd_0_10\tDog"],
    "AVVP_eval_audio.csv": [
        "filename\tonset\toffset\tevent_labels",
        "ccccccccccc_0_10\t0\t10\tCar",
        "ddddddddddd_0_10\t1\t4\tDog",
    ],
    "AVVP_eval_visual.csv": [
        "filename\tonset\toffset\tevent_labels",
        "ddddddddddd_0_10\t2\t5\tDog",
    ],
}
VIDEOS_CSV = [
    "uri,split,labels,spans",
    "a.mp4,train,dog;bell,",
    "b.mp4,train,,",
    "c.mp4,val,bell,bell:0-1.5",
    "d.mp4,test,dog;bell,dog:2-5;bell:0-10",
]


def write_lines(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_published_ave(root: Path) -> None:
    """Write AVE's published annotations and splits, without videos."""
    text = (FACTS / "ave" / "Annotations.txt").read_text(encoding="utf-8")
    (root / "Annotations.txt").write_text(text, encoding="utf-8")
    lines = text.splitlines()
    for split in ("train", "val", "test"):
        rows = np.loadtxt(FACTS / "ave" / f"{split}_rows.txt", dtype=int)
        write_lines(root / f"{split}Set.txt", [lines[row] for row in rows])


def _demo(root: Path) -> DataConfig:
    config = DemoConfig(num_train=1, num_event_free=1, num_val=1, num_test=1)
    render_demo(config, Location.at(root))
    return DataConfig(dataset="demo", demo=config)


def _synthetic(root: Path, name: str = "synthetic") -> DataConfig:
    sizes = SyntheticConfig(num_train=30, num_event_free=3, num_val=5, num_test=5)
    return DataConfig(dataset=name, synthetic=sizes)


def _synthetic_easy(root: Path) -> DataConfig:
    return _synthetic(root, "synthetic_easy")


def _synthetic_llp(root: Path) -> DataConfig:
    sizes = SyntheticLlpConfig(num_train=30, num_event_free=3, num_val=5, num_test=5)
    return DataConfig(dataset="synthetic_llp", synthetic_llp=sizes)


def _ave(root: Path) -> DataConfig:
    write_lines(root / "Annotations.txt", AVE_LINES)
    write_lines(root / "trainSet.txt", AVE_LINES[:2])
    write_lines(root / "valSet.txt", AVE_LINES[2:3])
    write_lines(root / "testSet.txt", AVE_LINES[3:])
    write_lines(root / "eventFreeSet.txt", ["free"])
    return DataConfig(dataset="ave")


def _ave_features(root: Path) -> DataConfig:
    write_lines(root / "Annotations.txt", AVE_LINES)
    for split, rows in (("train", [0, 3]), ("val", [1]), ("test", [2])):
        with h5py.File(root / f"{split}_order.h5", "w") as opened:
            opened["order"] = np.array(rows)
    for ending, count in (("", 4), ("_noisy", 2)):
        for name, shape in (("visual", (7, 7, 512)), ("audio", (128,))):
            with h5py.File(root / f"{name}_feature{ending}.h5", "w") as opened:
                opened.create_dataset("avadataset", (count, 10, *shape), np.float32)
    return DataConfig(dataset="ave_features")


def _llp(root: Path) -> DataConfig:
    for name, lines in LLP_FILES.items():
        write_lines(root / name, lines)
    return DataConfig(dataset="llp")


def _llp_features(root: Path) -> DataConfig:
    _llp(root)
    for video_id in ("aaaaaaaaaaa", "ccccccccccc", "ddddddddddd"):
        for kind, shape in (
            ("vggish", (10, 128)),
            ("res152", (80, 2048)),
            ("r2plus1d_18", (10, 512)),
        ):
            (root / kind).mkdir(exist_ok=True)
            np.save(root / kind / f"{video_id}.npy", np.ones(shape, np.float32))
    return DataConfig(dataset="llp_features")


def _folder(root: Path) -> DataConfig:
    write_lines(root / "videos.csv", VIDEOS_CSV)
    return DataConfig(dataset="folder")


EXAMPLES: dict[str, Callable[[Path], DataConfig]] = {
    "ave": _ave,
    "ave_features": _ave_features,
    "demo": _demo,
    "folder": _folder,
    "llp": _llp,
    "llp_features": _llp_features,
    "synthetic": _synthetic,
    "synthetic_easy": _synthetic_easy,
    "synthetic_llp": _synthetic_llp,
}
"""By name, what writes an example into an empty folder and says how it is loaded."""
