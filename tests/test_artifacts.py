"""Locations on several file systems, atomic writes, and artifacts of stages."""

import errno
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from moto.server import ThreadedMotoServer
from pyarrow import fs as pafs

from distributed_avel import artifacts, storage
from distributed_avel.artifacts import Artifact
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import RunConfig
from distributed_avel.errors import ArtifactError, AvelError
from distributed_avel.stages.stage import Context
from distributed_avel.storage import Location, remove_file, storage_error

KINDS = ["path", "file", "file with a space", "memory", "fsspec+file", "s3"]


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Start a local S3 server and yield its address as it appears in a URI."""
    server = ThreadedMotoServer(port=0)
    server.start()
    yield f"endpoint_override=127.0.0.1:{server.get_host_and_port()[1]}&scheme=http"
    server.stop()


@pytest.fixture(params=KINDS)
def folder(request, tmp_path: Path) -> Location:
    """An empty folder on each kind of file system."""
    if request.param == "s3":
        options = f"{request.getfixturevalue('s3')}&allow_bucket_creation=true"
        return Location.at(f"s3://bucket-{uuid4().hex}/run?{options}")
    addresses = {
        "path": str(tmp_path),
        "file": tmp_path.as_uri(),
        "file with a space": f"file://{tmp_path}/a folder",
        "memory": f"memory://{uuid4().hex}",
        "fsspec+file": f"fsspec+file://{tmp_path}",
    }
    return Location.at(addresses[request.param])


# Locations


def test_what_is_written_is_read_back(folder):
    (folder / "a" / "b.bin").write_bytes(b"\x00\xff")
    (folder / "a/c.json").write_json({"b": [1, None], "a": "é"})
    (folder / "t.parquet").write_table(pa.table({"x": [1, 2], "y": ["a", None]}))

    assert (folder / "a" / "b.bin").read_bytes() == b"\x00\xff"
    assert list((folder / "a" / "c.json").read_json().items()) == [("b", [1, None]), ("a", "é")]
    assert (folder / "t.parquet").read_table(["y"]).to_pydict() == {"y": ["a", None]}


def test_json_with_nan_is_refused(tmp_path):
    """NaN is not valid JSON; undefined metrics are written as null."""
    with pytest.raises(ValueError, match="JSON"):
        (Location.at(tmp_path) / "c.json").write_json({"precision": float("nan")})
    assert not (tmp_path / "c.json").exists()


def test_a_second_write_replaces_the_first(folder):
    for content in (b"a longer first one", b"second"):
        (folder / "file").write_bytes(content)

    assert (folder / "file").read_bytes() == b"second"


def test_children_are_sorted_by_name_and_not_recursive(folder):
    for name in ("b", "a/x", "c/x/y"):
        (folder / name).write_bytes(b"1")

    assert [child.name for child in folder.children()] == ["a", "b", "c"]
    assert [child.name for child in (folder / "c").children()] == ["x"]
    assert (folder / "nothing").children() == []


def test_exists_is_true_only_for_existing_files_and_folders(folder):
    (folder / "a/b").write_bytes(b"1")

    assert (folder / "a/b").exists()
    assert (folder / "a").exists()
    assert not (folder / "b").exists()
    assert not (folder / "a/b/c").exists()


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%20b", "a=b&c", "-ä"])
def test_file_names_may_contain_any_characters(folder, name):
    if "?" in name and folder.root.startswith("memory"):
        pytest.skip("fsspec takes ? for a pattern when it renames in memory")
    (folder / name / "inner").write_bytes(b"1")

    assert [child.name for child in folder.children()] == [name]
    assert [child.read_bytes() for child in (folder / name).children()] == [b"1"]


def test_a_location_can_be_pickled(folder):
    (folder / "file").write_bytes(b"1")
    assert folder.fs  # opened before

    assert pickle.loads(pickle.dumps(folder / "file")).read_bytes() == b"1"
    assert pickle.loads(pickle.dumps(folder)) == folder


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/x", "s3://bucket/x", "..\\x"])
def test_a_path_outside_the_location_is_refused(folder, name):
    with pytest.raises(ArtifactError, match="is outside"):
        folder / name


def test_a_relative_path_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (Location.at("runs/demo") / "file").write_bytes(b"1")

    assert (tmp_path / "runs/demo/file").read_bytes() == b"1"
    monkeypatch.chdir("/")
    assert Location.at(tmp_path / "runs/demo/file").read_bytes() == b"1"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert Location.at("~/runs").path == f"{tmp_path}/runs"


@pytest.mark.parametrize(
    ("root", "shown"),
    [
        ("s3://bucket/a?endpoint_override=127.0.0.1:9&scheme=http", "s3://bucket/a/b/c?endpoint"),
        ("s3://bucket/a/", "s3://bucket/a/b/c"),
        ("memory://a", "memory://a/b/c"),
        ("memory:///a", "memory:///a/b/c"),
        ("/tmp/what?", "/tmp/what?/b/c"),
    ],
)
def test_child_paths_are_inserted_before_the_query_of_a_uri(root, shown):
    assert str(Location.at(root) / "b" / "c").startswith(shown)


@pytest.mark.parametrize(
    "root",
    [
        "s3://AKIAX:hush@bucket/run",
        "s3://AKIAX:hush%2F@bucket/run?region=us-east-1",
        "s3://bucket/run?access_key=AKIAX&secret_key=hush",
    ],
)
def test_a_uri_with_a_secret_is_refused_without_printing_the_secret(root):
    with pytest.raises(ArtifactError, match="set AWS_ACCESS_KEY_ID") as error:
        Location.at(root)
    assert "hush" not in str(error.value)


def test_an_at_sign_in_a_folder_name_is_not_a_secret():
    assert Location.at("s3://bucket/a:b@c").uri == "s3://bucket/a:b@c"


def test_is_local_is_true_only_for_local_paths(tmp_path):
    assert Location.at(tmp_path).is_local
    assert Location.at(tmp_path.as_uri()).is_local
    assert not Location.at("memory://a").is_local


def test_unknown_file_system_is_named_in_the_error():
    with pytest.raises(ArtifactError, match="nosuch://bucket/a: no such file system"):
        _ = (Location.at("nosuch://bucket/a") / "b").fs


def test_reading_a_missing_file_raises_file_not_found(folder):
    with pytest.raises(FileNotFoundError):
        (folder / "nothing").read_bytes()


# Atomic writes


def test_a_failed_write_leaves_no_file(folder):
    unwritable = pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})

    with pytest.raises(pa.ArrowException):
        (folder / "new.parquet").write_table(unwritable)

    assert not (folder / "new.parquet").exists()
    assert folder.children() == []


def test_a_failed_write_keeps_the_previous_file(folder):
    (folder / "file").write_json({"kept": True})

    with pytest.raises(TypeError):
        (folder / "file").write_json({"bad": object()})

    assert (folder / "file").read_json() == {"kept": True}
    assert len(folder.children()) == 1


WRITE_MORE_THAN_THERE_IS_ROOM_FOR = """
import resource, signal, sys
from distributed_avel.storage import Location
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
Location.at(sys.argv[1]).write_bytes(bytes(1_000_000))
"""


def write_without_room(target: Path, when_full: str) -> int:
    command = [sys.executable, "-c", WRITE_MORE_THAN_THERE_IS_ROOM_FOR, str(target), when_full]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.multiprocess
def test_a_write_to_a_full_disk_leaves_no_file(tmp_path):
    assert write_without_room(tmp_path / "file", "SIG_IGN") == 1  # OSError: file too large

    assert list(tmp_path.iterdir()) == []


@pytest.mark.multiprocess
def test_the_partial_file_of_a_killed_writer_is_ignored(tmp_path):
    assert write_without_room(tmp_path / "part.parquet", "SIG_DFL") < 0  # killed while writing
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size == 10_000

    assert Location.at(tmp_path).children() == []
    assert not (Location.at(tmp_path) / "part.parquet").exists()


def test_a_table_that_ray_data_would_unpickle_is_refused(tmp_path):
    """Ray Data registers an Arrow type for pickled objects, which run code when they are read."""
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray

    traces = tmp_path / "traces"
    planted = ArrowPythonObjectArray.from_objects([Malicious(traces)])
    for column in (planted, pa.StructArray.from_arrays([planted], ["inner"])):
        file = Location.at(tmp_path / "videos.parquet")
        pq.write_table(pa.table({"video_id": column}), file.path)

        with pytest.raises(ArtifactError, match=r"videos\.parquet: column 'video_id' has the type"):
            file.read_table()

    assert not traces.exists()
    planted.to_pylist()  # shows that the planted object would run code
    assert traces.exists()


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# Stages


def stage(folder: Location, **depends) -> Artifact:
    return Artifact(folder, "base", depends)


def test_the_fingerprint_is_stable_across_versions(folder):
    depends = {"revision": 1, "settings": {"seed": 0, "loss": "soft_margin", "rate": 2e-3}}
    artifact = Artifact(folder, "base", depends)

    assert artifact.fingerprint == "7808fd7f2d57"  # else all runs are computed again


def test_the_fingerprint_depends_on_the_dependencies_only(folder):
    first = stage(folder, a=1, b={"c": 2, "d": [3, 4]})

    same = [
        stage(folder, b={"d": (3, 4), "c": 2}, a=1),
        Artifact(Location.at("/elsewhere"), "other", first.depends),
    ]
    others = [
        stage(folder, a=1, b={"c": 2, "d": [4, 3]}),
        stage(folder, a="1", b={"c": 2, "d": [3, 4]}),
        stage(folder, a=1, b={"c": 2, "d": [3, 4]}, e=None),
    ]

    assert {s.fingerprint for s in same} == {first.fingerprint}
    assert len({s.fingerprint for s in [first, *others]}) == 4


def test_a_stage_is_done_if_and_only_if_its_marker_exists(folder):
    made = stage(folder, seed=0)
    assert not made.is_done()
    made.begin()
    assert not made.is_done()
    with pytest.raises(ArtifactError, match=r"'base' is not complete: no .*/DONE"):
        made.manifest()

    made.finish({"num_videos": 3})

    assert made.is_done()
    assert made.manifest() == {"stage": "base", "depends": {"seed": 0}, "num_videos": 3}
    assert made.location == folder / "base" / made.fingerprint


FAULTS = {
    "data.bin": (b"other", "data.bin is damaged: its sha256 has changed"),
    "parts/0": (b"a longer one", "parts/0 is damaged: 12 bytes instead of 4"),
    "depends.json": (None, "depends.json is missing"),
    "manifest.json": (b"{}", "manifest.json is damaged"),
    "DONE": (b"x", "DONE is not empty"),
}


def finished(folder: Location) -> Artifact:
    made = stage(folder, seed=0)
    made.begin()
    (made.location / "data.bin").write_bytes(b"bytes")
    (made.location / "parts" / "0").write_bytes(b"part")
    made.finish({"num_videos": 3})
    return made


@pytest.mark.parametrize("file", FAULTS)
def test_a_damaged_file_is_named_and_the_result_is_not_used(folder, file):
    made = finished(folder)
    assert made.is_done()
    content, message = FAULTS[file]
    if content is None:
        remove_file(made.location / file)
    else:
        (made.location / file).write_bytes(content)
    artifacts._INTACT.clear()  # a later process starts with an empty cache

    assert not made.is_done()
    assert f"{made.location}: {message}" in made.why_not_done()
    with pytest.raises(ArtifactError, match="not complete"):
        made.manifest()
    assert not made.restore_marker()
    made.begin()
    assert made.why_not_done() == "interrupted before"
    assert (made.location / "parts" / "0").exists()  # units are checked one by one
    assert not (made.location / "data.bin").exists()


class Refusing(LocalFileSystem):
    """The local file system, but paths that end with `unreadable` cannot be read or listed."""

    unreadable = ""

    def _refuse(self, path: str) -> None:
        if path.endswith(self.unreadable):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def _open(self, path, mode="rb", **options):
        if mode == "rb":
            self._refuse(path)
        return super()._open(path, mode, **options)

    def find(self, path, *arguments, **options):
        self._refuse(path)
        return super().find(path, *arguments, **options)


@pytest.mark.parametrize("file", ["data.bin", "parts/0", "manifest.json", ""])
def test_an_unreadable_artifact_is_an_error_with_path_reason_and_remedy(
    tmp_path, monkeypatch, file
):
    """The stage is neither used nor recomputed, because the storage may become available again."""
    made = finished(Location.at(tmp_path))
    place = str(made.location / file if file else made.location)
    refusing = Refusing()
    refusing.unreadable = place
    other = pafs.PyFileSystem(pafs.FSSpecHandler(refusing))
    monkeypatch.setattr(storage, "_open", lambda root: (other, root))
    context = Context(config=RunConfig(), tracker=untracked())

    for verify in (
        made.is_done,
        made.manifest,
        lambda: context.run_or_reuse(made, pytest.fail, ""),
    ):
        artifacts._INTACT.clear()
        with pytest.raises(AvelError) as raised:
            verify()
        assert str(raised.value) == (
            f"{place}: cannot be read (Input/output error); "
            "check its permissions, the disk, the network or the credentials"
        )


def test_an_unwritable_stage_folder_is_an_error_with_path_reason_and_remedy(tmp_path):
    (tmp_path / "base").touch()
    made = stage(Location.at(tmp_path), seed=0)

    with pytest.raises(AvelError) as raised:
        Context(config=RunConfig(), tracker=untracked()).run_or_reuse(made, pytest.fail, "")
    assert str(raised.value) == (
        f"{tmp_path}/base: cannot be read (Not a directory); "
        "check its permissions, the disk, the network or the credentials"
    )


def test_a_storage_error_keeps_the_path_of_another_file(tmp_path):
    error = OSError(errno.EACCES, "Permission denied", "/elsewhere/part")

    assert "(Permission denied)" not in str(storage_error("written", Location.at("/run"), error))
    assert "'/elsewhere/part'" in str(storage_error("written", Location.at("/run"), error))


def test_a_missing_or_foreign_manifest_counts_as_damage(folder):
    made = finished(folder)
    content = (made.location / "manifest.json").read_bytes()
    other = stage(folder, seed=1)
    (other.location / "manifest.json").write_bytes(content)
    remove_file(made.location / "manifest.json")

    assert "manifest.json is missing" in made.why_not_done()
    assert "manifest.json belongs to another result" in other.why_not_done()


def test_a_missing_marker_is_restored(folder):
    made = finished(folder)
    remove_file(made.location / "DONE")
    assert not made.is_done()

    assert made.restore_marker()

    assert made.is_done()
    assert not made.restore_marker()


def test_an_additional_file_is_not_damage(folder):
    made = finished(folder)
    (made.location / "notes.txt").write_bytes(b"a good run")

    assert made.is_done()


def test_damaged_settings_of_another_result_do_not_hide_what_changed(folder):
    stage(folder, seed=0).begin()
    damaged = stage(folder, seed=1)
    damaged.begin()
    (damaged.location / "depends.json").write_bytes(b"\xff{")

    assert stage(folder, seed=2).why_not_done() == "seed was 0, is 2"


def test_the_marker_is_written_last(folder):
    made = stage(folder, seed=0)
    made.begin()

    with pytest.raises(TypeError):
        made.finish({"cannot be written": object()})

    assert not made.is_done()


def test_why_not_done_reports_a_stage_that_was_never_run(folder):
    assert stage(folder, seed=0).why_not_done() == "not run before"


def test_why_not_done_reports_an_interrupted_stage(folder):
    stage(folder, seed=0).begin()

    assert stage(folder, seed=0).why_not_done() == "interrupted before"


def test_why_not_done_compares_with_the_most_similar_result(folder):
    stage(folder, revision=1, settings={"seed": 0, "epochs": 50}, extract="aaa").begin()
    stage(folder, revision=1, settings={"seed": 1, "epochs": 50}, extract="bbb").begin()
    (folder / "base" / "notes.txt").write_bytes(b"something that a person put there")

    changed = stage(folder, revision=1, settings={"seed": 1, "epochs": 9}, extract="bbb")
    twice = stage(folder, revision=1, settings={"seed": 0, "loss": "x", "epochs": 50})

    assert changed.why_not_done() == "settings.epochs was 50, is 9"
    assert twice.why_not_done() == "extract was aaa, is None; settings.loss was None, is x"


def test_a_tuple_equals_the_list_in_the_manifest(folder):
    stage(folder, seed=0, arms=("base", "A")).begin()

    assert stage(folder, seed=1, arms=("base", "A")).why_not_done() == "seed was 0, is 1"


def test_a_folder_can_be_listed_while_it_is_created(tmp_path):
    for attempt in range(400):
        made = threading.Thread(target=(tmp_path / str(attempt)).mkdir)
        made.start()
        assert Location.at(tmp_path / str(attempt)).children() == []
        made.join()
