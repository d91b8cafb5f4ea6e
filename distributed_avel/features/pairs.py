"""The pairs of halves that data sets published features of.

To add a pair, name two halves; to add a half, write one class (`halves.py` says which methods).
"""

from distributed_avel.features.base import register_extractor
from distributed_avel.features.halves import PairedExtractor
from distributed_avel.features.llp import ResNetAndR2Plus1d
from distributed_avel.features.vgg19 import Vgg19
from distributed_avel.features.vggish import Vggish


@register_extractor("vgg19+vggish")
class AveExtractor(PairedExtractor):
    """AVE's published features: audio (T, 128), visual (T, 49, 512), from 16 frames a segment."""

    visual_half = Vgg19
    audio_half = Vggish


@register_extractor("resnet152+r2plus1d_18+vggish")
class LlpExtractor(PairedExtractor):
    """LLP's published features: audio (T, 128), visual (T, 1, 2560), from 8 frames a segment."""

    visual_half = ResNetAndR2Plus1d
    audio_half = Vggish
    default_frames_per_segment = 8
    unread = frozenset({"preprocessing"})
