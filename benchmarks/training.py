"""Time a training step on a CPU and on a GPU, and what reproducible arithmetic costs there.

    python benchmarks/training.py [--videos 64] [--out benchmarks/results/training_NAME.json]

One step is what Step 1 with the auxiliary loss does with a batch at AVE's size (10 x 49 x 512):
copy it to the device, forward, backward, Adam. Each device is timed `--repeats` times in turn in
the same process; the figures are medians, and the ratios are between them. "free" lets cuDNN use
TF32 and any algorithm; "reproducible" is what the product does.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch

from distributed_avel.config import ModelConfig
from distributed_avel.method.losses import union_of_labels
from distributed_avel.method.windows import windows_of_length
from distributed_avel.models import model_class
from distributed_avel.tasks import Localization
from distributed_avel.train.arithmetic import reproducible_arithmetic
from distributed_avel.train.batches import Batch
from distributed_avel.train.loop import train_epoch
from distributed_avel.train.model_recipe import ModelRecipe
from distributed_avel.train.objectives import Objective

NUM_CLASSES, SEGMENTS, REGIONS, VISUAL_DIM, AUDIO_DIM = 28, 10, 49, 512, 128


def main() -> None:
    """Print medians in milliseconds and their ratios, and write them."""
    parser = argparse.ArgumentParser(description="Time a training step on a CPU and a GPU.")
    parser.add_argument("--model", default="ave")
    parser.add_argument("--videos", type=int, default=64, help="in a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    steps = {"CPU, reproducible": step(args, cpu, reproducible=True)}
    if torch.cuda.is_available():
        steps["GPU, reproducible"] = step(args, gpu, reproducible=True)
        steps["GPU, free"] = step(args, gpu, reproducible=False)
    for run in steps.values():
        run()  # the first call chooses algorithms
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.repeats):
        for name, run in steps.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    result = {
        "benchmark": f"training step, {args.model}, {args.videos} videos of 10 x 49 x 512",
        "date": date.today().isoformat(),
        "hardware": {
            "cpu": f"{platform.processor() or platform.machine()}, {args.threads} threads",
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "torch": torch.__version__,
        },
        "median_ms": {name: round(value, 2) for name, value in medians.items()},
        "times_of_the_fastest": {
            name: round(value / min(medians.values()), 2) for name, value in medians.items()
        },
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def step(
    args: argparse.Namespace, device: torch.device, *, reproducible: bool
) -> Callable[[], object]:
    """A training step; it returns the sum of the losses, so a GPU has finished."""
    torch.manual_seed(0)
    config = ModelConfig(name=args.model)
    make_model = ModelRecipe(
        config=config,
        num_classes=NUM_CLASSES,
        audio_shape=(SEGMENTS, AUDIO_DIM),
        visual_shape=(SEGMENTS, REGIONS, VISUAL_DIM),
    )
    assert model_class(args.model).task == "localization"
    model = make_model().to(device).train()
    windows_of = partial(windows_of_length, window=4, stride=2)
    objective = Objective(model, windows_of, Localization(model.pooling, "soft_margin")).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    labels_BK = torch.zeros((args.videos, NUM_CLASSES + 1), dtype=torch.bool)
    labels_BK[np.arange(args.videos), rng.integers(NUM_CLASSES, size=args.videos)] = True
    background_BK = torch.zeros_like(labels_BK)
    background_BK[:, -1] = True
    shape = (2 * args.videos, SEGMENTS)
    batch = Batch(
        audio_NTD=torch.from_numpy(rng.random((*shape, AUDIO_DIM), dtype=np.float32)),
        visual_NTRD=torch.from_numpy(rng.random((*shape, REGIONS, VISUAL_DIM), dtype=np.float32)),
        labels_BK=labels_BK,
        weight_B=torch.ones(args.videos),
        partner_B=torch.arange(args.videos),
        union_BK=union_of_labels(labels_BK, background_BK),
    )

    def run() -> object:
        with reproducible_arithmetic(device) if reproducible else nullcontext():
            return train_epoch(objective, [batch], optimizer, device)

    return run


if __name__ == "__main__":
    main()
