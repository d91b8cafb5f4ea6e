"""Sources of `avel predict`: patterns, lists and object-store prefixes."""

import logging
import re

import pandas as pd
import pytest
from media.clips import clip
from moto.server import ThreadedMotoServer
from pyarrow import fs as pafs

from distributed_avel.media.files import opened_file
from distributed_avel.predict.sources import LIST_COLUMNS, find_files
from distributed_avel.storage import Location


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Files in nested folders; it is the current folder."""
    for name in ("a.mp4", "b.mkv", "deep/c.mp4", "deep/er/d.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def addresses(*sources: str) -> list[str]:
    files, failures = find_files(sources)
    assert failures == []
    return [file.address for file in files]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.mp4", ["a.mp4"]),
        ("**/*.mp4", ["a.mp4", "deep/c.mp4", "deep/er/d.mp4"]),
        ("deep/?.mp4", ["deep/c.mp4"]),
        ("[ab].*", ["a.mp4", "b.mkv"]),
        ("note*", ["notes.txt"]),  # what is named is taken, whatever its suffix
    ],
)
def test_a_pattern_finds_the_files_that_match(tree, pattern, found):
    assert addresses(pattern) == found
    of_uri = addresses(f"file://{tree}/{pattern}") if "?" not in pattern else None
    assert of_uri in (None, [f"file://{tree}/{name}" for name in found])


def test_a_file_whose_name_has_wildcards_is_found_by_its_name(tree):
    (tree / "[a].mp4").write_bytes(b"x")

    assert addresses("[a].mp4") == ["[a].mp4"]


@pytest.mark.parametrize("source", ["*.webm", "nowhere/**", "file:///nowhere/*.mp4"])
def test_a_pattern_without_a_match_is_a_source_that_cannot_be_used(tree, source):
    files, (failure,) = find_files([source])

    assert files == []
    assert failure.startswith((f"{source}: no file matches", "file:///nowhere: no such folder"))


def test_a_pattern_that_is_wrong_is_a_source_that_cannot_be_used(tree):
    files, (failure,) = find_files([f"file://{tree}/**.mp4"])

    assert files == []
    assert failure.startswith(f"file://{tree}/**.mp4: ")


@pytest.mark.parametrize("is_uri", [False, True])
def test_rows_of_a_list_that_cannot_be_used_do_not_hide_the_others(tree, is_uri):
    rows = ["a.mp4", '""', "s3://key:secret@bucket/v.mp4", *["../x.mp4"] * is_uri, "b.mkv"]
    (tree / "list.csv").write_text("\n".join(["uri", *rows, ""]))

    files, failures = find_files([f"file://{tree}/list.csv" if is_uri else "list.csv"])

    assert [file.name for file in files] == ["a.mp4", "b.mkv"]
    lines = [re.search(r"line (\d)", failure)[1] for failure in failures]
    assert lines == ["3", "4", "5"][: len(rows) - 2]
    assert "key:secret" not in str(failures)


@pytest.mark.parametrize("column", LIST_COLUMNS)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_names_files_relative_to_its_folder_or_absolutely(tree, column, suffix):
    paths = ["c.mp4", "er/d.mp4", "../a.mp4", str(tree / "b.mkv"), f"file://{tree}/a.mp4"]
    table = pd.DataFrame({"number": range(len(paths)), column: paths})
    path = tree / "deep" / f"list{suffix}"
    _ = table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)

    files, failures = find_files([f"deep/list{suffix}"])

    assert failures == []
    assert [Location.at(file.address).exists() for file in files] == [True] * 5
    assert [file.address for file in files] == [
        "deep/c.mp4", "deep/er/d.mp4", "deep/../a.mp4", str(tree / "b.mkv"),
        f"file://{tree}/a.mp4",
    ]  # fmt: skip
    assert [file.name for file in files] == ["c.mp4", "er/d.mp4", "a.mp4", "b.mkv", "a.mp4"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name,split\na.mp4,train\n", "needs a column uri or path .*; it has: name, split"),
        (b"", "needs a column uri .*; it has: none"),
        (b"uri\n", "no file in its column uri"),
        (b"uri,split\n,train\n", "line 2 has no uri; fill it or remove it"),
        (b"\xff\xfe", "not a readable table"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_read_says_why(tree, content, says):
    (tree / "list.csv").write_bytes(content)

    files, (failure,) = find_files(["list.csv"])

    assert files == []
    assert failure.startswith("list.csv: ")
    assert re.search(says, failure)


def test_a_prefix_a_pattern_and_a_list_of_an_object_store_are_read():
    """S3, as moto serves it; files are copied to a temporary file before they are decoded."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    store = pafs.S3FileSystem(
        access_key="key", secret_key="secret", endpoint_override=f"{host}:{port}", scheme="http",
        allow_bucket_creation=True,
    )  # fmt: skip
    options = f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    try:
        store.create_dir("bucket")
        content = {
            "videos/a.mp4": clip(2.0), "videos/b/c.mp4": clip(3.0), "videos/notes.txt": b"#",
            "videos/list.csv": b"uri\nb/c.mp4\n",
        }  # fmt: skip
        for name, data in content.items():
            with store.open_output_stream(f"bucket/{name}") as file:
                file.write(data)
        uri = "s3://bucket/videos"

        assert addresses(f"{uri}{options}") == [
            f"{uri}/a.mp4{options}", f"{uri}/b/c.mp4{options}",
        ]  # fmt: skip
        assert addresses(f"{uri}/**/*.mp4{options}") == addresses(f"{uri}{options}")
        listed = addresses(f"{uri}/list.csv{options}")
        assert listed == [f"{uri}/b/c.mp4{options}"]
        with opened_file(Location.at(listed[0])) as file:  # a copy on disk
            assert file.read_bytes() == content["videos/b/c.mp4"]
    finally:
        server.stop()
