"""Checks of storage and of the cluster before Ray starts.

Each check takes seconds at most. Without them, the same errors would appear minutes later, or
after hours of work.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Thread

import grpc
import ray
from pyarrow import fs as pafs
from ray._common.utils import get_default_ray_temp_dir
from ray._private.services import canonicalize_bootstrap_address
from ray._private.utils import validate_socket_filepath
from ray._raylet import AuthenticationTokenLoader  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated import gcs_service_pb2_grpc
from ray.core.generated.gcs_service_pb2 import (
    CheckAliveRequest,  # pyright: ignore[reportAttributeAccessIssue]
)

from distributed_avel.artifacts import Location, storage_errors
from distributed_avel.config import ClusterConfig
from distributed_avel.errors import AvelError, ClusterError, FileSystemError
from distributed_avel.redaction import redact

_ANSWER_S = 5.0
"""A cluster that does not answer for so long is given up; `ray.init` waits for two minutes."""

_STORAGE_S = 10.0
"""The same for storage: the clients of object stores try again and again, for over a minute."""

_PROBE = ".probe"
_PROBE_BYTES = 1 << 16
_MAX_REASON_CHARS = 300

_LONGEST_SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""What Ray puts below its folder of temporary files; 4194304 is the largest process id of Linux."""


def check_writable(key: str, folder: Location) -> None:
    """Write a file into a folder and remove it again.

    Args:
        key: The setting that names the folder, for the message.

    Raises:
        FileSystemError: The folder cannot be written, or the storage does not answer.
    """
    _within(_STORAGE_S, key, folder, lambda: _write_and_remove(folder))


def check_exists(key: str, location: Location) -> None:
    """Look for a file or folder.

    Args:
        key: The setting that names it, for the message.

    Raises:
        FileSystemError: It does not exist, or the storage does not answer.
    """
    _within(_STORAGE_S, key, location, lambda: _refuse_missing(location))


def _within(seconds: float, key: str, place: Location, check: Callable[[], None]) -> None:
    """Run a check of storage in a thread that is left behind if it takes too long.

    Raises:
        FileSystemError: It failed, or took too long.
    """
    failures: list[Exception] = []

    def run() -> None:
        try:
            check()
        except (AvelError, OSError, ValueError, NotImplementedError) as error:
            failures.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise FileSystemError(
            f"{key}: {place} did not answer within {seconds:g} s; see to the network, the address "
            "and the credentials"
        )
    if failures:
        raise FileSystemError(f"{key}: {failures[0]}")


def _write_and_remove(folder: Location) -> None:
    fs, path = _impatient(folder.fs), (folder / _PROBE).path
    with storage_errors("written", folder):
        is_new = folder.is_local and not Path(folder.path).exists()
        fs.create_dir(folder.path, recursive=True)
        with fs.open_output_stream(path) as stream:
            stream.write(bytes(_PROBE_BYTES))
    with suppress(OSError):  # nothing else here is removed, so one may not be allowed to
        fs.delete_file(path)
    if is_new:
        with suppress(OSError):  # somebody else put something there
            Path(folder.path).rmdir()


def _impatient(fs: pafs.FileSystem) -> pafs.FileSystem:
    """The same file system with clients that give up soon; their threads hold up an exit too."""
    if isinstance(fs, pafs.S3FileSystem):
        _, (options,) = fs.__reduce__()
        once = pafs.AwsStandardS3RetryStrategy(max_attempts=1)
        limits = {"connect_timeout": 3, "request_timeout": 3, "retry_strategy": once}
        return pafs.S3FileSystem(**{**options, **limits})
    if isinstance(fs, pafs.GcsFileSystem):
        _, (options,) = fs.__reduce__()
        return pafs.GcsFileSystem(**{**options, "retry_time_limit": timedelta(seconds=5)})
    return fs


def _refuse_missing(place: Location) -> None:
    with storage_errors("read", place):
        kind = _impatient(place.fs).get_file_info(place.path).type
    if kind == pafs.FileType.NotFound:
        raise FileSystemError(f"there is no {place}; correct it, or mount what should be there")


