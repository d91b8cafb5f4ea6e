"""Reproducible arithmetic: deterministic algorithms in full single precision."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible_arithmetic(device: torch.device) -> Iterator[None]:
    """Let torch use deterministic algorithms only, and no TF32; restore its settings afterwards.

    The same command then gives the same weights and scores, bit for bit, on the same kind of
    machine. An operation without a deterministic algorithm raises an error: told to warn only,
    torch computes the gradient of attention on a GPU with atomic additions.

    On a GPU, cuDNN otherwise multiplies with 10 bits of mantissa (TF32) in convolutions and
    recurrent networks, and cuBLAS needs the workspace that is set here, before its first use in
    a process.
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
