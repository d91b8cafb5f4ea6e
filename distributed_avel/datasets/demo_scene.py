"""Render the frames and waveforms of the demo videos with numpy.

A class consists of a moving, coloured shape, a tone pattern and a context (its "place"): a tint
and stripes in the background, and noise. The context is present in every segment of a video with
an event, the shape and the tone only in the segments that the script lists. Frames are 112 x 112
at 8 fps; audio is mono at 16 kHz; videos last 10 s.

Shape suffixes used in this file:
    F = frames (80)    P = side of a frame (112)    3 = red, green, blue
    N = samples of the waveform    T = segments (10)
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FPS = 8
SAMPLE_RATE_HZ = 16_000
NUM_SEGMENTS = 10
SEGMENT_S = 1.0

_SIDE = 112
_WOBBLE = 4  # maximum camera motion, in pixels
_NUM_FRAMES = int(NUM_SEGMENTS * SEGMENT_S * FPS)
_NUM_SAMPLES = int(NUM_SEGMENTS * SEGMENT_S * SAMPLE_RATE_HZ)

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class EventClass:
    """One class of events.

    Args:
        name: Name of the class.
        shape: Whether a point (x, y), each about -1..1, belongs to the shape.
        hue: Hue of the shape, in 0..1.
        tone_hz: Base frequency of the tone.
        loudness: Amplitude of the tone over time, in 0..1.
        pitch: Pitch of the tone over time, in octaves above `tone_hz`.
        place_hue: Hue of the context.
        stripe_angle: Direction of the stripes of the context, in radians.
        noise_hz: Centre frequency of the noise of the context.
    """

    name: str
    shape: Callable[[FloatArray, FloatArray], NDArray[np.bool_]]
    hue: float
    tone_hz: float
    loudness: Callable[[FloatArray], FloatArray]
    pitch: Callable[[FloatArray], FloatArray]
    place_hue: float
    stripe_angle: float
    noise_hz: float


def _steady(t: FloatArray) -> FloatArray:
    return np.ones_like(t)


def _level(t: FloatArray) -> FloatArray:
    return np.zeros_like(t)


def _throb(t: FloatArray) -> FloatArray:
    return 0.5 + 0.5 * np.sin(2 * np.pi * 6 * t)


def _knock(t: FloatArray) -> FloatArray:
    return np.exp(-12 * (t * 4 % 1))


def _beat(t: FloatArray) -> FloatArray:
    return (t * 3 % 1 < 0.5).astype(t.dtype)


def _rise(t: FloatArray) -> FloatArray:
    return t * 2 % 1 * 0.7


def _fall(t: FloatArray) -> FloatArray:
    return -(t * 2 % 1) * 0.7


def _two_tone(t: FloatArray) -> FloatArray:
    return np.float32(0.4) * (t * 2 % 1 >= 0.5)


def _vibrato(t: FloatArray) -> FloatArray:
    return 0.15 * np.sin(2 * np.pi * 5 * t)


CLASSES = (
    EventClass(
        "disc with a chime", lambda x, y: x * x + y * y < 0.8,
        0.00, 620.0, _knock, _level, 0.55, 0.0, 2600.0,
    ),
    EventClass(
        "ring with a siren", lambda x, y: np.abs(np.hypot(x, y) - 0.75) < 0.25,
        0.12, 1240.0, _steady, _two_tone, 0.30, 0.4, 420.0,
    ),
    EventClass(
        "square with a buzz", lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.8,
        0.25, 220.0, _throb, _level, 0.80, 0.8, 1500.0,
    ),
    EventClass(
        "diamond with a whistle", lambda x, y: np.abs(x) + np.abs(y) < 1.1,
        0.37, 2480.0, _steady, _vibrato, 0.05, 1.2, 860.0,
    ),
    EventClass(
        "cross with a sweep up",
        lambda x, y: (np.minimum(np.abs(x), np.abs(y)) < 0.35) & (np.hypot(x, y) < 1),
        0.50, 440.0, _steady, _rise, 0.67, 1.6, 4600.0,
    ),
    EventClass(
        "triangle with a sweep down", lambda x, y: (y < 0.7) & (y > 2 * np.abs(x) - 0.9),
        0.62, 1750.0, _steady, _fall, 0.17, 2.0, 240.0,
    ),
    EventClass(
        "bars with a hum",
        lambda x, y: (np.maximum(np.abs(x), np.abs(y)) < 0.9) & (np.sin(7 * x) > -0.2),
        0.75, 310.0, _steady, _level, 0.92, 2.4, 3500.0,
    ),
    EventClass(
        "star with beeps",
        lambda x, y: np.hypot(x, y) < 0.7 + 0.3 * np.cos(5 * np.arctan2(y, x)),
        0.87, 880.0, _beat, _level, 0.42, 2.8, 620.0,
    ),
)  # fmt: skip
"""The classes. Hue and pitch of an event are unrelated to those of its context."""


@dataclass(frozen=True, slots=True)
class Script:
    """Content of a video, as indices into `CLASSES`, or None.

    Args:
        place: Class of the context; None is a grey background.
        seen: Class of the shape in each segment.
        heard: Class of the tone in each segment.
    """

    place: int | None
    seen: tuple[int | None, ...]
    heard: tuple[int | None, ...]


def draw(script: Script, rng: np.random.Generator) -> tuple[NDArray[np.uint8], FloatArray]:
    """Render a script.

    The difficulty of a video is drawn once for all its segments.

    Returns:
        Frames (F, P, P, 3), uint8, and waveform (1, N) in [-1, 1].
    """
    difficulty = rng.uniform()
    frames_FPP3 = _scenery(script.place, rng)
    for label in sorted({c for c in script.seen if c is not None}):
        seen_F = np.repeat([c == label for c in script.seen], _NUM_FRAMES // NUM_SEGMENTS)
        _add_shape(frames_FPP3, CLASSES[label], np.flatnonzero(seen_F), difficulty, rng)
    wave_N = _ambience(script.place, rng)
    for label in sorted({c for c in script.heard if c is not None}):
        heard_T = np.array([c == label for c in script.heard])
        wave_N += _tone(CLASSES[label], heard_T, difficulty, rng)
    np.clip(frames_FPP3, 0.0, 1.0, out=frames_FPP3)
    frames_FPP3 *= 255
    return frames_FPP3.astype(np.uint8), np.clip(wave_N, -1.0, 1.0)[None]


def _scenery(place: int | None, rng: np.random.Generator) -> FloatArray:
    """Render the visual context: tint, stripes and blotches with camera motion, (F, P, P, 3)."""
    if place is None:
        hue, saturation, angle = rng.uniform(), 0.05, rng.uniform(0, np.pi)
    else:
        hue = CLASSES[place].place_hue + rng.normal(0, 0.05)
        saturation = rng.uniform(0.12, 0.3)
        angle = CLASSES[place].stripe_angle + rng.normal(0, 0.15)
    side = _SIDE + 2 * _WOBBLE
    y, x = np.mgrid[:side, :side].astype(np.float32) / _SIDE
    along = x * np.cos(angle) + y * np.sin(angle)
    stripes = 0.06 * np.sin(2 * np.pi * (rng.uniform(4, 8) * along + rng.uniform()))
    blotches = np.kron(rng.normal(0, 0.04, (8, 8)), np.ones((side // 8, side // 8)))
    tint = np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, rng.uniform(0.35, 0.65)))
    canvas = (tint + (stripes + blotches)[:, :, None]).astype(np.float32)

    grain = rng.normal(0, 0.008, (4, _SIDE, _SIDE, 1)).astype(np.float32)
    phase = 2 * np.pi * (np.arange(_NUM_FRAMES) / FPS * rng.uniform(0.1, 0.5) + rng.uniform())
    left_F = np.rint(_WOBBLE * (1 + np.sin(phase))).astype(int)
    top_F = np.rint(_WOBBLE * (1 + np.cos(1.3 * phase))).astype(int)
    return np.stack(
        [
            canvas[top : top + _SIDE, left : left + _SIDE] + grain[frame % len(grain)]
            for frame, (left, top) in enumerate(zip(left_F, top_F, strict=True))
        ]
    )


def _add_shape(
    frames_FPP3: FloatArray,
    event: EventClass,
    which_F: NDArray[np.intp],
    difficulty: float,
    rng: np.random.Generator,
) -> None:
    """Draw a moving, rotating shape into the frames `which_F`."""
    opacity = np.float32(0.95 - 0.4 * difficulty + rng.normal(0, 0.02))
    radius = _SIDE * (0.32 - 0.1 * difficulty) * rng.uniform(0.9, 1.1)
    colour = np.array(
        colorsys.hsv_to_rgb((event.hue + rng.normal(0, 0.02)) % 1.0, 0.9, 0.95), dtype=np.float32
    )
    speed, phase = rng.uniform(0.05, 0.15, 3), rng.uniform(0, 2 * np.pi, 3)
    reach = _SIDE / 2 - radius
    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
    for frame in which_F:
        moment = 2 * np.pi * speed * frame / FPS + phase
        dx = (x - (_SIDE / 2 + reach * np.sin(moment[0]))) / radius
        dy = (y - (_SIDE / 2 + reach * np.sin(moment[1]))) / radius
        turn = 0.6 * np.sin(moment[2])
        u = (dx * np.cos(turn) + dy * np.sin(turn)).astype(np.float32)
        v = (dy * np.cos(turn) - dx * np.sin(turn)).astype(np.float32)
        inside = event.shape(u, v)
        picture = frames_FPP3[frame]
        picture[inside] += opacity * (colour - picture[inside])


def _ambience(place: int | None, rng: np.random.Generator) -> FloatArray:
    """Render the audio context: band-limited noise, or only faint broadband noise without one."""
    hertz = np.fft.rfftfreq(_NUM_SAMPLES, 1 / SAMPLE_RATE_HZ)
    octaves = np.log2(np.maximum(hertz, 20.0))
    shape = 0.15 / np.sqrt(np.maximum(hertz, 60.0) / 60.0)
    if place is not None:
        centre = np.log2(CLASSES[place].noise_hz) + rng.normal(0, 0.2)
        band = np.exp(-0.5 * ((octaves - centre) / 0.5) ** 2) / 2 ** ((centre - 8) / 2)
        shape += 0.5 * rng.uniform(0.5, 1.5) * band
    noise = np.fft.rfft(rng.standard_normal(_NUM_SAMPLES)) * shape
    wave_N = np.fft.irfft(noise, _NUM_SAMPLES)
    wave_N *= rng.uniform(0.02, 0.04) / np.sqrt(np.mean(wave_N**2))
    return wave_N.astype(np.float32)


def _tone(
    event: EventClass, heard_T: NDArray[np.bool_], difficulty: float, rng: np.random.Generator
) -> FloatArray:
    """Render the tone of a class with two overtones, silent outside the segments `heard_T`."""
    t = np.arange(_NUM_SAMPLES, dtype=np.float32) / np.float32(SAMPLE_RATE_HZ)
    moment = t + np.float32(rng.uniform())
    hertz = event.tone_hz * 2 ** (rng.normal(0, 0.05) + event.pitch(moment))
    phase = 2 * np.pi * np.cumsum(hertz.astype(np.float64)) / SAMPLE_RATE_HZ
    tone_N = np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.25 * np.sin(3 * phase)
    tone_N *= event.loudness(moment)
    tone_N *= 10 ** (-0.6 * difficulty) * 0.12 / np.sqrt(np.mean(tone_N**2))
    gate_N = np.repeat(heard_T.astype(np.float32), _NUM_SAMPLES // NUM_SEGMENTS)
    fade = np.ones(161, dtype=np.float32) / 161  # 10 ms, centred on the border of the segment
    return (tone_N * np.convolve(gate_N, fade, mode="same")).astype(np.float32)
