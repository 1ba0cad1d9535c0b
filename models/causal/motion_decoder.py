"""A decoder of motion: a latent says how some frames move, and the portrait says everything else.

The reference encoder reads the portrait once per session. The decoder bends the portrait with a smooth flow, as the
latent tells it, adds a finer flow for what slides over the face, irises and lips, and paints only what no bending can
show: the inside of the mouth and closed lids. Warping a portrait by motion latents is the way of LIA (arXiv
2203.09043). A latent is learned from the motion that the drawn training data knows of its frames, counted from the
portrait, so the portrait's own latent is that of no motion.

The decoder is causal: the frames of a latent depend on it and on the state that the latent before it left behind, an
explicit input and output. What is computed per frame depends on the frame's code and the portrait alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.runtime.checks.bounds import Count, Real, Whole

from ..config import check_config, check_rules
from ..norms import ChannelNorm

Reference = tuple[Tensor, Tensor, Tensor, Tensor]
"""A portrait [B, 3, H, W] in -1..1 and its features at 1/4, 1/8 and 1/16 of its side."""

_WIDTHS = Whole(1, 1024)


@dataclass(frozen=True, kw_only=True)
class MotionDecoderConfig:
    """Sizes and latent statistics of a motion decoder.

    Attributes:
        latent_channels: numbers in a latent.
        temporal_compression: frames per latent after the first.
        image_size: side of a frame in pixels.
        patch: side of the pixel patch that a cell of the finest feature map stands for.
        widths: channels at 1/4, 1/8 and 1/16 of the side.
        deep_width: channels at 1/32, where the portrait is seen as a whole.
        code_width: numbers that tell the decoder how one frame moves.
        state_width: numbers that a latent leaves to the next one.
        motion_columns: numbers that say how one frame moves, as the training data tells it.
        reach: the flow that the value 1 stands for, in sides of the picture.
        latents_mean: per channel, the mean of the raw latents over the training set; empty before it is measured.
        latents_std: per channel, their deviation.
        eps: epsilon of the normalisations.
    """

    latent_channels: Annotated[int, Whole(1, 1024)] = 32
    temporal_compression: Annotated[int, Whole(2, 64)] = 4
    image_size: Annotated[int, Whole(32, 4096, "pixels")] = 256
    patch: Annotated[int, Whole(1, 64)] = 4
    widths: Annotated[tuple[Annotated[int, _WIDTHS], ...], Count(3)] = (48, 64, 128)
    deep_width: Annotated[int, _WIDTHS] = 160
    code_width: Annotated[int, _WIDTHS] = 96
    state_width: Annotated[int, _WIDTHS] = 128
    motion_columns: Annotated[int, Whole(1, 1024)] = 13
    reach: Annotated[float, Real(1e-4, 1.0)] = 0.05
    latents_mean: Annotated[tuple[Annotated[float, Real(-1e6, 1e6)], ...], Count(1024)] = ()
    latents_std: Annotated[tuple[Annotated[float, Real(0.0, 1e6)], ...], Count(1024)] = ()
    eps: Annotated[float, Real(0.0, 1.0)] = 1e-4

    def validate(self) -> MotionDecoderConfig:
        """Return self if the network can be built.

        Raises:
            CheckpointError: names the first value that cannot work.
        """
        check_config(self, "motion decoder")
        check_rules(
            "motion decoder",
            (len(self.widths) == 3, "widths needs three entries"),
            (self.image_size % (8 * self.patch) == 0, "image_size must be a multiple of 8 patches"),
            (
                len(self.latents_mean) == len(self.latents_std) and len(self.latents_mean) in (0, self.latent_channels),
                "latents_mean and latents_std need one value per latent channel",
            ),
        )
        return self


class Block(nn.Module):
    """Residual block: norm, SiLU, 3x3 convolution, SiLU, 3x3 convolution; a code scales and shifts between them."""

    def __init__(self, width: int, eps: float, code_width: int = 0) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, eps)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.normal_(self.conv2.weight, std=0.1 * (9 * width) ** -0.5)
        self.style = nn.Linear(code_width, 2 * width) if code_width else None

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """[B, C, H, W] and codes [B, code_width] -> [B, C, H, W]."""
        y = self.conv1(F.silu(self.norm(x)))
        if self.style is not None and code is not None:
            scale, shift = self.style(code).unsqueeze(-1).unsqueeze(-1).chunk(2, dim=1)
            y = y * (1 + scale) + shift
        result: Tensor = x + self.conv2(F.silu(y))
        return result


class Finer(nn.Module):
    """Twice the height and width: a 1x1 convolution to four cells each."""

    def __init__(self, width: int, finer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * finer, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, finer, 2 H, 2 W]."""
        return F.pixel_shuffle(self.conv(x), 2)


