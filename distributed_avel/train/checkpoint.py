"""Weights and training state as bytes; nothing here can execute code when it is read."""

import hashlib
import io
import pickle
from typing import Any

import safetensors.torch
import torch
from torch import nn

from distributed_avel.errors import ArtifactError


def weights_to_bytes(model: nn.Module) -> bytes:
    """The weights of a model, as safetensors."""
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    return safetensors.torch.save(state)


def load_weights(model: nn.Module, content: bytes, source: str) -> None:
    """Put weights into a model of the same shape.

    Args:
        source: Where the bytes come from, for the error message.

    Raises:
        ArtifactError: The bytes are not the weights of such a model.
    """
    try:
        model.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ArtifactError(f"{source}: not the weights of this model: {error}") from None


def state_to_bytes(state: dict[str, Any]) -> bytes:
    """Training state (tensors, numbers, strings, lists and dictionaries), after its sha256."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    return hashlib.sha256(content).digest() + content


def state_from_bytes(content: bytes, source: str) -> dict[str, Any]:
    """The inverse of `state_to_bytes`; anything but plain state is refused.

    Args:
        source: Where the bytes come from, for the error message.

    Raises:
        ArtifactError: The bytes are not what was written, or bring code with them.
    """
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[size:]).digest() != content[:size]:
        raise ArtifactError(f"{source}: the checkpoint is damaged")
    try:
        return torch.load(io.BytesIO(content[size:]), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ArtifactError(f"{source}: not the state of a training: {error}") from None
