"""Reproducible arithmetic: deterministic algorithms and full float32 precision."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible_arithmetic(device: torch.device) -> Iterator[None]:
    """Context manager: use deterministic algorithms and no TF32; restore the settings on exit.

    The same command then gives bit-identical weights and predictions on the same type of machine.
    An operation without a deterministic implementation raises an error. With `warn_only=True`,
    torch would compute the gradient of attention on a GPU with atomic additions.

    On a GPU, cuDNN would otherwise use TF32 (10 bits of mantissa) in convolutions and recurrent
    networks. cuBLAS is deterministic only with a workspace configuration, which must be set
    before its first use in a process.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=False)
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
