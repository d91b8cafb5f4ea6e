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

from distributed_avel.config import ClusterConfig
from distributed_avel.errors import AvelError, ClusterError, FileSystemError
from distributed_avel.redaction import redact
from distributed_avel.storage import Location, storage_errors

_ANSWER_S = 5.0
"""Timeout of a cluster that does not answer; `ray.init` waits for two minutes."""

_STORAGE_S = 10.0
"""Timeout of storage; the clients of object stores retry for more than a minute."""

_PROBE = ".probe"
_PROBE_BYTES = 1 << 16
_MAX_REASON_CHARS = 300

_LONGEST_SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""Longest socket path below Ray's temporary folder; 4194304 is the largest process id of Linux."""


def check_writable(key: str, folder: Location) -> None:
    """Check that a folder can be written: write a file and remove it.

    Args:
        key: The setting that names the folder, for the error message.

    Raises:
        FileSystemError: The folder cannot be written, or the storage does not answer.
    """
    _within(_STORAGE_S, key, folder, lambda: _write_and_remove(folder))


def check_exists(key: str, location: Location) -> None:
    """Check that a file or folder exists.

    Args:
        key: The setting that names it, for the error message.

    Raises:
        FileSystemError: It does not exist, or the storage does not answer.
    """
    _within(_STORAGE_S, key, location, lambda: _refuse_missing(location))


def _within(seconds: float, key: str, location: Location, check: Callable[[], None]) -> None:
    """Run a check of storage in a thread, which is abandoned if it takes too long.

    Raises:
        FileSystemError: The check failed, or took too long.
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
            f"{key}: {location} did not answer within {seconds:g} s; check the network, the "
            "address and the credentials"
        )
    if failures:
        raise FileSystemError(f"{key}: {failures[0]}")


def _write_and_remove(folder: Location) -> None:
    fs, path = _with_short_timeouts(folder.fs), (folder / _PROBE).path
    with storage_errors("written", folder):
        is_new = folder.is_local and not Path(folder.path).exists()
        fs.create_dir(folder.path, recursive=True)
        with fs.open_output_stream(path) as stream:
            stream.write(bytes(_PROBE_BYTES))
    with suppress(OSError):  # the run itself does not need the permission to remove files here
        fs.delete_file(path)
    if is_new:
        with suppress(OSError):  # another process wrote into it meanwhile
            Path(folder.path).rmdir()


def _with_short_timeouts(fs: pafs.FileSystem) -> pafs.FileSystem:
    """Return the file system with short timeouts, because its threads would also delay the exit."""
    if isinstance(fs, pafs.S3FileSystem):
        _, (options,) = fs.__reduce__()
        once = pafs.AwsStandardS3RetryStrategy(max_attempts=1)
        limits = {"connect_timeout": 3, "request_timeout": 3, "retry_strategy": once}
        return pafs.S3FileSystem(**{**options, **limits})
    if isinstance(fs, pafs.GcsFileSystem):
        _, (options,) = fs.__reduce__()
        return pafs.GcsFileSystem(**{**options, "retry_time_limit": timedelta(seconds=5)})
    return fs


def _refuse_missing(location: Location) -> None:
    with storage_errors("read", location):
        kind = _with_short_timeouts(location.fs).get_file_info(location.path).type
    if kind == pafs.FileType.NotFound:
        raise FileSystemError(f"{location} does not exist; correct the path, or mount it")


def check_cluster(config: ClusterConfig) -> None:
    """Refuse, within seconds, a cluster that does not answer, or a machine that cannot start Ray.

    Raises:
        ClusterError: The message names the setting and the remedy.
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
        endpoint = address.removeprefix("ray://") if is_client else _gcs_address(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise ClusterError(f"{key} {address}: {_one_line(error)}; {remedy}") from None
    with grpc.insecure_channel(endpoint, options=[("grpc.enable_http_proxy", 0)]) as channel:
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
            f"{key} {address}: this cluster runs Ray {alive.ray_version}, but this job runs Ray "
            f"{ray.__version__}; use the same version on both sides"
        )


def _gcs_address(address: str) -> str:
    """Return host and port of the cluster's head, as `ray.init` finds them.

    Raises:
        ConnectionError: No cluster runs on this machine.
        ValueError: `address` is not an address.
    """
    host_and_port = canonicalize_bootstrap_address(address)
    if host_and_port is None:
        raise ConnectionError("no cluster runs on this machine")
    return host_and_port


def _token() -> tuple[tuple[str, str], ...]:
    """Return Ray's token as metadata of a gRPC call; empty if there is no token."""
    loader = AuthenticationTokenLoader.instance()
    if not loader.has_token(ignore_auth_mode=True):
        return ()
    return (("authorization", f"Bearer {loader.get_raw_token(ignore_auth_mode=True)}"),)


def _why_not_alive(error: grpc.RpcError, key: str, remedy: str) -> str:
    """Describe the reason and the remedy; if the token is refused, the cluster is running."""
    assert isinstance(error, grpc.Call)
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return (
            "this cluster requires another token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
            f"RAY_AUTH_TOKEN_PATH, as on its head; or leave {key} out to run on this machine alone"
        )
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no Ray cluster answers within {_ANSWER_S:g} s; {remedy}"
    return f"no Ray cluster answers ({_one_line(error.details())}); {remedy}"


def _check_temporary_folder() -> None:
    """Refuse a temporary folder in which Ray cannot create its sockets.

    Raises:
        ClusterError: Its path is too long, or it cannot be written.
    """
    folder = Path(get_default_ray_temp_dir())
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    remedy = f"set {name} to a short, writable path such as /tmp"
    try:
        validate_socket_filepath(str(folder / _LONGEST_SOCKET))
    except OSError:
        longest = len(os.fsencode(folder.parent)) - _excess(folder)
        raise ClusterError(
            f"{name}={folder.parent}: too long for the sockets that Ray creates below it; {remedy} "
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
    """Return the number of bytes by which the longest socket path in a folder exceeds the limit."""
    limit = 104 if sys.platform == "darwin" else 108  # includes the terminating zero
    return len(os.fsencode(folder / _LONGEST_SOCKET)) + 1 - limit


def _one_line(error: object) -> str:
    return redact(" ".join(str(error).split()))[:_MAX_REASON_CHARS]
