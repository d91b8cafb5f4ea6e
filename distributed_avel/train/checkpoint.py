"""Weights and training state as bytes; nothing here can execute code when it is read."""

import io
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
    """Training state: tensors, numbers, strings, lists and dictionaries."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def state_from_bytes(content: bytes) -> dict[str, Any]:
    """The inverse of `state_to_bytes`; anything but plain state is refused."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
