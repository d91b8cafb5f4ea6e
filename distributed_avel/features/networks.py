"""Frozen networks of the extractors, and batched inference.

The input of a network is the output of `prepare`: uint8 frames or log-mel patches, which the
network normalizes on the device. Parameters have the names of the published files. Only feature
actors import this module, so decoding processes do not need torch.

Shape suffixes used in this file:
    N = rows of a batch (frames, clips or patches)    F = frames of a clip
    H, W = height and width of a frame    3 = red, green, blue    R = regions    D = feature size
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from torchvision.models import resnet152
from torchvision.models.video import r2plus1d_18

from distributed_avel.config import Precision, Preprocessing
from distributed_avel.errors import WeightsError
from distributed_avel.features.weights import RANDOM, RANDOM_SEED, WeightsFile, read_weights

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Mean and divisor of red, green and blue, for pixels in 0..255.
_IMAGENET = ([0.485 * 255, 0.456 * 255, 0.406 * 255], [0.229 * 255, 0.224 * 255, 0.225 * 255])
_KINETICS = (
    [0.43216 * 255, 0.394666 * 255, 0.37645 * 255],
    [0.22803 * 255, 0.22145 * 255, 0.216989 * 255],
)
_CAFFE = ([123.68, 116.779, 103.939], [1.0, 1.0, 1.0])

# Widths of the convolutions of each block; each block ends with a pooling layer.
_VGG19_BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
_VGGISH_BLOCKS = ((64,), (128,), (256, 256), (512, 512))


class Scale(nn.Module):
    """Normalizes frames (N, ..., H, W, 3) in 0..255 as in the training of a network.

    The output has the channels first: (N, 3, H, W), or (N, 3, F, H, W) for clips.

    Args:
        mean_and_divisor: For red, green and blue.
        bgr: Whether the output has the channel order blue, green, red.
    """

    def __init__(
        self, mean_and_divisor: tuple[list[float], list[float]], *, bgr: bool = False
    ) -> None:
        super().__init__()
        self.mean, self.divisor = mean_and_divisor
        self.bgr = bgr

    def forward(self, pictures_NHW3: Tensor) -> Tensor:
        """Normalize frames; the result is float32 with the channels first."""
        mean_3 = torch.tensor(self.mean, device=pictures_NHW3.device)
        divisor_3 = torch.tensor(self.divisor, device=pictures_NHW3.device)
        scaled = (pictures_NHW3.float() - mean_3) / divisor_3
        return (scaled.flip(-1) if self.bgr else scaled).movedim(-1, 1)


class Vgg19Pool5(nn.Module):
    """VGG-19 up to its last pooling layer (`block5_pool`, `features.36`): 7 x 7 x 512."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        caffe = preprocessing == "keras_caffe"
        self.scale = Scale(_CAFFE if caffe else _IMAGENET, bgr=caffe)
        self.features = _convolutions(3, _VGG19_BLOCKS)

    def forward(self, pictures_NHW3: Tensor) -> Tensor:
        """Compute the features of the regions, row by row, shape (N, R, D)."""
        return self.features(self.scale(pictures_NHW3)).flatten(2).transpose(1, 2)


class VggishNetwork(nn.Module):
    """VGGish up to its embedding of size 128 (after ReLU), without PCA or quantization."""

    def __init__(self) -> None:
        super().__init__()
        self.features = _convolutions(1, _VGGISH_BLOCKS)
        self.embeddings = nn.Sequential(
            *(nn.Linear(12288, 4096), nn.ReLU()),
            *(nn.Linear(4096, 4096), nn.ReLU()),
            *(nn.Linear(4096, 128), nn.ReLU()),
        )

    def forward(self, log_mel_NHW: Tensor) -> Tensor:
        """Compute embeddings (N, 128) of patches of 96 spectrogram frames by 64 bands."""
        maps_NDHW = self.features(log_mel_NHW.unsqueeze(1))
        return self.embeddings(maps_NDHW.permute(0, 2, 3, 1).flatten(1))  # as in TensorFlow


class ResNet152Pool(nn.Module):
    """ResNet-152 (ImageNet) up to its average pooling: 2048 features per frame."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale(_IMAGENET)
        # With random weights, each of fifty residual blocks would double the activations.
        self.net = resnet152(weights=None, zero_init_residual=True)
        self.net.fc = nn.Identity()  # type: ignore[assignment]

    def forward(self, pictures_NHW3: Tensor) -> Tensor:
        """Compute features (N, 2048)."""
        return self.net(self.scale(pictures_NHW3))


class R2Plus1dPool(nn.Module):
    """R(2+1)D-18 (Kinetics-400) up to its average pooling: 512 features per clip."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale(_KINETICS)
        self.net = r2plus1d_18(weights=None)
        self.net.fc = nn.Identity()  # type: ignore[assignment]

    def forward(self, clips_NFHW3: Tensor) -> Tensor:
        """Compute features (N, 512)."""
        return self.net(self.scale(clips_NFHW3))


