"""Errors that a user can fix.

The message names the file or key and the remedy. Commands print it without a traceback and exit
with status 2. All other exceptions are bugs and keep their traceback.
"""


class AvelError(Exception):
    """Base class of the errors that a user can fix."""


class ConfigError(AvelError, ValueError):
    """Invalid configuration."""


class DatasetError(AvelError, ValueError):
    """Invalid or insufficient annotations or splits."""


class MediaError(AvelError):
    """A video from which no features can be extracted; other videos are not affected."""


class StorageError(AvelError):
    """A file exists, or existed a moment ago, but cannot be read now; a retry may succeed."""


class ArtifactError(AvelError):
    """Missing, incomplete or invalid input or output of a stage."""


class ResourceError(AvelError):
    """A resource request that the cluster can never satisfy."""


class WeightsError(AvelError, ValueError):
    """Weights that do not fit their network."""


class FileSystemError(AvelError, OSError):
    """A file system is unreachable or full, or refuses access."""


class TrackingError(AvelError):
    """The MLflow store cannot be used."""


class ClusterError(AvelError):
    """Ray cannot be started, or its cluster cannot be reached."""