def check_cluster(config: ClusterConfig) -> None:
    """Refuse, within seconds, a cluster that is not there, or a machine that cannot start one.

    Raises:
        ClusterError: It names the setting and the remedy.
    """
    if ray.is_initialized():
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        _check_temporary_folder()
        return
    key = "cluster.address" if config.address else "RAY_ADDRESS"
    remedy = f"start it, correct {key}, or leave it out to run on this machine alone"
    is_client = address.startswith("ray://")
    try:
        where = address.removeprefix("ray://") if is_client else _gcs_address(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise ClusterError(f"{key} {address}: {_one_line(error)}; {remedy}") from None
    with grpc.insecure_channel(where, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            if is_client:
                grpc.channel_ready_future(channel).result(timeout=_ANSWER_S)
                return
            nodes = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            alive = nodes.CheckAlive(CheckAliveRequest(), timeout=_ANSWER_S, metadata=_token())
        except grpc.FutureTimeoutError:
            raise ClusterError(f"{key} {address}: no Ray client server answers; {remedy}") from None
        except grpc.RpcError as error:
            raise ClusterError(f"{key} {address}: {_why_not_alive(error, key, remedy)}") from None
    if alive.ray_version != ray.__version__:
        raise ClusterError(
            f"{key} {address}: this cluster runs Ray {alive.ray_version}, and this job Ray "
            f"{ray.__version__}; use the same version on both sides"
        )


def _gcs_address(address: str) -> str:
    """Host and port of the cluster's head as `ray.init` finds them.

    Raises:
        ConnectionError: No cluster runs on this machine.
        ValueError: This is no address.
    """
    found = canonicalize_bootstrap_address(address)
    if found is None:
        raise ConnectionError("no cluster runs on this machine")
    return found


def _token() -> tuple[tuple[str, str], ...]:
    """Ray's token for the metadata of a call, if there is one."""
    loader = AuthenticationTokenLoader.instance()
    if not loader.has_token(ignore_auth_mode=True):
        return ()
    return (("authorization", f"Bearer {loader.get_raw_token(ignore_auth_mode=True)}"),)


def _why_not_alive(error: grpc.RpcError, key: str, remedy: str) -> str:
    """Describe the reason and its remedy; where a token is refused, the cluster is running."""
    assert isinstance(error, grpc.Call)
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return (
            "this cluster wants another token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
            f"RAY_AUTH_TOKEN_PATH, as on its head; or leave {key} out to run on this machine alone"
        )
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no Ray cluster answers within {_ANSWER_S:g} s; {remedy}"
    return f"no Ray cluster answers ({_one_line(error.details())}); {remedy}"


def _check_temporary_folder() -> None:
    """Refuse a folder of temporary files in which Ray cannot make its sockets.

    Raises:
        ClusterError: Its name is too long, or it cannot be written.
    """
    folder = Path(get_default_ray_temp_dir())
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    remedy = f"set {name} to a short, writable path such as /tmp"
    try:
        validate_socket_filepath(str(folder / _LONGEST_SOCKET))
    except OSError:
        longest = len(os.fsencode(folder.parent)) - _excess(folder)
        raise ClusterError(
            f"{name}={folder.parent}: too long for the sockets that Ray makes below it; {remedy} "
            f"(at most {longest} bytes)"
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        raise ClusterError(
            f"Ray cannot write to {folder} ({_one_line(error)}); {remedy}, or free some space"
        ) from None


def _excess(folder: Path) -> int:
    """Bytes by which the longest socket in a folder is too long."""
    limit = 104 if sys.platform == "darwin" else 108  # with the zero at the end
    return len(os.fsencode(folder / _LONGEST_SOCKET)) + 1 - limit


def _one_line(error: object) -> str:
    return redact(" ".join(str(error).split()))[:_MAX_REASON_CHARS]
