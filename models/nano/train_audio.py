"""Pre-trains nano's audio encoder to tell the mouth's parameters, frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.models.audio_encoder import AudioEncoder, AudioEncoderConfig

from .optim import Muon
from .training import Clock, Journal, load_checkpoint, prefetch, save_checkpoint

MOUTH_COLUMNS = 5
SAMPLES_PER_FRAME = 640
PAST_FRAMES = 50
WINDOW_FRAMES = 50

NANO_AUDIO = AudioEncoderConfig(
    conv_dim=(96, 96, 128, 128, 128, 128, 128),
    feat_extract_norm="layer",
    hidden_size=160,
    num_hidden_layers=3,
    num_attention_heads=5,
    intermediate_size=480,
    num_conv_pos_embeddings=15,
    num_conv_pos_embedding_groups=8,
    do_stable_layer_norm=True,
    norm_eps=1e-3,
)


class AudioTrainee(nn.Module):
    """The encoder with a linear head on all its layers."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.encoder = AudioEncoder(config)
        self.head = nn.Linear(config.num_hidden_layers * config.hidden_size, MOUTH_COLUMNS)
        nn.init.zeros_(self.head.weight)

    def forward(self, waveforms: Tensor) -> Tensor:
        """[B, samples] -> [B, frames, 5]."""
        return self.head(self.encoder.encode(waveforms).flatten(2))


def window(waveform: np.ndarray, end: int) -> np.ndarray:
    """The `WINDOW_FRAMES` frames of audio that end where frame `end` of the clip begins: float32 [samples]."""
    stop = (PAST_FRAMES + end) * SAMPLES_PER_FRAME
    return np.asarray(waveform[stop - WINDOW_FRAMES * SAMPLES_PER_FRAME : stop], np.float32)


def make_batch(folder: Path, rng: np.random.Generator, batch: int) -> dict[str, Tensor]:
    """Windows `waveform` [B, samples] with `mouth` [B, frames, 5] and `known` [B, frames] (frames of the clip)."""
    waveforms = np.load(folder / "waveform.npy", mmap_mode="r")
    motions = np.load(folder / "motion.npy", mmap_mode="r")
    waves, mouths, knowns = [], [], []
    for index in rng.integers(0, len(motions), batch):
        end = int(rng.integers(24, motions.shape[1] + 1))
        wave = window(waveforms[index], end) * np.float32(10 ** rng.uniform(-0.5, 0.2))
        if rng.random() < 0.3:
            wave = wave + rng.normal(0, 10 ** rng.uniform(-4, -2), wave.shape).astype(np.float32)
        mouth = np.zeros((WINDOW_FRAMES, MOUTH_COLUMNS), np.float32)
        known = np.zeros(WINDOW_FRAMES, np.float32)
        have = min(end, WINDOW_FRAMES)
        mouth[-have:] = motions[index, end - have : end, :MOUTH_COLUMNS]
        known[-have:] = 1
        waves.append(wave)
        mouths.append(mouth)
        knowns.append(known)
    return {
        "waveform": torch.from_numpy(np.stack(waves)),
        "mouth": torch.from_numpy(np.stack(mouths)),
        "known": torch.from_numpy(np.stack(knowns)),
    }


@torch.no_grad()
def evaluate(model: AudioTrainee, folder: Path) -> dict[str, float]:
    """Correlation of the head's mouth opening with the truth over the held-out clips' last 40 frames."""
    waveforms = np.load(folder / "waveform.npy")
    motions = np.load(folder / "motion.npy")
    waves = torch.from_numpy(np.stack([window(wave, motions.shape[1]) for wave in waveforms]))
    found = np.concatenate([model(part).numpy() for part in waves.split(20)])[:, -40:, 0]
    truth = motions[:, -40:, 0]
    inner = [x.reshape(len(x), -1, 8) - x.reshape(len(x), -1, 8).mean(-1, keepdims=True) for x in (found, truth)]
    return {
        "corr": float(np.corrcoef(found.ravel(), truth.ravel())[0, 1]),
        "corr_within": float(np.corrcoef(inner[0].ravel(), inner[1].ravel())[0, 1]),
        "corr_last_frames": float(np.corrcoef(found[:, -3:].ravel(), truth[:, -3:].ravel())[0, 1]),
    }


def train(data: Path, out: Path, minutes: float, config: AudioEncoderConfig = NANO_AUDIO, *, batch: int = 24) -> None:
    """Train for `minutes` (all resumptions together); state and log go to `out`."""
    torch.manual_seed(1)
    model = AudioTrainee(config)
    optimiser = Muon(model, lr=0.02, adam_lr=2e-3, adam_names=("head", "conv_layers.0", "pos_conv"))
    folder = out / "audio"
    elapsed = load_checkpoint(folder, model, optimiser)
    if elapsed >= minutes * 60:
        return
    clock = Clock(minutes * 60, elapsed, warmup=20)
    journal = Journal(out / "log.jsonl", "audio")
    run = torch.compile(model, dynamic=False)
    step, running = optimiser.step_count, 0.0
    last_save = last_eval = clock.elapsed
    for example in prefetch(lambda rng: make_batch(data / "train", rng, batch), seed=step):
        with torch.autocast("cpu", torch.bfloat16):
            found = run(example["waveform"]).float()
        error = F.smooth_l1_loss(found, example["mouth"], reduction="none", beta=0.1).mean(-1)
        loss = (error * example["known"]).sum() / example["known"].sum()
        loss.backward()
        optimiser.step(clock.factor)
        step += 1
        running = 0.95 * running + 0.05 * loss.item() if running else loss.item()
        if step % 50 == 0:
            journal.write(step=step, seconds=round(clock.elapsed), factor=clock.factor, loss=running)
        if clock.elapsed - last_eval > 120 or clock.done:
            last_eval = clock.elapsed
            journal.write(step=step, seconds=round(clock.elapsed), held_out=evaluate(model, data / "heldout"))
        if clock.elapsed - last_save > 120 or clock.done:
            save_checkpoint(folder, model, optimiser, clock.elapsed)
            last_save = clock.elapsed
        if clock.done:
            break
