"""MLflow stores for tests: making one takes seconds, copying one that has no runs takes none."""

import tempfile
from functools import cache
from pathlib import Path

from mlflow import MlflowClient


def store_in(folder: Path) -> str:
    """The URI of a folder's MLflow store, which is empty if the folder had none."""
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
