"""Download, verify and read the weights of published networks.

A public file must have the hash that its publisher put into its name. The sha256 of every file is
recorded in the manifest. Random weights are used only on request. All of this happens before the
first video is read. torch is imported only to read a file, so decoding processes do not need it.
"""

import hashlib
import io
import os
import shutil
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from distributed_avel.errors import ArtifactError, WeightsError
from distributed_avel.storage import Location

if TYPE_CHECKING:
    from torch import Tensor

RANDOM = "random"
"""Source of seeded random weights, for tests and benchmarks; the features are meaningless."""

_TORCH_FILE = (b"PK\x03\x04", b"\x80")
"""First bytes of a file of `torch.save`: a ZIP archive, or a pickle of an old version."""

RANDOM_SEED = 0

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class PublicWeights:
    """A published file whose name ends with the first digits of its sha256, as in torch.hub."""

    url: str

    @property
    def file_name(self) -> str:
        """Last component of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def sha256_prefix(self) -> str:
        """Hexadecimal digits between the last `-` and the extension."""
        return self.file_name.rpartition("-")[2].partition(".")[0]


PUBLIC = {
    "vgg19_caffe": PublicWeights("https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth"),
    "vgg19_torchvision": PublicWeights("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"),
    "resnet152": PublicWeights("https://download.pytorch.org/models/resnet152-394f9c45.pth"),
    "r2plus1d_18": PublicWeights("https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth"),
    "vggish": PublicWeights(
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
    ),
}
"""Published weights by name; the name can be used as a source instead of a path."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A local file of weights and its sha256."""

    path: Path
    sha256: str


def find_weights(network: str, source: str, cache_dir: str | None = None) -> WeightsFile:
    """Find the file of weights of a network; download it if necessary, and verify its hash.

    Args:
        network: Name of the network, for messages.
        source: A name in `PUBLIC`, a local path, or a URI: http(s), or any file system that
            pyarrow or fsspec supports. A suffix `#sha256=<digits>` pins the hash.
        cache_dir: Folder for downloaded files; None for the user's cache folder.

    Raises:
        WeightsError: The file is missing, cannot be downloaded, or has another hash.
    """
    cache = _cache_folder(cache_dir)
    source, _, pinned = source.partition("#sha256=")
    if public := PUBLIC.get(source):
        path = cache / public.file_name
        if not path.exists():
            _download(network, public.url, path, public.sha256_prefix)
        pinned = pinned or public.sha256_prefix
    elif source.startswith(("http://", "https://")):
        path = cache / f"{_short_hash(source)}-{source.rpartition('/')[2]}"
        if not path.exists():
            _download(network, source, path, pinned)
    else:
        path = _local_copy(network, source, cache)
    sha256 = _sha256(path)
    if not sha256.startswith(pinned.lower()):
        raise WeightsError(
            f"extract.weights.{network}: {path} is not the expected file: its sha256 "
            f"is {sha256}, not {pinned}...; replace it" + _download_hint(source, path)
        )
    return WeightsFile(path, sha256)


def read_weights(network: str, path: Path) -> dict[str, "Tensor"]:
    """Read parameters by name from a safetensors file or from a torch file without code.

    If a checkpoint contains a `state_dict`, that is returned. The prefix `module.` of a
    DataParallel model is removed.

    Args:
        network: Name of the network, for messages.
        path: The file.

    Raises:
        WeightsError: The file does not contain parameters by name.
    """
    return read_state_dict(path, f"extract.weights.{network}: {path}")


def read_state_dict(source: Path | bytes, name: str) -> dict[str, "Tensor"]:
    """Read parameters by name from safetensors or a torch file without code, as `read_weights`.

    Args:
        source: A file, of torch unless it ends with .safetensors, or the content of one.
        name: Setting and file, for messages.

    Raises:
        WeightsError: The source does not contain parameters by name.
    """
    import pickle

    import safetensors
    import safetensors.torch
    import torch

    try:
        if isinstance(source, Path) and source.suffix == ".safetensors":
            content = safetensors.torch.load_file(source)
        elif isinstance(source, bytes) and not source.startswith(_TORCH_FILE):
            content = safetensors.torch.load(source)
        else:
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, safetensors.SafetensorError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{name} is not a file of weights ({reason[0]}); expected a state_dict, saved by "
            "torch.save or as safetensors"
        ) from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        raise WeightsError(
            f"{name} contains a {type(content).__name__}, expected the parameters of a network by "
            "name (a state_dict)"
        )
    if content and all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _cache_folder(cache_dir: str | None) -> Path:
    """Return the configured cache folder, or the default of the XDG base directories."""
    if cache_dir:
        return Path(cache_dir).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "distributed_avel" / "weights"


def _local_copy(network: str, source: str, cache: Path) -> Path:
    """Return a local path unchanged; copy a remote file to the cache unless it is unchanged."""
    key = f"extract.weights.{network}"
    try:
        remote = Location.at(source)
        info = remote.fs.get_file_info(remote.path)
    except (pa.ArrowException, OSError, ArtifactError) as error:
        raise WeightsError(f"{key}: {source} cannot be read: {error}") from None
    if not info.is_file:
        problem = "is a folder" if info.type.name == "Directory" else "there is no such file"
        known = ", ".join([RANDOM, *PUBLIC])
        raise WeightsError(f"{key}: {source}: {problem}; give a file, a URI or one of: {known}")
    if remote.is_local:
        return Path(remote.path)
    path = cache / f"{_short_hash(f'{source} {info.size} {info.mtime_ns}')}-{remote.name}"
    if not path.exists():
        try:
            with remote.fs.open_input_stream(remote.path) as stream:
                _write_whole(stream, path)
        except OSError as error:
            raise WeightsError(f"{key}: {source} cannot be copied to {path}: {error}") from None
    return path


def _download(network: str, url: str, path: Path, pinned: str) -> None:
    """Download a file into the cache; a file with another hash is discarded."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            _write_whole(response, path, pinned)
    except (OSError, urllib.error.URLError, WeightsError) as error:
        raise WeightsError(
            f"extract.weights.{network}: {url} could not be downloaded ({error})"
            + _download_hint(url, path)
            + f"\nor set another file: extract.weights.{network}: <path or URI>"
        ) from None


def _write_whole(stream: object, path: Path, pinned: str = "") -> None:
    """Write a stream to a file atomically, after verifying its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)  # type: ignore[arg-type]
        sha256 = _sha256(temporary)
        if not sha256.startswith(pinned.lower()):
            raise WeightsError(f"the downloaded file has sha256 {sha256}, not {pinned}...")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _download_hint(source: str, path: Path) -> str:
    url = PUBLIC[source].url if source in PUBLIC else source
    if not url.startswith(("http://", "https://")):
        return ""
    return f"\nto download it by hand:\n    curl -fL --create-dirs -o '{path}' '{url}'"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