class ReferenceEncoder(nn.Module):
    """A portrait to feature maps that know what lies where: down to 1/32 of its side and up again."""

    def __init__(self, config: MotionDecoderConfig) -> None:
        super().__init__()
        self.patch = config.patch
        fine, middle, coarse = config.widths
        deep, eps = config.deep_width, config.eps
        self.inlet = nn.Conv2d(3 * config.patch**2, fine, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, out, 3, stride=2, padding=1), Block(out, eps))
            for width, out in ((fine, middle), (middle, coarse), (coarse, deep))
        )
        self.whole = Block(deep, eps)
        self.up = nn.ModuleList(Finer(width, out) for width, out in ((deep, coarse), (coarse, middle), (middle, fine)))
        self.mix = nn.ModuleList(Block(width, eps) for width in (coarse, middle, fine))

    def forward(self, portrait: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] in -1..1 -> features at 1/4, 1/8 and 1/16 of the side."""
        maps = [self.inlet(F.pixel_unshuffle(portrait, self.patch))]
        for down in self.down:
            maps.append(down(maps[-1]))
        x = self.whole(maps.pop())
        found = []
        for up, mix in zip(self.up, self.mix, strict=True):
            x = mix(up(x) + maps.pop())
            found.append(x)
        coarse, middle, fine = found
        return fine, middle, coarse


class MotionEncoder(nn.Module):
    """The known motion of groups of frames to their latents."""

    def __init__(self, config: MotionDecoderConfig) -> None:
        super().__init__()
        self.compression = config.temporal_compression
        width = 2 * config.state_width
        self.group = nn.Sequential(
            nn.Linear(config.temporal_compression * config.motion_columns, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, config.latent_channels),
        )

    def forward(self, motion: Tensor) -> Tensor:
        """Motion [B, temporal_compression * k, columns], counted from the portrait's -> raw latents [B, k, C]."""
        result: Tensor = self.group(motion.unflatten(1, (-1, self.compression)).flatten(2))
        return result


