"""Models without a reference implementation compute the equations in their files.

Each is implemented here a second time, as loops over the segments of one video, without tensors.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from distributed_avel import models
from distributed_avel.method.mil import mil_pool
from distributed_avel.models.base import PublishedModel
from tests.models.examples import SIZES, features, small_model
from tests.models.loops import (
    Vector,
    Weights,
    attention_layer,
    audio_guided,
    bi_lstm,
    bilinear,
    linear,
    lstm_step,
    mean,
    sigmoid,
    softmax,
)

Video = tuple[Sequence[Vector], Sequence[Sequence[Vector]]]
"""Audio features by segment; visual features by segment and region."""


def loop_avin(weights: Weights, video: Video) -> list[Vector]:
    audio, visual = video
    seen = [audio_guided(weights, a, regions) for a, regions in zip(audio, visual, strict=True)]
    heard, seen = bi_lstm(weights, "audio_lstm", audio), bi_lstm(weights, "visual_lstm", seen)
    within = [interactions(segments, average(segments)) for segments in (heard, seen)]
    across = average([average(segments) for segments in within])
    between = [interactions(segments, across) for segments in (heard, seen)]
    scores = []
    for t in range(len(audio)):
        fused = bilinear(weights, "fusion", heard[t], seen[t], factors=5)
        parts = [within[0][t], within[1][t], between[0][t], between[1][t], fused]
        scores.append(linear(weights, "head", np.concatenate(parts)))
    return scores


def average(vectors: Sequence[Vector]) -> Vector:
    return mean([1 / len(vectors)] * len(vectors), vectors)


def interactions(segments: Sequence[Vector], summary: Vector) -> list[Vector]:
    shares = softmax([float(segment @ summary) for segment in segments])
    return [len(segments) * share * x for share, x in zip(shares, segments, strict=True)]


def loop_avfb(weights: Weights, video: Video) -> list[Vector]:
    fused, shares = avfb_parts(weights, video)
    return [
        len(fused) * share * linear(weights, "head", z)
        for share, z in zip(shares, fused, strict=True)
    ]


def avfb_parts(weights: Weights, video: Video) -> tuple[list[Vector], Vector]:
    """Return the fused segments, and the attention weight of each."""
    audio, visual = video
    seen = [audio_guided(weights, a, regions) for a, regions in zip(audio, visual, strict=True)]
    heard, seen = bi_lstm(weights, "audio_lstm", audio), bi_lstm(weights, "visual_lstm", seen)
    fused = [bilinear(weights, "fusion", h, s, factors=5) for h, s in zip(heard, seen, strict=True)]
    shares = softmax(
        [linear(weights, "weigh.2", np.tanh(linear(weights, "weigh.0", z)))[0] for z in fused]
    )
    return fused, shares


def loop_cman(weights: Weights, video: Video) -> list[Vector]:
    audio, visual = video
    seen = []
    for a, regions in zip(audio, visual, strict=True):
        likeness = [
            cosine(linear(weights, "audio_where", a), linear(weights, "visual_where", region))
            for region in regions
        ]
        seen.append(mean(softmax(likeness), regions))
    heard, seen = when(weights, "audio_when", audio), when(weights, "visual_when", seen)
    heard_out = which(weights, "audio", heard, seen)
    seen_out = which(weights, "visual", seen, heard)
    return [
        linear(weights, "head", np.concatenate(both))
        for both in zip(heard_out, seen_out, strict=True)
    ]


def cosine(a: Vector, b: Vector) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def when(weights: Weights, name: str, segments: Sequence[Vector]) -> list[Vector]:
    found = []
    for segment in segments:
        query = linear(weights, f"{name}.query", segment)
        keys = [linear(weights, f"{name}.key", other) for other in segments]
        shares = softmax([query @ key / np.sqrt(len(query)) for key in keys])
        found.append(mean(shares, [linear(weights, f"{name}.value", s) for s in segments]))
    return found


def which(
    weights: Weights, name: str, segments: Sequence[Vector], other: Sequence[Vector]
) -> list[Vector]:
    lstm, attention = f"{name}_lstm", f"{name}_which"
    state = memory = np.zeros(len(segments[0]))
    found = []
    for x in segments:
        gate = sigmoid(
            linear(weights, f"{lstm}.gate_input", x) + linear(weights, f"{lstm}.gate_state", state)
        )
        state, memory = lstm_step(weights, f"{lstm}.cell.*", x, state, memory)
        sentinel = gate * np.tanh(memory)
        asked = linear(weights, f"{attention}.state", state)

        def score(key: Vector, asked: Vector = asked) -> float:
            return linear(weights, f"{attention}.weigh", np.tanh(key + asked))[0]

        across = [score(linear(weights, f"{attention}.other", o)) for o in other]
        within = score(linear(weights, f"{attention}.sentinel", sentinel))
        beta = softmax([*across, within])[-1]
        found.append(state + beta * sentinel + (1 - beta) * mean(softmax(across), other))
    return found


def loop_avt(weights: Weights, video: Video) -> list[Vector]:
    heard, seen = [], []
    for t, (a, regions) in enumerate(zip(*video, strict=True)):
        h = linear(weights, "audio_in", a)
        inside = [linear(weights, "visual_in", region) for region in regions]
        related = [attention_layer(weights, "within_frame", r, [*inside, h]) for r in inside]
        asked = linear(weights, "instance_query", h)
        keys = [linear(weights, "instance_key", r) for r in related]
        shares = softmax([key @ asked / np.sqrt(len(asked)) for key in keys])
        heard.append(h + place(t, len(h)))
        seen.append(mean(shares, related) + place(t, len(h)))
    scores = []
    for h, s in zip(heard, seen, strict=True):
        heard_out = attention_layer(weights, "audio_between", h, heard, seen)
        seen_out = attention_layer(weights, "visual_between", s, seen, heard)
        scores.append(linear(weights, "head", np.concatenate([heard_out, seen_out])))
    return scores


def place(t: int, width: int) -> Vector:
    return np.array(
        [(np.cos if i % 2 else np.sin)(t / 10000 ** ((i - i % 2) / width)) for i in range(width)]
    )


LOOPS = {"avfb": loop_avfb, "avin": loop_avin, "avt": loop_avt, "cman": loop_cman}


def test_every_reimplemented_model_has_a_loop():
    from_text = [
        name
        for name in models.model_names()
        if not issubclass(models.model_class(name), PublishedModel)
    ]

    assert from_text == sorted(LOOPS)


@pytest.mark.parametrize("num_segments", [1, 6])
@pytest.mark.parametrize("name", LOOPS)
@torch.no_grad()
def test_scores_equal_the_loop_over_segments(name, num_segments):
    model = small_model(name, torch.float64)
    weights = {key: weight.numpy() for key, weight in model.state_dict().items()}
    audio, visual = features(2, num_segments, torch.float64)

    scores = model(audio, visual)

    assert scores.shape == (2, num_segments, SIZES["num_classes"] + 1)
    for number in range(2):
        video = list(audio[number].numpy()), [list(seen) for seen in visual[number].numpy()]
        expected = LOOPS[name](weights, video)
        np.testing.assert_allclose(scores[number].numpy(), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_mean_score_of_avfb_is_the_attention_weighted_score():
    model = small_model("avfb", torch.float64)
    weights = {key: weight.numpy() for key, weight in model.state_dict().items()}
    audio, visual = features(1, 6, torch.float64)
    fused, shares = avfb_parts(weights, (list(audio[0].numpy()), list(visual[0].numpy())))

    pooled = mil_pool(model(audio, visual), "mean")[0]

    expected = linear(weights, "head", mean(shares, fused))
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=0, atol=1e-12)
