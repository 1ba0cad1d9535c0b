"""The sound of SoulX-FlashHead's published inference code in its mode `once`, in PyTorch.

Written from its order of operations: pad the end so that whole chunks follow the first one, encode all of it, take the
frames around every frame, and cut what every chunk hears out of that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rap_edge.models.audio_encoder import AudioEncoder
from rap_edge.runtime.spec import ModelSpec


def published_features(encoder: AudioEncoder, spec: ModelSpec, sound: Tensor) -> list[Tensor]:
    """What chunk after chunk hears, float32 [chunk_frames, feature_window, layers, width].

    The published code leaves away the last one, which its padding was made for; here it is kept.

    Args:
        encoder: gives features at the video's rate.
        spec: of the model.
        sound: float32 [samples] at the spec's rate, at least a chunk.
    """
    step, length = spec.new_frames * spec.samples_per_frame, spec.chunk_frames * spec.samples_per_frame
    if rest := (len(sound) - length) % step:
        sound = torch.cat([sound, sound.new_zeros(step - rest)])
    embedding = encoder(sound[None])
    around = torch.arange(spec.feature_window) - spec.feature_window // 2
    places = (torch.arange(len(embedding))[:, None] + around).clamp(0, len(embedding) - 1)
    windows = embedding[places]
    return [
        windows[start : start + spec.chunk_frames]
        for start in range(0, len(windows) - spec.chunk_frames + 1, spec.new_frames)
    ]
