"""Model folders on the Hugging Face hub, or another one with its interface.

Only the files of a model folder are transferred, and a downloaded folder is read like any other: no
code and no pickle is loaded from it, and it cannot name URLs to fetch.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed_avel.errors import ConfigError, StorageError
from distributed_avel.predict.model_card import EXAMPLE
from distributed_avel.predict.model_folder import (
    CARD,
    FORMAT_FILES,
    METRICS,
    MODEL_CONFIG,
    MODEL_WEIGHTS,
)
from distributed_avel.storage import Location, remove_file

_READ = (MODEL_CONFIG, MODEL_WEIGHTS, METRICS, CARD)
"""Files that are downloaded; scripts and other formats are not."""

_WRITTEN = (
    *_READ,
    EXAMPLE,
    *FORMAT_FILES,
)
"""Files that are uploaded, if they exist."""


def download(repo: str, **options: Any) -> Path:
    """Download a model folder, or find it in the cache; return its path.

    Args:
        repo: Name of the repository, such as ORGANIZATION/NAME.
        options: Further arguments of `huggingface_hub.snapshot_download`, such as `revision`,
            `cache_dir`, `token`, `local_files_only` and `endpoint`.

    Raises:
        ConfigError: huggingface_hub is not installed.
        StorageError: There is no such repository or revision, or the hub does not answer.
    """
    hub = _huggingface_hub()
    with _hub_errors(hub, repo, "read"):
        return Path(hub.snapshot_download(repo, allow_patterns=[*_READ], **options))


def upload(
    folder: Location,
    repo: str,
    *,
    private: bool | None,
    revision: str | None,
    token: str | None,
    endpoint: str | None,
    message: str | None,
) -> str:
    """Upload a model folder, and return the address of the commit.

    Args:
        folder: The model folder.
        repo: Name of the repository, which is created if it does not exist.
        private: Whether a new repository is private; the default of the hub if None.
        revision: Branch; the main branch if None.
        token: Access token; that of `hf auth login` or HF_TOKEN if None.
        endpoint: Address of another hub.
        message: Message of the commit.

    Raises:
        ConfigError: huggingface_hub is not installed.
        StorageError: The hub refuses or does not answer.
    """
    hub = _huggingface_hub()
    with _hub_errors(hub, repo, "written"), tempfile.TemporaryDirectory() as copy:
        copy_files(folder, Location.at(copy))
        api = hub.HfApi(endpoint=endpoint, token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=copy,
            revision=revision,
            delete_patterns=[*FORMAT_FILES],  # of another model; uploaded files are kept
            commit_message=message or "Upload a model of distributed_avel",
        )
        return commit.commit_url


def copy_files(folder: Location, to: Location) -> None:
    """Copy the files of a model folder; the settings come last, because a whole folder has them.

    Files of another model in other formats are removed from `to`.
    """
    for name in FORMAT_FILES:
        if not (folder / name).exists():
            remove_file(to / name)
    for name in (*(name for name in _WRITTEN if name != MODEL_CONFIG), MODEL_CONFIG):
        if (folder / name).exists():
            (to / name).write_bytes((folder / name).read_bytes())


def _huggingface_hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise ConfigError(
            "huggingface_hub is not installed; pip install 'distributed_avel[hub]'"
        ) from None
    return huggingface_hub


@contextmanager
def _hub_errors(hub: Any, repo: str, verb: str) -> Iterator[None]:
    """Turn errors of the hub into one line."""
    http_errors = hub.errors.HfHubHTTPError.__bases__  # of requests or httpx, by its version
    try:
        yield
    except (OSError, hub.errors.HFValidationError, *http_errors) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StorageError(
            f"{repo}: cannot be {verb} on the hub ({reason}); check the name and the network, and "
            "log in with `hf auth login` if it is private"
        ) from None