class CodeDecoder(nn.Module):
    """Latents to the codes of their frames; what a latent leaves to the next one is its state."""

    def __init__(self, config: MotionDecoderConfig) -> None:
        super().__init__()
        self.compression = config.temporal_compression
        width = config.state_width
        self.inlet = nn.Sequential(nn.Linear(config.latent_channels, width), nn.SiLU(), nn.Linear(width, width))
        self.codes = nn.Sequential(
            nn.SiLU(),
            nn.Linear(2 * width, 3 * width),
            nn.SiLU(),
            nn.Linear(3 * width, config.temporal_compression * config.code_width),
        )

    def forward(self, latents: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Raw latents [B, k, C] and the state before them [B, 1, width] -> codes [B, k * compression, code], state."""
        x = torch.cat((state, self.inlet(latents)), dim=1)
        codes = self.codes(torch.cat((x[:, :-1], x[:, 1:]), dim=-1))
        return codes.unflatten(-1, (self.compression, -1)).flatten(1, 2), x[:, -1:]


class FrameDecoder(nn.Module):
    """A frame from its code and the portrait: bends the portrait and paints over it where a mask says so."""

    def __init__(self, config: MotionDecoderConfig) -> None:
        super().__init__()
        self.patch, self.reach = config.patch, config.reach
        fine, middle, coarse = config.widths
        eps, code = config.eps, config.code_width
        self.coarse = nn.ModuleList(Block(coarse, eps, code) for _ in range(2))
        self.to_middle = Finer(coarse, middle)
        self.middle = Block(middle, eps, code)
        self.flow = nn.Conv2d(middle, 2, 3, padding=1)
        self.to_fine = Finer(middle, fine)
        self.fine = Block(fine, eps, code)
        self.near_flow = nn.Conv2d(fine, 2, 3, padding=1)
        for flow in (self.flow, self.near_flow):
            nn.init.normal_(flow.weight, std=1e-3)
            nn.init.zeros_(flow.bias)  # type: ignore[arg-type]  # there is one
        pixels = nn.Conv2d(fine, 4 * config.patch**2, 3, padding=1)
        self.out = nn.Sequential(ChannelNorm(fine, eps), nn.SiLU(), pixels)
        with torch.no_grad():
            # Channels of the mask follow those of the colours.
            pixels.bias[3 * config.patch**2 :] = -2.0  # type: ignore[index]  # there is one

    def forward(self, codes: Tensor, reference: Reference) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes [B * T, code_width] and the references of B clips.

        Returns:
            Frames [B * T, 3, H, W] in about -1..1, the smooth flow [B * T, 2, H / 8, W / 8] (x, y) in half sides from a
            place to where the portrait shows it, the finer one that the portrait is bent by, at 1/4, and the mask
            [B * T, 1, H, W] in 0..1 of what is painted.
        """
        portrait, fine, middle, coarse = (spread(each, codes.shape[0]) for each in reference)
        x = coarse
        for block in self.coarse:
            x = block(x, codes)
        x = self.middle(self.to_middle(x) + middle, codes)
        flow = self.reach * self.flow(x)
        x = self.fine(self.to_fine(x) + bend(fine, flow), codes)
        painted, mask = F.pixel_shuffle(self.out(x), self.patch).split((3, 1), dim=1)
        mask = torch.sigmoid(mask)
        near = F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
        near = near + self.reach * self.near_flow(x)
        bent = bend(portrait, near)
        return bent + mask * (painted - bent), flow, near, mask


def spread(features: Tensor, count: int) -> Tensor:
    """Each of B portraits' features for its `count / B` frames."""
    return features if features.shape[0] == count else features.repeat_interleave(count // features.shape[0], 0)


def bend(image: Tensor, flow: Tensor) -> Tensor:
    """Images [B, C, H, W] sampled at every place plus the flow [B, 2, h, w], half sides; bilinear, edges repeated."""
    height, width = image.shape[-2:]
    moved = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    rows = (torch.arange(height, dtype=image.dtype, device=image.device) * 2 + 1) / height - 1
    columns = (torch.arange(width, dtype=image.dtype, device=image.device) * 2 + 1) / width - 1
    x, y = moved[:, 0] + columns, moved[:, 1] + rows.unsqueeze(1)
    grid = torch.stack((x, y), dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


class MotionDecoder(nn.Module):
    """Frames from normalised latents and a portrait.

    Latents are [B, C, k, 1, 1] of about unit variance: a latent has no places, the portrait has them. Latent 0 is one
    frame, the portrait; every later latent is `temporal_compression` frames.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: MotionDecoderConfig) -> None:
        super().__init__()
        self.config = config.validate()
        self.reference_encoder = ReferenceEncoder(config)
        self.motion_encoder = MotionEncoder(config)
        self.code_decoder = CodeDecoder(config)
        self.frame_decoder = FrameDecoder(config)
        for half in (self.motion_encoder, self.code_decoder):
            for layer in half.modules():
                if isinstance(layer, nn.Linear):
                    # The usual, smaller weights would let a latent's influence die out on the way.
                    nn.init.kaiming_normal_(layer.weight)
        channels = config.latent_channels
        self.register_buffer("latents_mean", torch.tensor(config.latents_mean or (0.0,) * channels), persistent=False)
        self.register_buffer("latents_std", torch.tensor(config.latents_std or (1.0,) * channels), persistent=False)

    def reference(self, portrait: Tensor) -> Reference:
        """Everything that a session keeps of a portrait [B, 3, H, W] in -1..1."""
        return (portrait, *self.reference_encoder(portrait))

    def encode(self, motion: Tensor) -> Tensor:
        """Motion [B, temporal_compression * k, columns] -> normalised latents [B, C, k, 1, 1]."""
        latents: Tensor = (self.motion_encoder(motion) - self.latents_mean) / self.latents_std
        return latents.transpose(1, 2).unsqueeze(-1).unsqueeze(-1)

    def static(self, batch: int = 1) -> Tensor:
        """The latent of a portrait that does not move, [B, C, 1, 1, 1]; the same for all portraits."""
        still = torch.zeros(batch, self.config.temporal_compression, self.config.motion_columns)
        return self.encode(still.to(self.latents_mean))

    def first_state(self, batch: int = 1) -> Tensor:
        """The state [B, 1, width] before the first frames: what the portrait's latent leaves behind."""
        state: Tensor = self.code_decoder.inlet(self._raw(self.static(batch)))
        return state

    def decode(self, latents: Tensor, state: Tensor, reference: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """New frames and the state after them; any split of the latents into calls gives the same frames.

        Args:
            latents: normalised latents [B, C, k, 1, 1].
            state: [B, 1, width], of the latent before them.
            reference: of B portraits.

        Returns:
            Frames [B, 3, temporal_compression * k, H, W] in about -1..1, and the next state.
        """
        codes, state = self.code_decoder(self._raw(latents), state)
        kept = (reference[0], reference[1], reference[2], reference[3])
        frames, _, _, _ = self.frame_decoder(codes.flatten(0, 1), kept)
        return frames.unflatten(0, codes.shape[:2]).transpose(1, 2), state

    def _raw(self, latents: Tensor) -> Tensor:
        return latents.flatten(2).transpose(1, 2) * self.latents_std + self.latents_mean
