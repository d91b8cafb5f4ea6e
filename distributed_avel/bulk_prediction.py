"""Predict many files on a Ray cluster (`avel predict --actors N`).

Each actor has a model and decoding processes of its own, as `avel predict` has in one process, and
gives the same predictions. Predictions are kept per unit of a few files, so that the same command
continues after an interruption. Units of other models and of changed files are never reused.
"""

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from distributed_avel.cluster.actor_pool import UNIT, UNIT_MARKERS, Pool, cut_into_units, run_units
from distributed_avel.cluster.preflight import check_cluster, check_writable
from distributed_avel.cluster.resources import Requirement
from distributed_avel.cluster.session import is_in_ray_working_dir, machines, ray_session, require
from distributed_avel.config import ClusterConfig
from distributed_avel.errors import AvelError, ConfigError, MediaError, StorageError
from distributed_avel.features.decoder_pool import NO_FILE
from distributed_avel.predict.files import (
    Request,
    positive,
    read_request,
    show_result,
    write_results,
)
from distributed_avel.predict.model import TrainedModel
from distributed_avel.predict.prediction import Prediction
from distributed_avel.predict.sources import SourceFile
from distributed_avel.stages.cache_keys import short_hash
from distributed_avel.storage import Location, remove_file
from distributed_avel.version import VERSION

RETRY_S = (1.0, 2.0, 4.0, 8.0)
"""Delays before retries of files that cannot be read, in seconds."""

_UNITS_FOLDER = "units"
_PREDICTIONS, _FAILED, _UNREAD = "predictions", "failed", "unread"
_UNIT_SIZE = 8
_DEFAULT_PROCESSES = 2
_REVISION = 1  # of the predictions; raise it if the same model predicts other values

_PREDICTIONS_SCHEMA = pa.schema(
    [
        ("address", pa.string()),
        ("note", pa.string()),
        ("num_segments", pa.int64()),
        ("probabilities", pa.list_(pa.float32())),
    ]
)
_FAILED_SCHEMA = pa.schema([("address", pa.string()), ("error", pa.string())])


def predict_on_cluster(options: Namespace) -> int:
    """Predict the files of the sources with actors; print and write the same as `predict_files`.

    Args:
        options: See `predict.files.read_request`; `actors` is the number of actors.

    Returns:
        Exit status: 1 if some files failed, else 0.

    Raises:
        AvelError: An option is wrong, the model cannot be loaded, no source can be used, or the
            cluster cannot be used.
    """
    num_actors = positive("--actors", "actors", options.actors)
    if options.out is None:
        why = "--actors" if options.actors is not None else "RAY_ADDRESS is set"
        raise ConfigError(
            f"{why}: files are predicted on Ray, which keeps finished ones in the folder of the "
            "results; add --out DIR"
        )
    request = read_request(options)
    out = request.out
    assert out is not None
    if out.root.startswith(("/", "file:")) and is_in_ray_working_dir(out.path):
        raise ConfigError(
            f"--out: {out} is in Ray's copy of the job's working directory, which is removed after "
            "the job; give an absolute path or a URI outside it"
        )
    cluster = ClusterConfig()
    check_cluster(cluster)
    check_writable("--out", out)
    model = request.load_model()
    with ray_session(cluster):
        processes = request.processes or _DEFAULT_PROCESSES
        num_actors = num_actors or _actors_that_fit(processes, request.use_gpu)
        pool = Pool(
            num_actors=num_actors, cpus_per_actor=processes, gpus_per_actor=int(request.use_gpu)
        )
        require([_requirement(pool)])
        results = predict_units(request, model, pool)
    for result in results:
        show_result(result)
    return write_results(request, results, model)


def predict_units(
    request: Request, model: TrainedModel, pool: Pool | None
) -> list[Prediction | AvelError]:
    """Predict all files that are not finished in the folder of the results.

    Args:
        request: With a folder of results.
        model: The model of the request.
        pool: The actors; if None, predict in the current process, with the same results.

    Returns:
        The prediction of each file of the request, or the reason why there is none. Files that
        could not be read for now are predicted by the next call.
    """
    assert request.out is not None
    model.extractor  # noqa: B018  refuses a model that cannot read files before actors start
    settings = model.settings.model_dump(mode="json")
    key = short_hash([_REVISION, VERSION, settings, request.hop_s, request.use_gpu])
    out = request.out / _UNITS_FOLDER / key
    units = cut_into_units(_to_table(request.files), _UNIT_SIZE)
    names = [unit[UNIT][0].as_py() for unit in units]
    for name in names:
        if (out / _UNREAD / f"{name}.parquet").exists():  # some files were left for this call
            remove_file(out / UNIT_MARKERS / name)
    make_worker = partial(
        PredictionWorker,
        request,
        num_processes=int(pool.cpus_per_actor) if pool else request.processes or _DEFAULT_PROCESSES,
        num_threads=torch.get_num_threads(),
    )
    unread = ""
    try:
        run_units("predict", units, make_worker, out, pool)
    except StorageError as error:
        unread = str(error)
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(partial(_read_unit, out), names))
    result_of = {address: result for results in found for address, result in results.items()}
    return [_result_of(file, result_of, model, unread) for file in request.files]


