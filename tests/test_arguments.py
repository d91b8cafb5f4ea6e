"""Malformed command lines are refused, for every option of every job; no word is ignored."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest

from distributed_avel.cli import USER_ERROR, read_config
from distributed_avel.config import (
    Config,
    ReproduceConfig,
    RunConfig,
    TuneConfig,
    read_arguments,
)
from distributed_avel.errors import ConfigError

KINDS = (RunConfig, TuneConfig, ReproduceConfig)
JOBS = sorted((Path(__file__).parent.parent / "jobs").glob("*.py"))


def options(section: type[Config], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key of a configuration with its type."""
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Config):
            yield from options(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info.annotation


ALL = [(kind, key, annotation) for kind in KINDS for key, annotation in options(kind)]
VALUED = [(kind, key) for kind, key, annotation in ALL if annotation is not bool]
SINGLE = [
    (kind, key)
    for kind, key, annotation in ALL
    if annotation is not bool and get_origin(annotation) not in (dict, tuple)
]
MAPPINGS = [(kind, key) for kind, key, annotation in ALL if get_origin(annotation) is dict]
FLAGS = [(kind, key) for kind, key, annotation in ALL if annotation is bool]


def name_of(key: str) -> str:
    return "--" + key.replace("_", "-")


def refused(argv: list[str], kind: type[RunConfig] = RunConfig) -> str:
    """Return the error message that a job prints for a malformed command line."""
    problems = read_arguments(argv, kind).problems
    assert problems, argv
    lines = [f"  {key}: {problem}" for key, problem in problems.items()]
    return "\n".join([f"command line: {len(problems)} problem(s)", *lines])


def test_options_with_values_and_flags_are_found():
    assert len(VALUED) > 150
    assert len(FLAGS) >= 6


def test_an_assignment_without_dashes_is_refused_with_the_right_spelling():
    for kind, key in VALUED:
        for written in (key, key.replace("_", "-")):
            lines = refused([f"{written}=7"], kind)
            assert f"  {written}=7: not an option; write {name_of(key)} 7" in lines.splitlines()


def test_an_option_without_dashes_is_not_taken_as_the_value_of_the_previous_one():
    """Regression test: the value of the first option was lost when the second was dropped."""
    for kind, key in VALUED:
        for before in (["--data.root", "/A"], ["--arms", "base"], ["--data.root"]):
            assert f"  {key}=7: not an option; write" in refused([*before, f"{key}=7"], kind)


@pytest.mark.parametrize("dash", ["-", "---", "–", "—", "−"])
def test_a_wrong_number_or_kind_of_dashes_is_refused(dash):
    for kind, key, _ in ALL:
        written = dash + key.replace("_", "-")
        for argv in ([written], [written, "7"], [f"{written}=7"]):
            lines = refused(argv, kind)
            assert f"{argv[0]}: not an option; write {name_of(key)}" in lines
            assert lines.startswith("command line: 1 problem(s)")


def test_a_word_without_dashes_is_refused():
    for kind, key, _ in ALL:
        assert f"  {key}: not an option; write {name_of(key)}" in refused([key], kind)
    for before in ([], ["--seed", "3"], ["--train.use-gpu"], ["--nothing", "3", "--seed", "4"]):
        assert "  stray: not an option" in refused([*before, "stray"])


def test_a_missing_value_is_refused():
    for kind, key in VALUED:
        name = name_of(key)
        for argv in ([name], [name, "--seed", "3"], [name, "--model.name", "ave"]):
            if argv[1:2] != [name]:
                assert f"{name} needs a value" in refused(argv, kind)
        assert f"{name} has an empty value" in refused([name, ""], kind)
        assert f"{name} has an empty value" in refused([f"{name}="], kind)


def test_a_value_that_starts_with_a_dash_needs_an_equals_sign():
    for kind, key in SINGLE:
        name = name_of(key)
        lines = refused([name, "-value"], kind)
        assert f"{name} needs a value; if you mean -value, write {name}=-value" in lines
        assert lines.startswith("command line: 1 problem(s)")
    assert read_config(["--run-dir=-value"]).run_dir == "-value"
    assert read_arguments(["--seed", "-1"], RunConfig).options == ["--seed", "-1"]


def test_an_option_given_twice_is_refused():
    """The last one must not win silently: in a long command the first is easily overlooked."""
    for kind, key in VALUED:
        name = name_of(key)
        pair = ["a", "b"] if (kind, key) in MAPPINGS else ["1"]
        other = "--" + key if "_" in key else name
        said = refused([name, *pair, other, *pair], kind)
        assert f"{other} is given more than once" in said
    for kind, key in MAPPINGS:
        name = name_of(key)
        for twice in ([f"{name}.a", "1"], [name, "a", "1"], [name, "b", "1", "a", "1"]):
            assert "is given more than once" in refused([f"{name}.a", "2", *twice], kind)
            assert "is given more than once" in refused([*twice, f"{name}.a=2"], kind)
        assert "is given more than once" in refused([name, "a", "1", "a", "2"], kind)
    for kind, key in FLAGS:
        name = name_of(key)
        *sections, last = name[2:].split(".")
        opposite = "--" + ".".join([*sections, f"no-{last}"])
        for argv in ([name, name], [name, opposite], [opposite, name]):
            assert "is given more than once" in refused(argv, kind)
    assert "--config is given more than once" in refused(["--config", "a", "--config=b"])


def test_a_flag_takes_no_value():
    for kind, key in FLAGS:
        name = name_of(key)
        assert f"{name} takes no value" in refused([f"{name}=true"], kind)
        assert "  True: not an option" in refused([name, "True"], kind)


def test_unknown_keys_and_keys_of_another_section_are_refused():
    for kind, key, _ in ALL:
        *sections, last = key.split(".")
        assert f"  nothing.{last}: no such key" in refused([f"--nothing.{last}", "7"], kind)
        wrong = ".".join([*sections, last, "deeper"])
        if (kind, key) not in MAPPINGS:
            assert f"  {wrong}: no such key" in refused([f"--{wrong}=7"], kind)
        assert f"  {key}z: no such key; perhaps " in refused([f"--{key}z", "7"], kind)
    assert "batch_size: no such key; perhaps train.batch_size" in refused(["--batch-size", "7"])
    assert "tran.batch_size: no such key; perhaps train." in refused(["--tran.batch-size", "7"])


def test_options_after_a_bare_double_dash_are_refused():
    for argv in (["--", "--seed", "3"], ["--"], ["--seed", "3", "--", "stray"]):
        assert "  --: options after it are not read" in refused(argv)


def test_list_options_take_several_words_and_sweep_options_take_assignments():
    vary = ["train.learning_rate=0.1,0.2", "model.name=ave,psp"]
    config = read_config(["--sweep.vary", *vary, "--arms", "A", "base"], None, TuneConfig)

    assert config.sweep.vary == tuple(vary)
    assert config.arms == ("A", "base")
    assert "needs pairs of a name and a value" in refused(["--extract.weights", "vgg19"])


def test_each_entry_of_a_mapping_is_an_option():
    for kind, key in MAPPINGS:
        name = name_of(key)
        for argv in (
            [f"{name}.first-one", "7", f"{name}.b=8"],
            [f"{name}.first_one=7", name, "b", "8"],
        ):
            config = read_config([*argv, "--seed", "3"], None, kind)
            section, option = key.split(".")
            found = getattr(getattr(config, section), option)
            assert {entry: str(value) for entry, value in found.items()} == {
                "first_one": "7",
                "b": "8",
            }
        assert f"{name}.a needs a value" in refused([f"{name}.a", "--seed", "3"], kind)
        assert f"{name}.a needs a value" in refused([f"{name}.a"], kind)
        assert f"  {key}.a: {name}.a has an empty value" in refused([f"{name}.a="], kind)
        assert f"  {key}.a=7: not an option; write {name}.a 7" in refused([f"{key}.a=7"], kind)
        assert f"  {key}.: no such key" in refused([f"--{key}.", "7"], kind)


def test_command_line_entries_override_entries_of_the_file_and_keep_the_others(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {name: psp, options: {threshold: 0.5, head_size: 16}}\n")

    config = read_config(["--config", str(path), "--model.options.threshold", "0.1"])

    assert config.model.options == {"threshold": 0.1, "head_size": 16}


def test_model_options_are_parsed_as_yaml():
    words = ["a=0.1", "b=None", "c=true", "d=[1, 2]", "e=text"]

    config = read_config([f"--model.options.{word}" for word in words])

    assert config.model.options == {"a": 0.1, "b": None, "c": True, "d": [1, 2], "e": "text"}
    assert "  model.options.a: '[1' is not a valid YAML value" in refused(["--model.options.a=[1"])


def test_an_entry_is_refused_if_the_file_has_no_mapping_there(tmp_path):
    path = tmp_path / "run.yaml"
    for text, key in (("model: 3", "model"), ("model: {options: 3}", "model.options")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"  {key}: Input should be a valid dictionary"):
            read_config(["--config", str(path), "--model.options.threshold", "0.1"])


MALFORMED = (
    ["run_dir=/x"],
    ["-run-dir", "/x"],
    ["--data.root", "/A", "data.root=/B"],
    ["--", "--seed", "3"],
)


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_every_job_refuses_malformed_options(job, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for argv in MALFORMED:
        file = ["clip.mp4"] if job.stem == "inspect_media" else []
        monkeypatch.setattr("sys.argv", [str(job), *file, *argv])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(job), run_name="__main__")

        assert stop.value.code == USER_ERROR
        message = capsys.readouterr().err
        assert ("error: " if job.stem == "predict" else "1 problem(s)") in message
    assert not list(tmp_path.iterdir())
