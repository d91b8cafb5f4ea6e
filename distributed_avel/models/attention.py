"""Audio-guided visual attention (eq. 1) of AVE (AVE-ECCV18); other models use it, too.

Shape suffixes used in this file:
    B = videos    T = segments    R = regions    D = feature size
"""

import torch
from torch import Tensor, nn


class AudioGuidedAttention(nn.Module):
    """Pools the visual regions of a segment with attention guided by its audio feature (eq. 1).

    As in the authors' code, the width of the joint space is the number of regions, and the audio
    term is added along the axis of regions instead of the joint axis. The published weights
    depend on it.
    """

    def __init__(self, *, audio_dim: int, visual_dim: int, regions: int, hidden_size: int) -> None:
        super().__init__()
        self.regions = regions
        self.audio = nn.Linear(audio_dim, hidden_size)
        self.visual = nn.Linear(visual_dim, hidden_size)
        self.joint_visual = nn.Linear(hidden_size, regions, bias=False)
        self.joint_audio = nn.Linear(hidden_size, regions, bias=False)
        self.weigh = nn.Linear(regions, 1, bias=False)
        for layer in (self.audio, self.visual, self.joint_visual, self.joint_audio, self.weigh):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Compute the attention-weighted mean over the regions, shape (B, T, D)."""
        if visual_BTRD.shape[-2] != self.regions:
            raise ValueError(
                f"the model expects {self.regions} regions, got {visual_BTRD.shape[-2]}"
            )
        audio_BTR1 = self.joint_audio(self.audio(audio_BTD).relu()).unsqueeze(-1)
        joint_BTRR = self.joint_visual(self.visual(visual_BTRD).relu()) + audio_BTR1
        weights_BTR1 = self.weigh(torch.tanh(joint_BTRR)).softmax(dim=-2)
        return (weights_BTR1.transpose(-1, -2) @ visual_BTRD).squeeze(-2)


ATTENTION_NAMES = {
    "audio": "affine_audio",
    "visual": "affine_video",
    "joint_visual": "affine_v",
    "joint_audio": "affine_g",
    "weigh": "affine_h",
}
"""Maps our names of the layers to those of the authors."""
