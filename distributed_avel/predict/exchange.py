"""A trained model in the formats of ONNX and torch.export, for programs without this package.

The functions `encode`, `score` and `probabilities` are exported, in a file each, and compared with
the model on random features. The number of videos is free; so is the number of segments, unless the
model processes them in a loop, which is then unrolled for T segments.

Shape suffixes: B = videos, T = segments, R = regions, D = feature or code size, K = columns of
labels (see `tasks.Task`).
"""

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim
from torch.library import custom_op

from distributed_avel.errors import ArtifactError, ConfigError
from distributed_avel.models import BaseModel
from distributed_avel.predict.model_folder import FUNCTIONS, Format
from distributed_avel.tasks import Task

FORMATS: tuple[Format, ...] = ("onnx", "torch-export")

TOLERANCE = 1e-4
"""Largest accepted difference between an exported function and the model.

It is absolute or, for outputs with values above 1, relative to the largest of them: the rounding of
float32 grows with the values."""

OPSET = 18
"""Version of the ONNX operators; the one that the exporter translates to."""

_INPUTS = {"encode": ("audio", "visual"), "score": ("codes",), "probabilities": ("codes",)}
_OUTPUT = {"encode": "codes", "score": "scores", "probabilities": "probabilities"}

Call = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported function.

    Args:
        name: One of `FUNCTIONS`.
        content: Content of its file.
        inputs, output: Names of its tensors.
        any_length: Whether it accepts any number of segments; else only T.
        difference: Largest difference from the model on random features, see `TOLERANCE`.
    """

    name: str
    content: bytes
    inputs: tuple[str, ...]
    output: str
    any_length: bool
    difference: float


def exported(
    model: BaseModel,
    task: Task,
    format: Format,
    audio_shape: Sequence[int],
    visual_shape: Sequence[int],
) -> Iterator[Exported]:
    """Export the functions of a model, and compare them with it.

    Args:
        model: In eval mode, on the CPU, in float32.
        task: Task of the model.
        format: One of `FORMATS`.
        audio_shape: (T, D).
        visual_shape: (T, R, D).

    Raises:
        ConfigError: The packages of the format are not installed.
        ArtifactError: The model cannot be exported, or the result differs from it.
    """
    num_segments = audio_shape[0]

    def features(num_videos: int, length: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(num_videos * 1000 + length)
        audio = torch.randn(num_videos, length, *audio_shape[1:], generator=generator)
        visual = torch.randn(num_videos, length, *visual_shape[1:], generator=generator)
        return audio.relu(), visual.relu()

    for name in FUNCTIONS:

        def inputs(num_videos: int, length: int, name: str = name) -> tuple[Tensor, ...]:
            audio_visual = features(num_videos, length)
            return audio_visual if name == "encode" else (model.encode(*audio_visual),)

        with torch.no_grad(), _quiet():
            yield _exported(_Function(model, task, name), format, inputs, num_segments)


def _exported(
    function: "_Function",
    format: Format,
    inputs: Callable[[int, int], tuple[Tensor, ...]],
    num_segments: int,
) -> Exported:
    """Export a function for any number of segments or, if that fails, for T segments."""
    name, example = function.name, inputs(2, num_segments)
    lengths = [num_segments, 1, 2 * num_segments + 1]
    problem: Exception | str = ""
    for any_length in (True, False):
        differences = []
        try:
            content, call = _EXPORT[format](function, example, any_length)
            for length in lengths if any_length else [num_segments]:
                for num_videos in (1, 3):
                    tensors = inputs(num_videos, length)
                    differences.append(_difference(call, function(*tensors), tensors))
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  torch and ONNX raise many undocumented classes
            problem = error
            continue
        difference = max(differences)
        if difference <= TOLERANCE:
            return Exported(name, content, _INPUTS[name], _OUTPUT[name], any_length, difference)
        problem = f"it differs from the model by {difference:.2g}, more than {TOLERANCE:g}"
    reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
    raise ArtifactError(
        f"--format {format}: `{name}` of this model cannot be exported: {reason}"
    ) from (problem if isinstance(problem, Exception) else None)


def _difference(call: Call, ours: Tensor, inputs: Sequence[Tensor]) -> float:
    """Largest difference between the output of an exported function and ours."""
    theirs = call([tensor.numpy() for tensor in inputs])
    if theirs.shape != tuple(ours.shape) or not np.isfinite(theirs).all():
        return np.inf
    return float(np.abs(theirs - ours.numpy()).max()) / max(1.0, float(ours.abs().max()))


class _Function(nn.Module):
    """A function of a model as a module with `forward`."""

    def __init__(self, model: BaseModel, task: Task, name: str) -> None:
        super().__init__()
        self.model, self.task, self.name = model, task, name

    def forward(self, *tensors: Tensor) -> Tensor:
        if self.name == "probabilities":
            return self.task.segment_prob(self.model, *tensors)
        return getattr(self.model, self.name)(*tensors)


def _free_axes(name: str, *, any_length: bool) -> tuple[tuple[dict[int, Any], ...]]:
    """Axes of the inputs whose size is free: videos and, if the model allows, segments."""
    axes = {0: Dim("videos"), **({1: Dim("segments")} if any_length else {})}
    return (tuple(axes for _ in _INPUTS[name]),)


# torch.export ------------------------------------------------------------------------------------


def _torch_export(
    function: _Function, example: tuple[Tensor, ...], any_length: bool
) -> tuple[bytes, Call]:
    axes = _free_axes(function.name, any_length=any_length)
    program = torch.export.export(function, example, dynamic_shapes=axes, strict=False)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    content = buffer.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()

    def call(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return loaded(*map(torch.from_numpy, arrays)).numpy()

    return content, call


# ONNX --------------------------------------------------------------------------------------------


def _onnx(function: _Function, example: tuple[Tensor, ...], any_length: bool) -> tuple[bytes, Call]:
    name = function.name
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise ConfigError(
            f"--format onnx: {error.name} is not installed; pip install 'distributed_avel[onnx]'"
        ) from None
    program = torch.onnx.export(
        _with_exportable_lstms(function),
        example,
        dynamo=True,
        input_names=_INPUTS[name],
        output_names=[_OUTPUT[name]],
        dynamic_shapes=_free_axes(name, any_length=any_length),
        custom_translation_table={torch.ops.distributed_avel.lstm.default: _onnx_lstm},
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    content = program.model_proto.SerializeToString()
    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def call(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        (output,) = session.run(None, dict(zip(_INPUTS[name], arrays, strict=True)))
        return np.asarray(output)

    return content, call


def _with_exportable_lstms(function: _Function) -> _Function:
    """Return a copy whose LSTMs keep the number of segments free.

    Tracing `nn.LSTM` unrolls it over the segments of the example.
    """
    function = copy.deepcopy(function)
    for parent in [*function.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, nn.LSTM) and _is_plain(child):
                setattr(parent, name, _ExportableLstm(child))
    return function


def _is_plain(lstm: nn.LSTM) -> bool:
    return lstm.num_layers == 1 and lstm.batch_first and lstm.bias and not lstm.proj_size


class _ExportableLstm(nn.Module):
    """An LSTM of one layer, as a single operator."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.hidden_size, self.bidirectional = lstm.hidden_size, lstm.bidirectional
        weights = [parameter for group in lstm.all_weights for parameter in group]
        self.weights = nn.ParameterList(weights)

    def forward(
        self, x_BTD: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if state is None:
            zeros = x_BTD.new_zeros(1 + self.bidirectional, x_BTD.shape[0], self.hidden_size)
            state = zeros, zeros
        states, last, cell = _lstm(x_BTD, *state, [*self.weights])
        return states, (last, cell)


@custom_op("distributed_avel::lstm", mutates_args=())
def _lstm(
    x: Tensor, hidden: Tensor, cell: Tensor, weights: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM of one layer with the batch as the first axis, as `nn.LSTM` computes it.

    Args:
        x: Input (B, T, D).
        hidden, cell: Initial states (directions, B, D).
        weights: Of the input, of the state, and two biases, for each direction.
    """
    return torch.lstm(
        x,
        (hidden, cell),
        weights,
        has_biases=True,
        num_layers=1,
        dropout=0.0,
        train=False,
        bidirectional=len(hidden) == 2,
        batch_first=True,
    )


@_lstm.register_fake
def _shapes_of_lstm(
    x: Tensor, hidden: Tensor, cell: Tensor, weights: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    width = hidden.shape[0] * hidden.shape[2]
    return x.new_empty(x.shape[0], x.shape[1], width), hidden.clone(), cell.clone()


def _onnx_lstm(x: Any, hidden: Any, cell: Any, weights: Sequence[Any]) -> Any:
    """Translate the operator to ONNX.

    ONNX has the gates in the order i, o, f, g, and PyTorch in the order i, f, g, o. The input of
    ONNX's LSTM is (T, B, D), and its output (T, directions, B, D).
    """
    from onnxscript import opset18

    op: Any = opset18  # its annotations are those of compiled functions

    def reordered(weight: Any) -> Any:
        i, f, g, o = op.Split(weight, num_outputs=4, axis=0)
        return op.Concat(i, o, f, g, axis=0)

    def stacked(tensors: Sequence[Any]) -> Any:
        axis = op.Constant(value_ints=[0])
        return op.Concat(*[op.Unsqueeze(tensor, axis) for tensor in tensors], axis=0)

    gates = [reordered(weight) for weight in weights]  # input, state, two biases per direction
    bias = [op.Concat(*gates[n + 2 : n + 4], axis=0) for n in range(0, len(gates), 4)]
    states, last, cell = op.LSTM(
        op.Transpose(x, perm=[1, 0, 2]),
        stacked(gates[0::4]),
        stacked(gates[1::4]),
        stacked(bias),
        None,  # lengths: all videos of a batch have the same
        hidden,
        cell,
        direction="bidirectional" if len(bias) == 2 else "forward",
        hidden_size=hidden.shape[2],
    )
    states = op.Transpose(states, perm=[2, 0, 1, 3])
    return op.Reshape(states, op.Constant(value_ints=[0, 0, -1])), last, cell


_EXPORT: dict[Format, Callable[..., tuple[bytes, Call]]] = {
    "onnx": _onnx,
    "torch-export": _torch_export,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the remarks of the exporters, which concern their own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
