"""Audio-guided attention and two Bi-LSTMs, shared by AVE, AVFB and AVIN.

Shape suffixes used in this file:
    B = videos    T = segments    R = regions    D = feature size
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from distributed_avel.models.attention import AudioGuidedAttention
from distributed_avel.models.base import BaseModel


class RecurrentModel(BaseModel):
    """Audio-guided attention over the regions, then a Bi-LSTM for each modality.

    Args:
        visual_dim: Width of the visual features.
        audio_dim: Width of the audio features.
        regions: R.
        hidden_size: Width of each direction of the LSTMs.
        attention_size: See `Config`.
    """

    class Config(BaseModel.Config):
        """Options of the attention."""

        attention_size: PositiveInt | None = None
        """Width of the attention's first layers (default: width of the visual features)."""

    def __init__(
        self,
        *,
        visual_dim: int,
        audio_dim: int,
        regions: int,
        hidden_size: int = 128,
        attention_size: int | None,
    ) -> None:
        super().__init__()
        self.code_sizes = [audio_dim, visual_dim]
        self.attention = AudioGuidedAttention(
            audio_dim=audio_dim,
            visual_dim=visual_dim,
            regions=regions,
            hidden_size=attention_size or visual_dim,
        )
        self.audio_lstm = nn.LSTM(audio_dim, hidden_size, batch_first=True, bidirectional=True)
        self.visual_lstm = nn.LSTM(visual_dim, hidden_size, batch_first=True, bidirectional=True)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Concatenate the audio feature and the attended visual feature (eq. 1)."""
        return torch.cat([audio_BTD, self.attention(audio_BTD, visual_BTRD)], dim=-1)

    def states(self, codes_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states of the audio and the visual LSTM (eqs. 2 and 3), both (B, T, D)."""
        audio_BTD, visual_BTD = codes_BTD.split(self.code_sizes, dim=-1)
        audio_BTD, _ = self.audio_lstm(audio_BTD)
        visual_BTD, _ = self.visual_lstm(visual_BTD)
        return audio_BTD, visual_BTD