class PredictionWorker:
    """Predicts the files of units with rows (address, ...); a failure is a row of a table.

    Args:
        request: The model and its options.
        num_processes: Decoding processes.
        num_threads: Threads of PyTorch, those of the driver: the rounding of sums may depend on
            their number.
        retry_s: Delays before retries of files that cannot be read, in seconds.
    """

    def __init__(
        self,
        request: Request,
        *,
        num_processes: int,
        num_threads: int,
        retry_s: Sequence[float] = RETRY_S,
    ) -> None:
        torch.set_num_threads(num_threads)
        self._model = request.load_model()
        self._num_processes, self._retry_s = num_processes, retry_s

    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """Predict one unit; return its predictions and its failures.

        Raises:
            StorageError: No file of the unit can be read after all retries.
        """
        results: dict[str, Prediction | MediaError | StorageError] = {}
        unread = rows["address"].to_pylist()
        waits = iter(self._retry_s)
        while unread:
            found = self._model.predict_all(map(_absolute, unread), self._num_processes)
            results |= zip(unread, (result for _, result in found), strict=True)
            unread = [address for address in unread if _may_be_read_later(results[address])]
            if unread:
                wait_s = next(waits, None)
                if wait_s is None and len(unread) == rows.num_rows:
                    raise StorageError("\n".join(str(results[address]) for address in unread))
                if wait_s is None:
                    break
                time.sleep(wait_s)
        predictions, failures, left = [], [], []
        for address in rows["address"].to_pylist():
            result = results[address]
            if isinstance(result, AvelError):
                reason = str(result).removeprefix(f"{_absolute(address)}: ")
                row = {"address": address, "error": reason}
                (left if address in unread else failures).append(row)
            else:
                predictions.append(
                    {
                        "address": address,
                        "note": result.note,
                        "num_segments": result.num_segments,
                        "probabilities": result.probabilities.reshape(-1),
                    }
                )
        return {
            _PREDICTIONS: pa.Table.from_pylist(predictions, schema=_PREDICTIONS_SCHEMA),
            _FAILED: pa.Table.from_pylist(failures, schema=_FAILED_SCHEMA),
            _UNREAD: pa.Table.from_pylist(left, schema=_FAILED_SCHEMA),
        }


def _may_be_read_later(result: Prediction | AvelError) -> bool:
    return isinstance(result, StorageError) and not str(result).endswith(NO_FILE)


def _absolute(address: str) -> str:
    """The path of a file in other processes, which may have another working directory."""
    return address if "://" in address else str(Location.at(address))


def _to_table(files: Sequence[SourceFile]) -> pa.Table:
    """Rows of the files, with size and modification time, so that changed files are new rows."""

    def row(file: SourceFile) -> dict[str, Any]:
        try:
            location = Location.at(file.address)
            info = location.fs.get_file_info(location.path)
        except (AvelError, OSError):  # the actor says why it cannot be read
            return {"address": file.address, "size": None, "mtime_ns": None}
        return {"address": file.address, "size": info.size, "mtime_ns": info.mtime_ns}

    schema = pa.schema([("address", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64())])
    with ThreadPoolExecutor() as threads:
        return pa.Table.from_pylist(list(threads.map(row, files)), schema=schema)


def _read_unit(out: Location, name: str) -> dict[str, Mapping[str, Any]]:
    """Return the rows of a finished unit by address; empty if it is not finished."""
    rows: dict[str, Mapping[str, Any]] = {}
    for folder in (_PREDICTIONS, _FAILED, _UNREAD):
        try:
            table = (out / folder / f"{name}.parquet").read_table()
        except FileNotFoundError:
            continue
        rows |= {row["address"]: {**row, "is_left": folder == _UNREAD} for row in table.to_pylist()}
    return rows


def _result_of(
    file: SourceFile,
    row_of: Mapping[str, Mapping[str, Any]],
    model: TrainedModel,
    unread: str,
) -> Prediction | AvelError:
    row = row_of.get(file.address)
    if row is None:
        absolute = _absolute(file.address)
        lines = [line for line in unread.splitlines() if line.startswith(f"{absolute}: ")]
        reason = lines[0].removeprefix(f"{absolute}: ") if lines else "not predicted yet"
        return StorageError(f"{file.address}: {reason}; the same command tries it again")
    if row["is_left"]:
        return StorageError(f"{file.address}: {row['error']}; the same command tries it again")
    if "error" in row:
        return MediaError(f"{file.address}: {row['error']}")
    prob_M = np.array(row["probabilities"], dtype=np.float32)
    prob_MK = prob_M.reshape(row["num_segments"], -1)
    return model.prediction(file.address, prob_MK, row["note"])


def _requirement(pool: Pool) -> Requirement:
    return Requirement(
        stage="predict",
        count=pool.num_actors,
        cpus=pool.cpus_per_actor,
        gpus=pool.gpus_per_actor,
        reserved_cpus=1,
        why=f"--actors {pool.num_actors} x --processes {pool.cpus_per_actor:g} + 1 for Ray Data",
    )


def _actors_that_fit(processes: int, use_gpu: bool) -> int:
    """Return as many actors as the cluster has room for; one if it grows with the work."""
    nodes = machines() or []
    num_cpus = sum(node["CPU"] for node in nodes)
    fitting = [
        int(min(node["CPU"] // processes, node["GPU"] if use_gpu else node["CPU"]))
        for node in nodes
    ]
    return max(1, min(sum(fitting), int((num_cpus - 1) // processes)))
