"""Layers of base models as plain NumPy loops over segments, heads and numbers.

Written from their equations, without batches, masks or optimizations. Models that have no
reference implementation are compared with them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Shares = Sequence[float] | Vector
Weights = Mapping[str, NDArray[np.float64]]


def sigmoid(x: Vector) -> Vector:
    return 1 / (1 + np.exp(-x))


def softmax(scores: Shares) -> Vector:
    shares = np.array([np.exp(score) for score in scores])
    return shares / sum(shares)


def mean(weights: Shares, vectors: Sequence[Vector]) -> Vector:
    """Return the weighted sum of vectors; attention weights add up to 1."""
    return sum((w * v for w, v in zip(weights, vectors, strict=True)), np.zeros(len(vectors[0])))


def linear(weights: Weights, name: str, x: Vector) -> Vector:
    found = weights[f"{name}.weight"] @ x
    return found + weights[f"{name}.bias"] if f"{name}.bias" in weights else found


def layer_norm(weights: Weights, name: str, x: Vector) -> Vector:
    scaled = (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
    return weights[f"{name}.weight"] * scaled + weights[f"{name}.bias"]


def lstm_step(
    weights: Weights, name: str, x: Vector, state: Vector, memory: Vector
) -> tuple[Vector, Vector]:
    """Return the next hidden state and cell; `*` in `name` stands for weights and biases."""
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    of_x, of_state, bias_x, bias_state = (weights[name.replace("*", kind)] for kind in kinds)
    gates = np.split(of_x @ x + bias_x + of_state @ state + bias_state, 4)
    enter, keep, show = sigmoid(gates[0]), sigmoid(gates[1]), sigmoid(gates[3])
    memory = keep * memory + enter * np.tanh(gates[2])
    return show * np.tanh(memory), memory


def bi_lstm(weights: Weights, name: str, segments: Sequence[Vector]) -> list[Vector]:
    ways = []
    for suffix in ("", "_reverse"):
        state = memory = np.zeros(weights[f"{name}.weight_hh_l0{suffix}"].shape[1])
        states = []
        for x in segments[:: -1 if suffix else 1]:
            state, memory = lstm_step(weights, f"{name}.*_l0{suffix}", x, state, memory)
            states.append(state)
        ways.append(states[:: -1 if suffix else 1])
    return [np.concatenate(both) for both in zip(*ways, strict=True)]


def audio_guided(weights: Weights, audio: Vector, regions: Sequence[Vector]) -> Vector:
    """Eq. 1 as in AVE's code: the audio term is added to every region."""
    heard = linear(
        weights, "attention.joint_audio", relu(linear(weights, "attention.audio", audio))
    )
    scores = []
    for number, region in enumerate(regions):
        seen = relu(linear(weights, "attention.visual", region))
        joint = np.tanh(linear(weights, "attention.joint_visual", seen) + heard[number])
        scores.append(linear(weights, "attention.weigh", joint)[0])
    return mean(softmax(scores), regions)


def bilinear(weights: Weights, name: str, heard: Vector, seen: Vector, factors: int) -> Vector:
    """z_i = 1^T (U_i^T heard * V_i^T seen), then a signed square root, then L2 normalization."""
    roots = []
    for i in range(len(weights[f"{name}.audio.weight"]) // factors):
        total = 0.0
        for k in range(i * factors, (i + 1) * factors):
            u, v = weights[f"{name}.audio.weight"][k], weights[f"{name}.visual.weight"][k]
            total += (u @ heard) * (v @ seen)
        roots.append(np.sign(total) * np.sqrt(abs(total) + 1e-8))
    return np.array(roots) / np.sqrt(sum(root**2 for root in roots))


def attention_layer(
    weights: Weights, name: str, query: Vector, *memories: Sequence[Vector]
) -> Vector:
    """Attention of one query over several memories, added to it, then a feed-forward layer."""
    found = query
    for number, memory in enumerate(memories):
        found = found + heads(weights, f"{name}.attentions.{number}", query, memory, num_heads=4)
    found = layer_norm(weights, f"{name}.norm1", found)
    inside = relu(linear(weights, f"{name}.linear1", found))
    return layer_norm(weights, f"{name}.norm2", found + linear(weights, f"{name}.linear2", inside))


def heads(
    weights: Weights, name: str, query: Vector, memory: Sequence[Vector], num_heads: int
) -> Vector:
    width, size = len(query), len(query) // num_heads
    of_query, of_key, of_value = np.split(weights[f"{name}.in_proj_weight"], 3)
    bias_query, bias_key, bias_value = np.split(weights[f"{name}.in_proj_bias"], 3)
    q = of_query @ query + bias_query
    keys = [of_key @ m + bias_key for m in memory]
    values = [of_value @ m + bias_value for m in memory]
    found = []
    for part in (slice(start, start + size) for start in range(0, width, size)):
        shares = softmax([q[part] @ key[part] / np.sqrt(size) for key in keys])
        found.append(mean(shares, [value[part] for value in values]))
    return linear(weights, f"{name}.out_proj", np.concatenate(found))


def relu(x: Vector) -> Vector:
    return np.maximum(x, 0)
