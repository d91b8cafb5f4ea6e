"""How fast an extractor is, and where the time goes: decoding or the networks.

    python benchmarks/extractors.py --extractor vgg19+vggish --num-videos 4 --precision bf16

Renders synthetic videos, prepares each on one CPU thread, as a decoding process does, and embeds
all of them together, on the GPU if there is one. Weights are random: speed does not depend on
them. One decoding process keeps up with a GPU if both take the same time, hence the last line.
"""

import argparse
import platform
import sys
import time

import numpy as np
import torch

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import AvelError
from distributed_avel.features.base import Extractor, extractor_class, extractor_names
from distributed_avel.media.write import write_mp4
from distributed_avel.timeline import Timeline

_FPS = 25
_SAMPLE_RATE_HZ = 44_100


def main(argv: list[str]) -> int:
    """Time one extractor and print what came out."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    timeline = Timeline(num_segments=args.num_segments, segment_s=1.0)
    try:
        extractor = make_extractor(args, timeline)
    except AvelError as error:
        print(error, file=sys.stderr)
        return 2
    videos = [video(seed, timeline, args.height) for seed in range(args.num_videos)]

    extractor.prepare(videos[0])  # the first call loads libraries
    started = time.perf_counter()
    prepared = [extractor.prepare(media) for media in videos]
    decode_s = time.perf_counter() - started
    started = time.perf_counter()
    extractor.load()
    load_s = time.perf_counter() - started
    extractor.embed(prepared[:1])  # the first call chooses algorithms
    started = time.perf_counter()
    extractor.embed(prepared)  # returns arrays on the CPU, so a GPU has finished
    network_s = time.perf_counter() - started

    num_frames = args.num_videos * args.num_segments * extractor.frames_per_segment
    print(f"device       {device_name(args.threads)}")
    print(f"extractor    {args.extractor}, {args.precision}, batches of {args.frames_per_batch}")
    print(
        f"videos       {args.num_videos} synthetic, {args.num_segments} s, {args.height} lines, "
        f"{extractor.frames_per_segment} frames a segment"
    )
    print(f"load         {load_s:8.2f} s")
    parts = {"decode": decode_s, "network": network_s}
    if not extractor.networks(extractor.config):
        del parts["network"]
    for name, seconds in parts.items():
        print(
            f"{name:12} {seconds:8.2f} s {num_frames / seconds:10.1f} frames/s "
            f"{args.num_videos / seconds:8.2f} videos/s "
            f"{seconds / sum(parts.values()):6.0%} of the time"
        )
    if "network" in parts:
        print(f"processes    {decode_s / network_s:8.1f} decoding processes keep the networks busy")
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """The settings."""
    parser = argparse.ArgumentParser(description="Time an extractor.")
    parser.add_argument("--extractor", default="vgg19+vggish", choices=extractor_names())
    parser.add_argument("--num-videos", type=int, default=2)
    parser.add_argument("--num-segments", type=int, default=10)
    parser.add_argument("--frames-per-segment", type=int, help="default: the extractor's own")
    parser.add_argument("--height", type=int, default=360, help="of the videos, in pixels")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--frames-per-batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2, help="of the networks, on a CPU")
    return parser.parse_args(argv)


def make_extractor(args: argparse.Namespace, timeline: Timeline) -> Extractor:
    """The extractor, with random weights for each of its networks."""
    settings = {
        "extractor": args.extractor,
        "frames_per_segment": args.frames_per_segment,
        "precision": args.precision,
        "frames_per_batch": args.frames_per_batch,
    }
    make = extractor_class(args.extractor)
    networks = make.networks(ExtractConfig(**settings))
    return make(timeline, ExtractConfig(**settings, weights=dict.fromkeys(networks, "random")))


def video(seed: int, timeline: Timeline, height: int) -> bytes:
    """An mp4 of drifting coloured blocks and noise, 16:9 (synthetic)."""
    rng = np.random.default_rng(seed)
    num_frames = round(timeline.duration_s * _FPS)
    width = height * 16 // 9 // 2 * 2
    blocks = rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)
    cell = max(height // 9, width // 16) + 1
    picture = np.kron(blocks, np.ones((cell, cell, 1), dtype=np.uint8))[:height, :width]
    frames = np.stack([np.roll(picture, 2 * index, axis=1) for index in range(num_frames)])
    num_samples = round(timeline.duration_s * _SAMPLE_RATE_HZ)
    wave = 0.1 * rng.standard_normal((1, num_samples)).astype(np.float32)
    return write_mp4(frames, _FPS, wave, _SAMPLE_RATE_HZ)


def device_name(threads: int) -> str:
    """The GPU, or the processor and the threads that were used of it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()} CPU, {threads} threads"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
