"""Trains the code decoder for what latents are in a stream: inexact, and a head that must not step at their joints.

The decoder's own stage teaches codes from latents of known frames. What a frame should look like decides alone there,
and a head whose slow motion drowns in the noise of latents is best shown in the middle of each latent: it stands for
four frames and steps. Here no frames are drawn. The code of a motion that stands still is the code of a pose, so any
path of the head can be asked for: from where a latent's predecessor left it to where the latent leaves it, evenly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.models.causal.motion_decoder import CodeDecoder, MotionDecoder

from ..data.life import POSES
from ..data.renderer import MOTION_COLUMNS, MOUTH_COLUMNS
from .optim import Muon
from .state import Course, Schedule
from .train_audio import Sounds
from .train_dit import Clips

NOISE = 0.08  # deviation of latents from the exact ones, raw
# How far what moves on from the latent before has come in each frame: a head goes evenly, eyes leap.
EVENLY, LEAPING = (0.25, 0.5, 0.75, 1.0), (0.25, 0.75, 1.0, 1.0)
PATHS: Mapping[str, tuple[float, ...]] = {
    **dict.fromkeys(MOTION_COLUMNS[MOUTH_COLUMNS : MOUTH_COLUMNS + POSES], EVENLY),
    **dict.fromkeys(("gaze_x", "gaze_y"), LEAPING),
}
# The frame decoder shows less than it is told: 0.6 of a turning head, 0.4 of a shifted one, 0.65 of a glance upwards.
# A mouth that is the mean of what may be heard moves less than mouths do, and few denoise steps glance too little.
GAIN: Mapping[str, float] = {
    **dict.fromkeys(("mouth_open", "mouth_wide", "mouth_round"), 1.15),
    **dict.fromkeys(("yaw", "pitch", "roll"), 1.45),
    **dict.fromkeys(("shift_x", "shift_y"), 2.0),
    "blink": 1.5,
    "gaze_x": 1.5,
    "gaze_y": 1.8,
}


class CodesTrainee(nn.Module):
    """A code decoder that begins as the trained one, with that one as its teacher.

    Args:
        decoder: trained.
    """

    ends: Tensor
    spread: Tensor

    def __init__(self, decoder: MotionDecoder) -> None:
        super().__init__()
        config = decoder.config
        self.codes = CodeDecoder(config)
        self.codes.load_state_dict(decoder.code_decoder.state_dict())
        # In a list, so that it is neither trained nor saved.
        self._known = [decoder]
        self._group = config.temporal_compression
        self._columns = [MOTION_COLUMNS.index(name) for name in PATHS]
        self.register_buffer("ends", torch.zeros(config.latent_channels + 1, len(PATHS)), persistent=False)
        self.register_buffer("spread", torch.ones(config.code_width), persistent=False)

    @torch.no_grad()
    def fit(self, motion: Tensor) -> None:
        """Learn where latents leave head and eyes, and how far codes spread, from motion [B, 4 k, 13] of many clips."""
        raw = self.raw(motion)
        raw = raw + NOISE * torch.randn(raw.shape, generator=torch.Generator().manual_seed(0))
        left = motion[:, self._group - 1 :: self._group, self._columns]
        self.ends.copy_(torch.linalg.lstsq(_with_one(raw).flatten(0, 1), left.flatten(0, 1)).solution)
        self.spread.copy_(self.still(motion[::4, ::7].flatten(0, 1)).std(0))

    def raw(self, motion: Tensor) -> Tensor:
        """Exact raw latents [B, k, C] of motion [B, 4 k, 13]."""
        found: Tensor = self._known[0].motion_encoder(motion)
        return found

    @torch.no_grad()
    def still(self, motion: Tensor) -> Tensor:
        """The teacher's codes [N, width] of motions [N, 13] that stand still."""
        teacher = self._known[0].code_decoder
        latents = self.raw(motion.unsqueeze(1).expand(-1, self._group, -1))
        codes, _ = teacher(latents, teacher.inlet(latents))
        result: Tensor = codes.mean(1)
        return result

    @torch.no_grad()
    def wanted(self, motion: Tensor, latents: Tensor) -> Tensor:
        """The motion [B, 4 (k - 1), 13] to show of latents [B, k, C] of `motion` [B, 4 k, 13], from the second on."""
        wanted = motion[:, self._group :].clone()
        left = _with_one(latents) @ self.ends
        share = torch.tensor(tuple(PATHS.values())).T
        before, after = left[:, :-1].unsqueeze(2), left[:, 1:].unsqueeze(2)
        wanted[..., self._columns] = (before + share * (after - before)).flatten(1, 2)
        for name, gain in GAIN.items():
            wanted[..., MOTION_COLUMNS.index(name)] *= gain
        wanted[..., :MOUTH_COLUMNS].clamp_(max=1.0)
        return wanted

    def forward(self, motion: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The errors of codes and of their change from frame to frame.

        Args:
            motion: [B, 4 k, 13].
            noise: [B, k, C], standard normal, by which its latents are off.
        """
        latents = self.raw(motion) + NOISE * noise
        wanted = self.still(self.wanted(motion, latents).flatten(0, 1)).unflatten(0, (len(motion), -1))
        found, _ = self.codes(latents[:, 1:], self.codes.inlet(latents[:, :1]))
        error = (found - wanted) / self.spread
        return _size(error), _size(error[:, 1:] - error[:, :-1])


def train(data: Path, out: Path, steps: int, decoder: MotionDecoder, *, batch: int = 16) -> None:
    """Train to `steps` steps, all runs together; state and log go to `out`.

    Args:
        decoder: trained. If it goes on afterwards, remove `out`/codes and train the codes again.

    Raises:
        TrainingError: there are no tracks, or the loss is not finite.
    """
    clips = Clips(Sounds(data / "speech"))
    trainee = CodesTrainee(decoder)
    trainee.fit(clips.motions(np.random.default_rng(6), 96))
    optimiser = Muon(trainee, lr=0.01, adam_lr=1e-3)
    course = Course(out, "codes", trainee, optimiser, Schedule(steps, fall=0.7), decay=0.99)
    rng, generator = np.random.default_rng([7, course.step]), torch.Generator().manual_seed(course.step)
    while not course.over:
        motion = clips.motions(rng, batch)
        shape = (batch, motion.shape[1] // decoder.config.temporal_compression, decoder.config.latent_channels)
        codes, moved = trainee(motion, torch.randn(shape, generator=generator))
        course.learn(codes + 4.0 * moved, {"codes": codes, "moved": moved})


def _with_one(latents: Tensor) -> Tensor:
    return F.pad(latents, (0, 1), value=1.0)


def _size(error: Tensor) -> Tensor:
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.5)
