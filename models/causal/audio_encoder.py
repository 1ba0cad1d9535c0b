"""A causal audio encoder: one feature per video frame from the sound up to that frame's end, in any split.

Sound becomes the logarithm of mel bands, two strided convolutions bring 100 frames per second down to the video's, and
residual blocks of dilated convolutions follow. Every convolution sees the past alone. What it saw last is one flat
state, an explicit input and output, so a stream costs the same per frame however long it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.runtime.checks.bounds import Count, Real, Whole

from ..config import check_config, check_rules

_WIDTH = Whole(1, 8192)


@dataclass(frozen=True, kw_only=True)
class CausalAudioConfig:
    """Sizes of a causal audio encoder.

    Attributes:
        sample_rate: Hz.
        samples_per_frame: audio samples per video frame, four hops.
        window: samples that a band's value is computed from.
        bands: mel bands.
        lowest, highest: Hz where they begin and end.
        stem: channels at 100 and at 50 frames per second.
        width: of the features.
        dilations: of the residual blocks, one each.
        kernel: taps of every dilated convolution.
        expansion: inner width of a block over its width.
        floor: power under which bands are silent.
        eps: epsilon of the normalisations.
    """

    sample_rate: Annotated[int, Whole(1000, 768_000, "Hz")] = 16_000
    samples_per_frame: Annotated[int, Whole(4, 768_000)] = 640
    window: Annotated[int, Whole(4, 768_000)] = 400
    bands: Annotated[int, Whole(1, 1024)] = 64
    lowest: Annotated[float, Real(0.0, 1e5, "Hz")] = 60.0
    highest: Annotated[float, Real(1.0, 1e6, "Hz")] = 7600.0
    stem: Annotated[tuple[Annotated[int, _WIDTH], ...], Count(2)] = (128, 192)
    width: Annotated[int, _WIDTH] = 256
    dilations: Annotated[tuple[Annotated[int, Whole(1, 4096)], ...], Count(64)] = (1, 2, 4, 8, 1, 2, 4, 8)
    kernel: Annotated[int, Whole(2, 64)] = 3
    expansion: Annotated[int, Whole(1, 16)] = 2
    floor: Annotated[float, Real(1e-12, 1.0)] = 1e-5
    eps: Annotated[float, Real(0.0, 1.0)] = 1e-5

    @property
    def hop(self) -> int:
        """Samples between two values of a band."""
        return self.samples_per_frame // 4

    def validate(self) -> CausalAudioConfig:
        """Return self if the network can be built.

        Raises:
            CheckpointError: names the first value that cannot work.
        """
        check_config(self, "causal audio encoder")
        check_rules(
            "causal audio encoder",
            (self.samples_per_frame % 4 == 0, "samples_per_frame must be a multiple of 4"),
            (self.window >= self.hop, "window must be at least a quarter of samples_per_frame"),
            (len(self.stem) == 2, "stem needs two entries"),
            (self.lowest < self.highest <= self.sample_rate / 2, "highest must lie between lowest and half the rate"),
        )
        return self


class CausalConv(nn.Module):
    """A convolution over time that sees the past alone and keeps the inputs that it will see again."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.width, self.kept = width, (kernel - 1) * dilation - (stride - 1)
        self.conv = nn.Conv1d(width, out, kernel, stride, dilation=dilation)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """[B, width, T] and the past inputs [B, width, kept] -> [B, out, T / stride] and the next past."""
        seen = torch.cat((past, x), dim=2)
        return self.conv(seen), seen[:, :, seen.shape[2] - self.kept :]


class CausalBlock(nn.Module):
    """Residual block: norm, dilated convolution, SiLU, 1x1 convolution, per time step normalised."""

    def __init__(self, config: CausalAudioConfig, dilation: int) -> None:
        super().__init__()
        inner = config.expansion * config.width
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.conv = CausalConv(config.width, inner, config.kernel, dilation=dilation)
        self.out = nn.Conv1d(inner, config.width, 1)
        nn.init.normal_(self.out.weight, std=0.3 * inner**-0.5)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """[B, width, T] and the past -> [B, width, T] and the next past."""
        y, past = self.conv(self.norm(x.transpose(1, 2)).transpose(1, 2), past)
        return x + self.out(F.silu(y)), past


