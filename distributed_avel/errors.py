"""Errors that a user can fix.

Each message names the file or key and says what would be right. Jobs print it
without a traceback and exit with status 2; anything else is a bug and keeps its
traceback.
"""


class AvelError(Exception):
    """Base of all errors that a user can fix."""


class ConfigError(AvelError, ValueError):
    """A configuration that cannot be used."""


class DatasetError(AvelError, ValueError):
    """Annotations or splits that cannot be used as they are."""


class MediaError(AvelError):
    """One video that cannot be turned into features; the others are not affected."""


class StorageError(AvelError):
    """Files that are there, or were a moment ago, and cannot be read now."""


class ArtifactError(AvelError):
    """A stage's input or output that is missing, incomplete or of another kind."""


class ResourceError(AvelError):
    """A request that the cluster can never satisfy."""


class WeightsError(AvelError, ValueError):
    """Published weights that do not fit the network they are meant for."""


class FileSystemError(AvelError, OSError):
    """A file system that cannot be reached, is full, or refuses access."""


class TrackingError(AvelError):
    """An MLflow store that cannot be used."""


class ClusterError(AvelError):
    """A Ray cluster that cannot be started or reached."""
