"""Steps 1 to 3 are bit-reproducible with two threads.

Tested at the widths at which atomic additions change results: those of the demo and AVE, but not
that of `synthetic`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from distributed_avel.config import ModelConfig, TrainConfig
from distributed_avel.features.store import INDEX, PARTS
from distributed_avel.method.windows import single_segments, windows_of_length
from distributed_avel.models import model_class, model_names
from distributed_avel.schema import features_schema, tensor_column
from distributed_avel.stages.refine import SCORES, RefineWorker
from distributed_avel.stages.training import CURVES_FILE, WEIGHTS, TrainJob, train_in_process
from distributed_avel.storage import Location
from distributed_avel.tasks import task_of
from distributed_avel.train.arithmetic import reproducible_arithmetic
from distributed_avel.train.model_recipe import ModelRecipe

CPU = torch.device("cpu")
NUM_VIDEOS, NUM_CLASSES = 40, 28
WINDOWS = partial(windows_of_length, window=4, stride=2)
IDS = [f"video {index:02d}" for index in range(NUM_VIDEOS)]


@dataclass(frozen=True, kw_only=True)
class Width:
    """Sizes of features and of a model for them."""

    audio: tuple[int, ...]
    visual: tuple[int, ...]
    hidden_size: int


WIDTHS = {
    "demo": Width(audio=(10, 128), visual=(10, 49, 16), hidden_size=32),
    "ave": Width(audio=(10, 128), visual=(10, 49, 512), hidden_size=128),
}
ARMS = {
    "base": {},
    "PL": {"fully_supervised": True},
    "LR": {"windows": True},
    "A": {"auxiliary": True},
    "A and LR at once": {"auxiliary": True, "windows": True},
}


@pytest.fixture(autouse=True)
def _same_number_of_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Callable[[str], Location]:
    """A function that returns the location of random features of a width."""
    root = tmp_path_factory.mktemp("features")
    for name, width in WIDTHS.items():
        rng = np.random.default_rng(0)
        schema = features_schema(width.audio, width.visual)
        audio = rng.random((NUM_VIDEOS, *width.audio), dtype=np.float32)
        visual = rng.random((NUM_VIDEOS, *width.visual), dtype=np.float32).astype(np.float16)
        columns = [
            pa.array(IDS),
            tensor_column(audio, schema.field("audio").type),
            tensor_column(visual, schema.field("visual").type),
        ]
        out = Location.at(root / name)
        (out / PARTS / "0.parquet").write_table(pa.Table.from_arrays(columns, schema=schema))
        index = {"video_id": IDS, "part": ["0.parquet"] * NUM_VIDEOS}
        (out / INDEX).write_table(pa.table(index))
    return lambda name: Location.at(root / name)


def recipe(name: str, width: Width) -> ModelRecipe:
    return ModelRecipe(
        config=ModelConfig(name=name, hidden_size=width.hidden_size),
        num_classes=NUM_CLASSES,
        audio_shape=width.audio,
        visual_shape=width.visual,
    )


def training(
    features: Location,
    width: str,
    *,
    model: str = "ave",
    auxiliary: bool = False,
    windows: bool = False,
    fully_supervised: bool = False,
    use_gpu: bool = False,
) -> TrainJob:
    """Two steps on all videos; Adam's first step hides how gradients were rounded."""
    rng = np.random.default_rng(1)
    labels_VK = np.zeros((NUM_VIDEOS, NUM_CLASSES + 1), dtype=bool)
    columns = rng.integers(NUM_CLASSES, size=NUM_VIDEOS)
    columns[::10] = NUM_CLASSES
    labels_VK[np.arange(NUM_VIDEOS), columns] = True
    parsing = model_class(model).task == "parsing"
    targets_VK = np.tile(labels_VK[:, :-1], 2) if parsing else labels_VK
    windows_of = single_segments if fully_supervised else WINDOWS
    labels_VWK = np.repeat(targets_VK[:, None], len(windows_of(10)), axis=1)
    config = TrainConfig(
        batch_size=NUM_VIDEOS, loss="soft_margin", cpus_per_worker=2, use_gpu=use_gpu
    )
    return TrainJob(
        stage="base",
        seed=0,
        task=task_of(ModelConfig(name=model), config),
        make_model=recipe(model, WIDTHS[width]),
        features=features,
        video_ids=IDS,
        files=IDS,
        labels_VK=labels_VK,
        targets_VK=targets_VK,
        windows_of=windows_of,
        val_ids=[],
        val_labels=None,
        num_epochs=2,
        config=config,
        window_labels_VWK=labels_VWK if windows or fully_supervised else None,
        fully_supervised=fully_supervised,
        partners="event_free" if auxiliary else None,
    )


