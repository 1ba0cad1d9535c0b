"""Trains the block-causal DiT: flow matching over the clean latents before, to the life and the speech of the data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.models.causal.dit import CausalDiT, CausalDiTConfig
from rap_edge.models.causal.motion_decoder import MotionEncoder

from ..data.life import life
from ..data.renderer import MOTION_COLUMNS, MOUTH_COLUMNS
from .optim import Muon
from .stage import prefetch
from .state import Course, Schedule
from .train_audio import LOOK_AHEAD, AudioTrainee, Sounds, features_of, silent_features, told_mouth

FRAMES = 240
GROUP = 4
COLUMNS = len(MOTION_COLUMNS)
CONTEXT_NOISE = 0.25  # at most this share of noise is in the past, as generated latents are not exact either


class Clips:
    """Endless clips of speech and life: sounds with the motion of a head that begins as the portrait.

    Args:
        sounds: where the voices come from.
    """

    def __init__(self, sounds: Sounds) -> None:
        self.sounds = sounds

    def one(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Clean sound [FRAMES * 640] and motion [GROUP + FRAMES, 13]; the first group is the portrait."""
        wave, mouth = self.sounds.track(rng, FRAMES)
        return wave, _motion(rng, mouth)

    def motions(self, rng: np.random.Generator, size: int) -> Tensor:
        """Motion [B, GROUP + FRAMES, 13] of `size` clips."""
        return torch.from_numpy(np.stack([_motion(rng, self.sounds.mouth(rng, FRAMES)) for _ in range(size)]))

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        """`size` clips: `waveform` [B, FRAMES * 640] as it arrives and `motion` [B, GROUP + FRAMES, 13]."""
        waves, motions = zip(*(self.one(rng) for _ in range(size)), strict=True)
        heard = np.stack([self.sounds.heard(rng, wave) for wave in waves])
        return {"waveform": torch.from_numpy(heard), "motion": torch.from_numpy(np.stack(motions))}


def _motion(rng: np.random.Generator, mouth: np.ndarray) -> np.ndarray:
    """A mouth [FRAMES, 5] with a life of its own, [GROUP + FRAMES, 13]."""
    motion = np.zeros((GROUP + FRAMES, COLUMNS), np.float32)
    motion[GROUP:, :MOUTH_COLUMNS] = mouth
    motion[GROUP:, MOUTH_COLUMNS:] = life(rng, FRAMES)
    return motion


@torch.no_grad()
def statistics(encoder: MotionEncoder, sounds: Sounds, clips: int = 64) -> tuple[Tensor, Tensor]:
    """Mean and deviation [C] of the raw latents of `clips` clips."""
    raw = encoder(Clips(sounds).motions(np.random.default_rng(5), clips)).flatten(0, 1)
    return raw.mean(0), raw.std(0).clamp_min(1e-2)


class DiTTrainee(nn.Module):
    """The DiT with the frozen reader of motion that the decoder was trained with."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: CausalDiTConfig, reader: nn.Linear, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.dit = CausalDiT(config)
        self.reader = reader.requires_grad_(False)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(
        self, clean: Tensor, past: Tensor, noise: Tensor, level: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Flow error as it is and as it is seen, and the mouth's motion of the clean latents that follow from it.

        Args:
            clean: normalised latents [B, N, C]; the first is the portrait's.
            past: the same, as inexact as they will be.
            noise: [B, N, C].
            level: [B, N] in 0..1.
            features: [B, N, frames, width].

        Returns:
            Squared error [B, N, C], the same of the motion that is read from it [B, N, 4, 13], every column counted by
            how much it moves, and mouth [B, N, 4, 5].
        """
        share = level.unsqueeze(-1)
        noisy = (1 - share) * clean + share * noise
        velocity = self.dit(past, noisy, 1000.0 * level, features, clean[:, 0])
        error = velocity - (noise - clean)
        seen = F.linear(error * self.std, self.reader.weight).unflatten(-1, (GROUP, COLUMNS))
        moves = self._read(clean).var((0, 1, 2)).clamp_min(1e-3)
        return error.square(), seen.square() / moves, self._read(noisy - share * velocity)[..., :MOUTH_COLUMNS]

    def _read(self, latents: Tensor) -> Tensor:
        motion: Tensor = self.reader(latents * self.std + self.mean).unflatten(-1, (GROUP, COLUMNS))
        return motion


