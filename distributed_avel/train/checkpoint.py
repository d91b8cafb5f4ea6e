"""Serialization of weights and training state. Loading never executes code from a file."""

import hashlib
import io
import pickle
from typing import Any

import safetensors.torch
import torch
from torch import nn

from distributed_avel.errors import ArtifactError


def weights_to_bytes(model: nn.Module) -> bytes:
    """Serialize the weights of a model as safetensors."""
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    return safetensors.torch.save(state)


def load_weights(model: nn.Module, content: bytes, source: str) -> None:
    """Load serialized weights into a model.

    Args:
        model: Model of the same architecture and size.
        content: Output of `weights_to_bytes`.
        source: Name of the file, for the error message.

    Raises:
        ArtifactError: The bytes are not weights of this model.
    """
    try:
        model.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ArtifactError(f"{source}: not weights of this model: {error}") from None


def state_to_bytes(state: dict[str, Any]) -> bytes:
    """Serialize training state (tensors, numbers, strings, lists, dicts) after its sha256."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    return hashlib.sha256(content).digest() + content


def state_from_bytes(content: bytes, source: str) -> dict[str, Any]:
    """Deserialize the output of `state_to_bytes`.

    Args:
        content: Output of `state_to_bytes`.
        source: Name of the file, for the error message.

    Raises:
        ArtifactError: The checksum does not match, or the content is not plain data.
    """
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[size:]).digest() != content[:size]:
        raise ArtifactError(f"{source}: the checkpoint is damaged")
    try:
        return torch.load(io.BytesIO(content[size:]), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ArtifactError(f"{source}: not a training state: {error}") from None
