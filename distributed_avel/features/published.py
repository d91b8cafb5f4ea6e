"""Two-stream extractors that reproduce the published features of AVE and LLP.

To add an extractor, set its two streams; a new stream is a subclass of `two_stream.FeatureStream`.
"""

from distributed_avel.features.base import register_extractor
from distributed_avel.features.resnet_r2plus1d import ResNetAndR2Plus1d
from distributed_avel.features.two_stream import TwoStreamExtractor
from distributed_avel.features.vgg19 import Vgg19
from distributed_avel.features.vggish import Vggish


@register_extractor("vgg19+vggish")
class AveExtractor(TwoStreamExtractor):
    """Features of AVE: audio (T, 128), visual (T, 49, 512), from 16 frames per segment."""

    visual_stream = Vgg19
    audio_stream = Vggish


@register_extractor("resnet152+r2plus1d_18+vggish")
class LlpExtractor(TwoStreamExtractor):
    """Features of LLP: audio (T, 128), visual (T, 1, 2560), from 8 frames per segment."""

    visual_stream = ResNetAndR2Plus1d
    audio_stream = Vggish
    default_frames_per_segment = 8
    unread = frozenset({"preprocessing"})
