"""Modules that the processes of a stage import when they start."""

import subprocess
import sys


def test_workers_and_actors_do_not_import_mlflow():
    """The import takes seconds in each process, and only the driver logs."""
    modules = ("training", "extract", "refine")
    imports = "; ".join(f"import distributed_avel.stages.{name}" for name in modules)

    subprocess.run(
        [sys.executable, "-c", f"{imports}; import sys; assert 'mlflow' not in sys.modules"],
        check=True,
    )
