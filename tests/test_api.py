"""The public interface: its names, their behaviour, and the import time."""

import subprocess
import sys
import time

import pytest
import torch

import distributed_avel as avel
from distributed_avel.config import (
    ModelConfig,
    RunConfig,
    TuneConfig,
    built_in_configs,
    load_values,
    validate,
)
from distributed_avel.datasets import dataset_names
from distributed_avel.errors import ConfigError
from distributed_avel.features.base import extractor_names
from distributed_avel.models import model_class, model_names


def test_exactly_the_public_names_exist():
    for name in avel.__all__:
        assert getattr(avel, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'run_pipelines'"):
        _ = avel.run_pipelines  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.multiprocess
def test_importing_the_package_is_fast_and_imports_no_heavy_package():
    script = (
        "import sys; before = set(sys.modules); import distributed_avel; "
        "print([name for name in ('torch', 'ray', 'mlflow', 'numpy', 'pydantic') "
        "if name in set(sys.modules) - before])"
    )
    started = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert run.stdout == "[]\n"
    assert time.perf_counter() - started < 5  # 0.1 s on a machine that does nothing else


def test_load_config_accepts_a_built_in_name_a_path_and_values(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {base_epochs: 3, batch_size: 4}\n")

    config = avel.load_config(file, seed=2, train={"base_epochs": 5})

    assert (config.seed, config.train.base_epochs, config.train.batch_size) == (2, 5, 4)
    assert avel.load_config("synthetic").data.dataset == "synthetic"
    assert avel.load_config() == RunConfig()
    with pytest.raises(ConfigError, match="built-in configurations: ave, "):
        avel.load_config("synthetics")
    with pytest.raises(ConfigError, match="base_epochs is 0"):
        avel.load_config(train={"base_epochs": 0})


@pytest.mark.parametrize("name", built_in_configs())
def test_every_built_in_configuration_is_valid(name):
    validate(load_values(name), name, TuneConfig if name == "sweep" else RunConfig)


def test_load_dataset_and_create_model_work_together():
    config = avel.load_config("synthetic")
    videos = avel.load_dataset(config.data)
    model = avel.create_model(
        "ave", num_classes=len(videos.classes), audio_dim=128, visual_dim=64, regions=9
    )

    logits = model(torch.zeros(1, 10, 128), torch.zeros(1, 10, 9, 64))
    assert logits.shape[:2] == (1, 10)
    with pytest.raises(
        ConfigError, match=r"data\.root: set it to the folder of the files of 'ave'"
    ):
        avel.load_dataset(avel.load_config("ave").data)


@pytest.mark.parametrize(
    ("section", "option", "names"),
    [
        ("data", "dataset", dataset_names),
        ("extract", "extractor", extractor_names),
        ("model", "name", model_names),
    ],
)
def test_the_help_of_an_option_lists_the_registered_names(section, option, names):
    kind = RunConfig.model_fields[section].annotation
    assert kind is not None
    text = " ".join((kind.model_fields[option].description or "").split())
    listed = text.partition(": ")[2].removesuffix(", or one of a plug-in.").split(", ")

    assert listed == names()


def test_the_help_of_model_options_lists_those_of_each_model():
    text = " ".join((ModelConfig.model_fields["options"].description or "").split())
    listed = text.partition("There are: ")[2].removesuffix("; and those of plug-ins.")

    fields = {name: sorted(model_class(name).Config.model_fields) for name in model_names()}
    there_are = "; ".join(f"{name}: {', '.join(of)}" for name, of in fields.items() if of)
    assert listed == there_are