def load_network(
    network: str,
    make: Callable[[], nn.Module],
    weights: WeightsFile | None,
    *,
    unused: Sequence[str] = (),
) -> nn.Module:
    """Create a network in eval mode, with weights from a file or with seeded random weights.

    Args:
        network: Name of the network, for messages.
        make: Creates the network with arbitrary weights.
        weights: File of weights; None for random weights.
        unused: Prefixes of parameter names in the published file to ignore.

    Raises:
        WeightsError: Parameters are missing, unexpected or of another shape.
    """
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return _frozen(make())
    with torch.device("meta"):  # do not initialize weights that are replaced below
        module = make()
    prefix = "net." if hasattr(module, "net") else ""
    ours = {name.removeprefix(prefix): value for name, value in module.state_dict().items()}
    theirs = read_weights(network, weights.path)
    kept = {name: value for name, value in theirs.items() if not name.startswith(tuple(unused))}
    for name, value in ours.items():
        if name.endswith("num_batches_tracked"):  # files older than torch 0.4 have none
            kept[name] = torch.zeros_like(value, device="cpu")
    _refuse_other_networks(network, weights, ours, kept)
    fitting = {prefix + name: kept[name].to(value.dtype) for name, value in ours.items()}
    module.load_state_dict(fitting, assign=True)
    return _frozen(module)


class Runner:
    """Runs a frozen network on the GPU, if there is one, in batches of limited size.

    Args:
        module: The network.
        precision: "fp32", "bf16" or "fp16".
        rows_per_batch: Maximum number of rows (frames, clips or patches) of a batch.
    """

    def __init__(self, module: nn.Module, precision: Precision, rows_per_batch: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Frames are decoded with the channels last.
        convert_conv2d_weight_memory_format(module, torch.channels_last)
        self._module = module.to(self.device)
        self._dtype = _DTYPES[precision]
        self._rows_per_batch = rows_per_batch

    def __call__(self, videos: Sequence[NDArray]) -> list[NDArray[np.float32]]:
        """Compute the output for the rows of each video.

        A batch has rows of one video only: rounding depends on the size of a batch, and the
        features of a video must not depend on the others.
        """
        size = self._rows_per_batch
        with torch.inference_mode(), self._arithmetic():
            return [
                np.concatenate(
                    [self._run(video[start : start + size]) for start in range(0, len(video), size)]
                )
                for video in videos
            ]

    def _run(self, batch_N: NDArray) -> NDArray[np.float32]:
        inputs_N = torch.from_numpy(batch_N).to(self.device)
        return self._module(inputs_N).float().cpu().numpy()

    def _arithmetic(self) -> AbstractContextManager:
        if self._dtype != torch.float32:
            return torch.autocast(self.device.type, self._dtype)
        # By default, cuDNN uses TF32 (10 bits of mantissa) for float32 convolutions.
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _convolutions(channels: int, blocks: Iterable[Iterable[int]]) -> nn.Sequential:
    """Create blocks of 3 x 3 convolutions with ReLU, each followed by 2 x 2 max pooling."""
    layers: list[nn.Module] = []
    for block in blocks:
        for width in block:
            convolution = nn.Conv2d(channels, width, kernel_size=3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def _refuse_other_networks(
    network: str,
    weights: WeightsFile,
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
) -> None:
    problems = [f"missing: {name}" for name in sorted(ours.keys() - theirs.keys())]
    problems += [f"unexpected: {name}" for name in sorted(theirs.keys() - ours.keys())]
    problems += [
        f"{name}: shape {tuple(theirs[name].shape)}, expected {tuple(value.shape)}"
        for name, value in ours.items()
        if name in theirs and theirs[name].shape != value.shape
    ]
    if problems:
        shown = problems[:8] + ([f"and {len(problems) - 8} more"] if len(problems) > 8 else [])
        lines = "".join(f"\n  {problem}" for problem in shown)
        raise WeightsError(
            f"extract.weights.{network}: the parameters in {weights.path} do not match {network}; "
            f"use the published file or {RANDOM!r}:{lines}"
        )