def trained(job: TrainJob, folder: Path) -> bytes:
    """Return the weights and the learning curves as they are stored."""
    out = Location.at(folder)
    train_in_process(job, out)
    return (out / WEIGHTS).read_bytes() + (out / CURVES_FILE).read_bytes()


# Training


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_arm_trains_equal_weights_when_repeated_with_two_threads(
    tmp_path, features, width, arm
):
    job = training(features(width), width, **ARMS[arm])

    runs = {trained(job, tmp_path / str(number)) for number in range(2)}

    assert len(runs) == 1


@pytest.mark.parametrize("model", sorted(set(model_names()) - {"ave"}))
def test_every_model_trains_equal_weights_when_repeated_with_two_threads(tmp_path, features, model):
    job = training(features("demo"), "demo", model=model, auxiliary=True, windows=True)

    runs = {trained(job, tmp_path / str(number)) for number in range(2)}

    assert len(runs) == 1


def gradient_of_an_index(*, num_rows: int = 400, size: int = 512) -> Tensor:
    """Return the gradient of indexing rows repeatedly, as for partners, with two threads."""
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    codes_BD = torch.randn(8, size, generator=generator, requires_grad=True)
    weight_ND = torch.randn(num_rows, size, generator=generator)
    places_N = torch.randint(8, (num_rows,), generator=generator)
    (codes_BD[places_N] * weight_ND).sum().backward()
    assert codes_BD.grad is not None
    return codes_BD.grad


def test_gradients_of_indexing_are_deterministic_in_training_only():
    """The first assertion shows that the comparisons above could fail."""
    first = gradient_of_an_index()
    assert any(not torch.equal(first, gradient_of_an_index()) for _ in range(500))

    with reproducible_arithmetic(CPU):
        gradients = [gradient_of_an_index() for _ in range(50)]

    assert all(torch.equal(gradients[0], gradient) for gradient in gradients)


def test_deterministic_mode_is_restored_even_after_an_error():
    def diverge() -> None:
        with reproducible_arithmetic(CPU):
            assert torch.are_deterministic_algorithms_enabled()
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        diverge()

    assert not torch.are_deterministic_algorithms_enabled()


# Step 2


def scores(worker: RefineWorker, partners: Sequence[int]) -> np.ndarray:
    """Return Z-hat of the first videos with these partners."""
    chosen = IDS[: len(partners)]
    rows = pa.table(
        {
            "video_id": chosen,
            "partners": pa.array([[IDS[p]] for p in partners], pa.list_(pa.string())),
            "targets": np.ones((len(chosen), NUM_CLASSES + 1), dtype=bool).tolist(),
        }
    )
    return np.array(worker(rows)[SCORES]["scores"].combine_chunks().storage.flatten())


@pytest.mark.parametrize("width", WIDTHS)
def test_window_scores_do_not_depend_on_what_an_actor_scored_before(features, width):
    """Actors take units in any order, so the partners that each has already cached vary."""

    def actor() -> RefineWorker:
        torch.manual_seed(0)
        task = task_of(ModelConfig(), TrainConfig())
        return RefineWorker(
            recipe("ave", WIDTHS[width]),
            features(width),
            WINDOWS,
            len(WINDOWS(10)),
            task,
            "refined",
        )

    partners = list(range(20, 33))
    fresh, busy = actor(), actor()
    for known in ([20], [21, 22, 23], [25, 26, 27, 28, 29]):
        scores(busy, known)

    np.testing.assert_array_equal(scores(fresh, partners), scores(busy, partners))
