"""Sources of weights: only the right file is used, and errors name the remedy."""

import hashlib
import http.server
import threading
from pathlib import Path

import fsspec
import pytest
import safetensors.torch
import torch

from distributed_avel.errors import WeightsError
from distributed_avel.features.weights import PUBLIC, PublicWeights, find_weights, read_weights
from tests.features.seeded_weights import save

STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3)}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return save(STATE, tmp_path / "stored.pth")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def server(tmp_path: Path):
    """A local web server that serves one folder and records the requests."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, format, *args):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder, asked
        httpd.shutdown()
        thread.join()


def test_a_local_file_is_used_in_place_and_hashed(stored):
    found = find_weights("net", str(stored))

    assert found.path == stored
    assert found.sha256 == digest(stored)


def test_a_remote_file_is_cached_until_it_changes(stored, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/net.pth", stored.read_bytes())
    cache = str(tmp_path / "cache")

    first = find_weights("net", "memory://bucket/net.pth", cache)
    memory.pipe("/bucket/net.pth", stored.read_bytes() + b"changed")
    second = find_weights("net", "memory://bucket/net.pth", cache)

    assert first.path.parent == tmp_path / "cache"
    assert first.sha256 == digest(stored)
    assert second.sha256 != first.sha256


@pytest.mark.parametrize("source", ["nowhere/net.pth", "memory://bucket/nowhere.pth"])
def test_a_missing_weights_file_is_named(source, tmp_path):
    with pytest.raises(WeightsError, match=r"extract.weights.net: .*: there is no such file"):
        find_weights("net", source, str(tmp_path))


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="is a folder"):
        find_weights("net", str(tmp_path))


def test_an_unknown_file_system_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"nosuch://bucket/net\.pth cannot be read"):
        find_weights("net", "nosuch://bucket/net.pth", str(tmp_path))


def test_a_file_with_another_hash_than_the_pinned_one_is_refused(stored):
    assert find_weights("net", f"{stored}#sha256={digest(stored)[:12]}").path == stored
    with pytest.raises(WeightsError, match=r"its sha256 is [0-9a-f]{64}, not 0123"):
        find_weights("net", f"{stored}#sha256=0123")


def test_public_weights_are_downloaded_once_and_then_work_offline(
    server, stored, tmp_path, monkeypatch
):
    url, folder, asked = server
    name = f"net-{digest(stored)[:8]}.pth"
    (folder / name).write_bytes(stored.read_bytes())
    monkeypatch.setitem(PUBLIC, "net", PublicWeights(f"{url}/{name}"))
    cache = tmp_path / "cache"

    first = find_weights("net", "net", str(cache))
    (folder / name).unlink()
    second = find_weights("net", "net", str(cache))

    assert first == second
    assert len(asked) == 1
    assert [file.name for file in cache.iterdir()] == [name]


def test_a_download_with_a_wrong_hash_is_deleted(server, stored, tmp_path, monkeypatch):
    url, folder, _ = server
    (folder / "net-00000000.pth").write_bytes(stored.read_bytes())
    monkeypatch.setitem(PUBLIC, "net", PublicWeights(f"{url}/net-00000000.pth"))
    cache = tmp_path / "cache"

    with pytest.raises(WeightsError, match=r"the downloaded file has sha256 \w+, not 00000000"):
        find_weights("net", "net", str(cache))

    assert list(cache.iterdir()) == []


def test_a_failed_download_names_a_command_that_fetches_the_file(tmp_path, monkeypatch):
    closed = "http://127.0.0.1:9/net-01234567.pth"
    monkeypatch.setitem(PUBLIC, "net", PublicWeights(closed))

    with pytest.raises(WeightsError) as caught:
        find_weights("net", "net", str(tmp_path))

    message = str(caught.value)
    assert f"curl -fL --create-dirs -o '{tmp_path}/net-01234567.pth' '{closed}'" in message
    assert "extract.weights.net: <path or URI>" in message


def test_a_damaged_file_in_the_cache_is_detected_offline(tmp_path):
    (tmp_path / "vggish-10086976.pth").write_bytes(b"half of a download")

    with pytest.raises(WeightsError, match=r"not 10086976\.\.\.; replace it") as caught:
        find_weights("vggish", "vggish", str(tmp_path))

    assert "curl -fL" in str(caught.value)


def test_a_url_given_by_the_user_is_downloaded_and_can_be_pinned(server, stored, tmp_path):
    url, folder, _ = server
    (folder / "mine.pth").write_bytes(stored.read_bytes())

    found = find_weights("net", f"{url}/mine.pth#sha256={digest(stored)}", str(tmp_path))

    assert found.sha256 == digest(stored)
    with pytest.raises(WeightsError, match="not the expected file"):
        find_weights("net", f"{url}/mine.pth#sha256=ffff", str(tmp_path))


def test_the_cache_follows_the_xdg_base_directories(server, stored, tmp_path, monkeypatch):
    url, folder, _ = server
    (folder / "mine.pth").write_bytes(stored.read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))

    found = find_weights("net", f"{url}/mine.pth")

    assert found.path.parent == tmp_path / "xdg" / "distributed_avel" / "weights"


def test_each_public_file_has_a_hash_prefix_of_eight_digits():
    assert {name: len(public.sha256_prefix) for name, public in PUBLIC.items()} == dict.fromkeys(
        PUBLIC, 8
    )
    assert PUBLIC["vgg19_torchvision"].sha256_prefix == "dcbb9e9d"
    assert all(int(public.sha256_prefix, 16) for public in PUBLIC.values())


@pytest.mark.parametrize("wrapped", [False, True])
def test_both_formats_and_nested_checkpoints_are_read(tmp_path, wrapped):
    plain = save(STATE, tmp_path / "plain.pth")
    safe = tmp_path / "safe.safetensors"
    safetensors.torch.save_file(STATE, safe)
    parallel = {f"module.{name}": value for name, value in STATE.items()}
    checkpoint = save({"state_dict": parallel, "epoch": 3}, tmp_path / "checkpoint.pth")

    for path in [checkpoint] if wrapped else [plain, safe]:
        read = read_weights("net", path)
        assert read.keys() == STATE.keys()
        assert torch.equal(read["layer.weight"], STATE["layer.weight"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.pth", b"<html>404: not found</html>"),
        ("empty.pth", b""),
        ("text.safetensors", b"<html>404: not found</html>"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(WeightsError, match="is not a file of weights"):
        read_weights("net", path)


class Opens:
    """A malicious checkpoint: loading it with pickle calls a function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_file_with_code_is_refused_without_running_it(tmp_path):
    bait = tmp_path / "ran"
    torch.save({"layer": Opens(bait)}, tmp_path / "evil.pth")

    with pytest.raises(WeightsError, match="is not a file of weights"):
        read_weights("net", tmp_path / "evil.pth")

    assert not bait.exists()


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    torch.save({"layer": [1, 2]}, tmp_path / "list.pth")

    with pytest.raises(WeightsError, match="expected the parameters of a network by name"):
        read_weights("net", tmp_path / "list.pth")
