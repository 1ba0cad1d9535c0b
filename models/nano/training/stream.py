"""Sound in, frames out, latent by latent: nano as the runtime runs it, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rap_edge.models.causal.audio_encoder import CausalAudioEncoder
from rap_edge.models.causal.dit import CausalDiT
from rap_edge.models.causal.motion_decoder import MotionDecoder

from ...presets import NANO
from ..data.speech import FRAME_SAMPLES
from .train_audio import LOOK_AHEAD, silent_features

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

LEVELS = tuple(level / 1000.0 for level in NANO.schedule())


class Stream:
    """One viewer's state. The networks are shared.

    Args:
        decoder, dit, encoder: trained; the decoder's config has the statistics of the latents.
        portrait: uint8 [H, W, 3].
        noise: of a latent by its number, standard normal [1, C, 1, 1, 1].
        levels: noise levels from 1 to 0, one step between each two.
    """

    def __init__(
        self,
        decoder: MotionDecoder,
        dit: CausalDiT,
        encoder: CausalAudioEncoder,
        portrait: Bytes,
        noise: Callable[[int], Tensor],
        levels: tuple[float, ...] = LEVELS,
    ) -> None:
        self._decoder, self._dit, self._encoder, self._levels = decoder, dit, encoder, levels
        self._noise, self._made = noise, 0
        self._group = decoder.config.temporal_compression
        with torch.no_grad():
            picture = torch.from_numpy(portrait.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0
            self._reference = decoder.reference(picture.contiguous(memory_format=torch.channels_last))
            self._static = decoder.static()
            self._frames_state = decoder.first_state()
            self._sound_state = encoder.silent_state()
            still = silent_features(encoder, self._group + 2 * LOOK_AHEAD)
            self._features = still[:LOOK_AHEAD]
            state = dit.conditioner(still[None, None])
            _, self._past = dit.denoise(self._static, self._static, torch.zeros(1), state, dit.no_past())

    @torch.no_grad()
    def push(self, waveform: Floats) -> Bytes:
        """Take whole video frames of sound, float32 [640 * n]; the frames that can be shown now, uint8 [m, H, W, 3].

        A frame is shown when the sound of `LOOK_AHEAD` frames after its latent is there.
        """
        features, self._sound_state = self._encoder(torch.from_numpy(waveform.copy())[None], self._sound_state)
        self._features = torch.cat((self._features, features[0]))
        shown = []
        while len(self._features) >= self._group + 2 * LOOK_AHEAD:
            shown.append(self._latent(self._features[: self._group + 2 * LOOK_AHEAD]))
            self._features = self._features[self._group :]
        size = self._decoder.config.image_size
        return np.concatenate(shown) if shown else np.zeros((0, size, size, 3), np.uint8)

    def _latent(self, features: Tensor) -> Bytes:
        state = self._dit.conditioner(features[None, None])
        latent = self._noise(self._made)
        self._made += 1
        for level, lower in pairwise(self._levels):
            timestep = torch.tensor([1000.0 * level])
            velocity, _ = self._dit.denoise(latent, self._static, timestep, state, self._past)
            latent = latent + (lower - level) * velocity
        _, self._past = self._dit.denoise(latent, self._static, torch.zeros(1), state, self._past)
        frames, self._frames_state = self._decoder.decode(latent, self._frames_state, self._reference)
        pixels = ((frames[0].clamp(-1, 1) + 1) * 127.5).round().byte()
        return np.asarray(pixels.permute(1, 2, 3, 0).numpy())


def talk(
    decoder: MotionDecoder, dit: CausalDiT, encoder: CausalAudioEncoder, portrait: Bytes, waveform: Floats, seed: int
) -> Bytes:
    """The frames of a whole sound, uint8 [samples / 640, H, W, 3]; after its end comes silence."""
    generator, shape = torch.Generator().manual_seed(seed), (1, decoder.config.latent_channels, 1, 1, 1)
    stream = Stream(decoder, dit, encoder, portrait, lambda _: torch.randn(shape, generator=generator))
    frames = len(waveform) // FRAME_SAMPLES
    padded = np.zeros((frames + LOOK_AHEAD + decoder.config.temporal_compression) * FRAME_SAMPLES, np.float32)
    padded[: frames * FRAME_SAMPLES] = waveform[: frames * FRAME_SAMPLES]
    return stream.push(padded)[:frames]
