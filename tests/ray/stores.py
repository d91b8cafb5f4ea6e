"""MLflow stores for tests; an empty store is copied because creating one takes seconds."""

import tempfile
from functools import cache
from pathlib import Path

from mlflow import MlflowClient


def store_in(folder: Path) -> str:
    """Return the URI of a folder's MLflow store, and create an empty one if there is none."""
    database = folder / "mlflow.db"
    if not database.exists():
        database.write_bytes(_empty_store())
    return f"sqlite:///{database}"


@cache
def _empty_store() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{database}").search_experiments()
        return database.read_bytes()
