"""Trains the causal audio encoder to tell the mouth from spoilt speech, some frames after each was heard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.models.causal.audio_encoder import CausalAudioConfig, CausalAudioEncoder

from ..data.effects import beside, music, no_voice, noise, spoil, telephone
from ..data.speech import FRAME_SAMPLES
from ..errors import TrainingError
from ..measure.mouth import CLOSED, correlation
from .optim import Muon
from .stage import prefetch
from .state import Course, Schedule

MOUTH = 5
LOOK_AHEAD = 3  # frames by which the mouth is told after its sound
FRAMES = 125
SETTLING = 30  # frames at a window's start that are not judged: the encoder does not know what was before them
MUSIC_CLIPS, MUSIC_FRAMES = 64, 250
HELD_OUT = "heldout-"


@dataclass(frozen=True)
class Bank:
    """The memory-mapped tracks of one folder of `banks`."""

    waveform: np.ndarray
    mouth: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Bank:
        """Map the arrays of `folder`."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("waveform", "mouth")))


class Sounds:
    """Spoilt windows out of all banks, and windows in which nobody speaks.

    Args:
        folder: of the banks; those whose name begins with `HELD_OUT` are left out.
        seed: of the music, whose clips are made once because that takes long.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        """Draw from the tracks in `folder`; raises `TrainingError` if there are none."""
        names = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(HELD_OUT))
        self.banks = [Bank.open(path) for path in names if path.suffix != ".part"]
        if not self.banks:
            raise TrainingError(f"{folder} holds no tracks; build some with rap_edge.models.nano.data.banks.")
        self._seed = seed
        self._music: dict[int, np.ndarray] = {}

    def music(self, rng: np.random.Generator, samples: int) -> np.ndarray:
        """A piece of the music, float32 [samples] with an RMS of about 1."""
        index = int(rng.integers(MUSIC_CLIPS))
        if index not in self._music:
            self._music[index] = music(np.random.default_rng([self._seed, index]), MUSIC_FRAMES * FRAME_SAMPLES)
        clip = self._music[index]
        return np.take(clip, int(rng.integers(len(clip))) + np.arange(samples), mode="wrap")

    def track(self, rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Clean sound [frames * 640] and mouth [frames, 5] of a random place in a random track."""
        bank, index, start = self._place(rng, frames)
        wave = np.asarray(bank.waveform[index, start * FRAME_SAMPLES : (start + frames) * FRAME_SAMPLES], np.float32)
        return wave, np.asarray(bank.mouth[index, start : start + frames], np.float32)

    def mouth(self, rng: np.random.Generator, frames: int) -> np.ndarray:
        """The mouth [frames, 5] of what `track` would give, without reading its sound."""
        bank, index, start = self._place(rng, frames)
        return np.asarray(bank.mouth[index, start : start + frames], np.float32)

    def heard(self, rng: np.random.Generator, wave: np.ndarray) -> np.ndarray:
        """A clean sound as it may arrive, at any loudness."""
        if not wave.any():
            wave = no_voice(rng, len(wave)) * np.float32(10 ** rng.uniform(-3.5, -0.9))
        else:
            wave = spoil(wave, rng, self.music)
            if rng.random() < 0.3:
                wave = wave + rng.normal(0, 10 ** rng.uniform(-4.5, -3), len(wave)).astype(np.float32)
        result: np.ndarray = np.clip(wave * np.float32(10 ** rng.uniform(-0.7, 0.4)), -1, 1).astype(np.float32)
        return result

    def window(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sound [FRAMES * 640] and mouth [FRAMES, 5]: one in eight has no voice, half are a little faster or slower."""
        if rng.random() < 0.125:
            return self.heard(rng, np.zeros(FRAMES * FRAME_SAMPLES, np.float32)), np.zeros((FRAMES, MOUTH), np.float32)
        pace = float(np.exp(rng.uniform(-0.12, 0.12))) if rng.random() < 0.5 else 1.0
        longer = math.ceil(FRAMES * pace) + 1
        wave, mouth = self.track(rng, longer)
        if pace != 1.0:
            wave = np.interp(np.arange(FRAMES * FRAME_SAMPLES) * pace, np.arange(len(wave)), wave).astype(np.float32)
            places = (np.arange(FRAMES) + 0.5) * pace - 0.5
            mouth = np.stack([np.interp(places, np.arange(longer), track) for track in mouth.T], -1)
        return self.heard(rng, wave[: FRAMES * FRAME_SAMPLES]), mouth[:FRAMES].astype(np.float32)

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        """`size` windows: `waveform` [B, FRAMES * 640] and `mouth` [B, FRAMES, 5]."""
        waves, mouths = zip(*(self.window(rng) for _ in range(size)), strict=True)
        return {"waveform": torch.from_numpy(np.stack(waves)), "mouth": torch.from_numpy(np.stack(mouths))}

    def _place(self, rng: np.random.Generator, frames: int) -> tuple[Bank, int, int]:
        """A random bank, a track of it, and the frame where `frames` of it begin."""
        bank = self.banks[int(rng.choice(len(self.banks), p=self._odds()))]
        index = int(rng.integers(len(bank.mouth)))
        return bank, index, int(rng.integers(0, bank.mouth.shape[1] - frames + 1))

    def _odds(self) -> np.ndarray:
        """Smaller banks are heard more often than their share: they hold the other voices."""
        sizes = np.sqrt([len(bank.mouth) for bank in self.banks])
        return np.asarray(sizes / sizes.sum())


class AudioTrainee(nn.Module):
    """The encoder with a linear reader of the mouth and of whether there is a voice."""

    def __init__(self, config: CausalAudioConfig) -> None:
        super().__init__()
        self.encoder = CausalAudioEncoder(config)
        self.reader = nn.Linear(config.width, MOUTH + 1)
        nn.init.zeros_(self.reader.weight)

    def forward(self, waveforms: Tensor) -> Tensor:
        """[B, samples] -> [B, frames - LOOK_AHEAD, 6]: the mouth of every frame but the last ones, and the voice."""
        state = torch.zeros(len(waveforms), self.encoder.state_size)
        features, _ = self.encoder(waveforms, state)
        result: Tensor = self.reader(features[:, LOOK_AHEAD:])
        return result


def loss_of(found: Tensor, mouth: Tensor) -> dict[str, Tensor]:
    """Terms of the loss, from `AudioTrainee.forward` and the mouth [B, frames, 5]."""
    truth = mouth[:, SETTLING:-LOOK_AHEAD]
    voiced = (F.max_pool1d(mouth[..., 0].unsqueeze(1), 9, 1, 4).squeeze(1) > 0.02).float()[:, SETTLING:-LOOK_AHEAD]
    told = found[:, SETTLING:]
    return {
        "mouth": F.smooth_l1_loss(told[..., :MOUTH], truth, beta=0.1),
        "moved": (told[:, 1:, 0] - told[:, :-1, 0] - truth[:, 1:, 0] + truth[:, :-1, 0]).abs().mean(),
        "voice": F.binary_cross_entropy_with_logits(told[..., MOUTH], voiced),
    }


@torch.no_grad()
def evaluate(model: AudioTrainee, folder: Path, count: int = 24) -> dict[str, float]:
    """Correlation of the told opening with the truth of held-out tracks, as spoken and spoilt, and closed mouths."""
    figures = {}
    for path in sorted(folder.glob(f"{HELD_OUT}*")):
        bank, name = Bank.open(path), path.name.removeprefix(HELD_OUT)
        rng = np.random.default_rng(0)
        mouth = np.asarray(bank.mouth[:count, SETTLING:-LOOK_AHEAD, 0], np.float64)
        clean = [np.asarray(wave, np.float32) for wave in bank.waveform[:count]]
        for way, waves in (
            ("clean", clean),
            ("music10", [beside(wave, music(rng, len(wave)), 10.0) for wave in clean]),
            ("noise10", [beside(wave, noise(rng, len(wave)), 10.0) for wave in clean]),
            ("telephone", [telephone(wave) for wave in clean]),
        ):
            told = torch.cat([model(torch.from_numpy(wave)[None]) for wave in waves])[:, SETTLING:, 0]
            figures[f"{name}_{way}"] = correlation(told.numpy(), mouth)
    rng = np.random.default_rng(1)
    quiet = np.stack([no_voice(rng, 150 * FRAME_SAMPLES) * np.float32(10 ** rng.uniform(-3, -1)) for _ in range(16)])
    figures["closed_without_voice"] = float((model(torch.from_numpy(quiet))[:, SETTLING:, 0] < CLOSED).float().mean())
    return figures


def train(data: Path, out: Path, steps: int, config: CausalAudioConfig, *, batch: int = 16) -> None:
    """Train to `steps` steps, all runs together, on the banks of `data`/speech; state and log go to `out`.

    Raises:
        TrainingError: there are no tracks, or the loss is not finite.
    """
    model = AudioTrainee(config)
    optimiser = Muon(model, lr=0.02, adam_lr=2e-3, adam_names=("reader",))
    course = Course(out, "audio", model, optimiser, Schedule(steps, fall=0.5))
    if course.over:
        return
    sounds = Sounds(data / "speech")
    batches = prefetch(lambda rng: sounds.batch(rng, batch), seed=course.step)
    while not course.over:
        example = next(batches)
        terms = loss_of(model(example["waveform"]), example["mouth"])
        course.learn(10.0 * terms["mouth"] + terms["moved"] + 0.1 * terms["voice"], terms)
        if course.step % 500 == 0 or course.over:
            with course.averaged():
                course.journal.write(step=course.step, held_out=evaluate(model, data / "speech"))


def features_of(encoder: CausalAudioEncoder, waveforms: Tensor) -> Tensor:
    """What every latent of four frames hears, from sound that began in silence.

    Args:
        waveforms: [B, 640 * 4 * k].

    Returns:
        [B, k, 10, width]: features from three frames before a latent's frames to three after them; after the end of
        the sound comes silence.
    """
    silence = torch.zeros(len(waveforms), LOOK_AHEAD * FRAME_SAMPLES)
    heard = torch.cat((waveforms, silence), dim=1)
    features, _ = encoder(heard, encoder.silent_state(len(waveforms)))
    still = silent_features(encoder, LOOK_AHEAD).expand(len(waveforms), -1, -1)
    features = torch.cat((still, features), dim=1)
    return features.unfold(1, 4 + 2 * LOOK_AHEAD, 4).transpose(2, 3)


def silent_features(encoder: CausalAudioEncoder, frames: int) -> Tensor:
    """The features of endless silence, [frames, width]."""
    features, _ = encoder(torch.zeros(1, FRAME_SAMPLES), encoder.silent_state())
    result: Tensor = features[0].expand(frames, -1)
    return result


def told_mouth(model: AudioTrainee, features: Tensor) -> Tensor:
    """The mouth [B, 4 * k, 5] in 0..1 that features [B, k, 10, width] of latents tell, see `features_of`."""
    told: Tensor = model.reader(features[:, :, 2 * LOOK_AHEAD :])[..., :MOUTH]
    return told.clamp(0, 1).flatten(1, 2)