class CausalAudioEncoder(nn.Module):
    """Features of whole video frames of sound, `samples_per_frame` each."""

    window: Tensor
    mel: Tensor

    def __init__(self, config: CausalAudioConfig) -> None:
        super().__init__()
        self.config = config.validate()
        slow, faster = config.stem
        self.stem = nn.ModuleList(
            (
                CausalConv(config.bands, slow, 5),
                CausalConv(slow, faster, 4, stride=2),
                CausalConv(faster, config.width, 4, stride=2),
            )
        )
        self.blocks = nn.ModuleList(CausalBlock(config, dilation) for dilation in config.dilations)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.register_buffer("window", torch.from_numpy(_fourier(config)), persistent=False)
        self.register_buffer("mel", torch.from_numpy(_mel(config)), persistent=False)

    @property
    def state_shapes(self) -> tuple[tuple[int, int], ...]:
        """Width and length of every part of the state, in order: samples, then every convolution's past."""
        convolutions = [*self.stem, *(block.conv for block in self.blocks)]
        return ((1, self.config.window - self.config.hop), *((conv.width, conv.kept) for conv in convolutions))

    @property
    def state_size(self) -> int:
        """Numbers in a state."""
        return sum(width * length for width, length in self.state_shapes)

    def silent_state(self, batch: int = 1) -> Tensor:
        """The state after endless silence, [B, state_size]."""
        # As many frames as the network remembers: from then on silence changes nothing.
        frames = 8 + sum(length for _, length in self.state_shapes[1:])
        silence = torch.zeros(1, frames * self.config.samples_per_frame, dtype=self.mel.dtype)
        with torch.no_grad():
            _, state = self(silence, torch.zeros(1, self.state_size, dtype=self.mel.dtype))
        result: Tensor = state.expand(batch, -1)
        return result

    def forward(self, waveform: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """New sound and what was before it.

        Args:
            waveform: [B, samples_per_frame * T].
            state: [B, state_size], `silent_state` at first, later what this gave.

        Returns:
            Features [B, T, width], the last one up to the last sample, and the next state.
        """
        batch = waveform.shape[0]
        sizes = [width * length for width, length in self.state_shapes]
        parts = [
            part.reshape(batch, *shape)
            for part, shape in zip(state.split(sizes, dim=1), self.state_shapes, strict=True)
        ]
        sound = torch.cat((parts[0].squeeze(1), waveform), dim=1)
        kept = [sound[:, sound.shape[1] - (self.config.window - self.config.hop) :].unsqueeze(1)]
        x = self.log_mel(sound)
        for conv, past in zip(self.stem, parts[1:4], strict=True):
            x, last = conv(x, past)
            kept.append(last)
            x = F.silu(x)
        for block, past in zip(self.blocks, parts[4:], strict=True):
            x, last = block(x, past)
            kept.append(last)
        features = self.norm(x.transpose(1, 2))
        return features, torch.cat([part.flatten(1) for part in kept], dim=1)

    def log_mel(self, sound: Tensor) -> Tensor:
        """Sound [B, window - hop + hop * N] -> bands [B, bands, N] of about unit size."""
        waves = F.conv1d(sound.unsqueeze(1), self.window.unsqueeze(1), stride=self.config.hop)
        real, imaginary = waves.chunk(2, dim=1)
        power = torch.matmul(self.mel, real.square() + imaginary.square())
        return (torch.log(power + self.config.floor) + 4.0) / 4.0


def _fourier(config: CausalAudioConfig) -> np.ndarray:
    """Hann-windowed cosines, then sines, float32 [2 * bins, window], scaled so that a full sine has power 1."""
    bins = config.window // 2 + 1
    angle = 2 * math.pi * np.outer(np.arange(bins), np.arange(config.window)) / config.window
    hann = np.hanning(config.window + 1)[:-1] * 4 / config.window
    return np.concatenate((np.cos(angle) * hann, np.sin(angle) * hann)).astype(np.float32)


def _mel(config: CausalAudioConfig) -> np.ndarray:
    """Triangles of equal height on the mel scale, float32 [bands, bins]."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (config.lowest, config.highest))
    edges = 700 * (10 ** (np.linspace(low, high, config.bands + 2) / 2595) - 1)
    bins = np.arange(config.window // 2 + 1) * config.sample_rate / config.window
    rows = []
    for (left, middle), right in zip(pairwise(edges[:-1]), edges[2:], strict=True):
        triangle = np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clip(0)
        # A narrow low band may lie between two bins: it takes the nearest.
        if not triangle.any():
            triangle[np.argmin(np.abs(bins - middle))] = 1.0
        rows.append(triangle)
    return np.stack(rows).astype(np.float32)