def known_statistics(out: Path) -> tuple[Tensor, Tensor] | None:
    """What `keep_statistics` wrote, None if it did not."""
    file = out / "latents.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    return torch.tensor(found["mean"]), torch.tensor(found["std"])


def keep_statistics(out: Path, mean: Tensor, std: Tensor) -> None:
    """Write mean and deviation of the raw latents, which the DiT's latents are counted in."""
    text = json.dumps({"mean": mean.tolist(), "std": std.tolist()})
    (out / "latents.json").write_text(text, encoding="utf-8")


@torch.no_grad()
def prepared(
    example: dict[str, Tensor], audio: AudioTrainee, encoder: MotionEncoder, mean: Tensor, std: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised latents [B, 1 + k, C], features [B, 1 + k, 10, width] and motion of a batch of `Clips`.

    The mouth is the one that the sound tells, not the true one: what cannot be heard would have to be guessed anew in
    every stream, and a guess follows speech less well than the mean of all guesses does.
    """
    heard = features_of(audio.encoder, example["waveform"])
    motion = example["motion"].clone()
    motion[:, GROUP:, :MOUTH_COLUMNS] = told_mouth(audio, heard)
    still = silent_features(audio.encoder, GROUP + 2 * LOOK_AHEAD)
    features = torch.cat((still.expand(len(heard), 1, -1, -1), heard), dim=1)
    return (encoder(motion) - mean) / std, features, motion


def train(
    data: Path,
    out: Path,
    steps: int,
    config: CausalDiTConfig,
    audio: AudioTrainee,
    reader: nn.Linear,
    encoder: MotionEncoder,
    *,
    batch: int = 6,
) -> None:
    """Train to `steps` steps, all runs together; state, log and the latents' statistics go to `out`.

    Args:
        audio: of the sound, final.
        reader, encoder: of the motion, final.

    Raises:
        TrainingError: there are no tracks, or the loss is not finite.
    """
    sounds = Sounds(data / "speech")
    mean, std = known_statistics(out) or statistics(encoder, sounds)
    keep_statistics(out, mean, std)
    torch.manual_seed(2)
    model = DiTTrainee(config, reader, mean, std)
    names = ("modulation", "patch_embedding", "head.weight", "time_embedding")
    optimiser = Muon(model, lr=0.01, adam_lr=1e-3, adam_names=names)
    course = Course(out, "dit", model, optimiser, Schedule(steps, fall=0.5), decay=0.999, smoothing=0.98)
    if course.over:
        return
    clips = Clips(sounds)
    generator = torch.Generator().manual_seed(course.step)
    batches = prefetch(lambda rng: clips.batch(rng, batch), seed=course.step)
    while not course.over:
        clean, features, motion = prepared(dict(next(batches)), audio, encoder, mean, std)
        noise, other = (torch.randn(clean.shape, generator=generator) for _ in range(2))
        level = torch.rand(clean.shape[:2], generator=generator)
        bell = torch.sigmoid(torch.randn(clean.shape[:2], generator=generator))
        level = torch.where(torch.rand(clean.shape[:2], generator=generator) < 0.5, level, bell)
        inexact = CONTEXT_NOISE * torch.rand(batch, 1, 1, generator=generator) ** 2
        error, seen, mouth = model(clean, clean + inexact * other, noise, level, features)
        truth = motion.unflatten(1, (-1, GROUP))[..., :MOUTH_COLUMNS]
        lips = ((mouth - truth).abs().mean((-1, -2)) * (1 - level))[:, 1:].mean()
        flow, parts = error[:, 1:].mean(), seen[:, 1:].mean()
        course.learn(flow + 0.3 * parts + 0.5 * lips, {"flow": flow, "parts": parts, "lips": lips})
