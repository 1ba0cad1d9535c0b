"""Trains nano's DiT: flow matching on cached latents and audio features, on static and dynamic windows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...dit import DiT, DiTConfig
from ...nano_vae import NanoVAE
from .optim import Muon
from .stage import Clock, Journal, load_checkpoint, load_trained, prefetch, save_checkpoint
from .train_vae import AUX_COLUMNS, MotionHead

AUDIO_DROPOUT = 0.1
STATIC_SHARE = 0.5
PORTRAIT_SHARE = 0.5


class Windows:
    """Random training windows out of the cached arrays of `cache`.

    Args:
        cache: folder with `still.npy`, `moving.npy` and `features.npy`.
        data: folder of the clips, for motion and mouth boxes.
        latents: latents per window, k.
        compression: frames per latent.
        cell: pixels per latent cell.
        feature_window: feature frames around each video frame.
    """

    def __init__(self, cache: Path, data: Path, latents: int, compression: int, cell: int, feature_window: int) -> None:
        self.still = np.load(cache / "still.npy", mmap_mode="r")
        self.moving = np.load(cache / "moving.npy", mmap_mode="r")
        self.features = np.load(cache / "features.npy", mmap_mode="r")
        self.motion = np.load(data / "motion.npy", mmap_mode="r")
        self.mouth_box = np.load(data / "mouth_box.npy", mmap_mode="r")
        self.latents, self.compression, self.cell = latents, compression, cell
        self.frames = compression * (latents - 1) + 1
        self.first_end = self.motion.shape[1] - self.features.shape[1] + 1
        reach = feature_window // 2
        rolling = self.features.shape[2]
        offsets = np.arange(-reach, reach + 1)
        shown = np.arange(rolling - self.frames, rolling)
        self.taps = np.clip(shown[:, None] + offsets, 0, rolling - 1)

    def one(self, rng: np.random.Generator, index: int) -> tuple[np.ndarray, ...]:
        """Latents [k, C, h, w], reference [C, h, w], features [F, window, layers, width], mask [h, w], motion."""
        c, k = self.compression, self.latents
        length = self.motion.shape[1]
        static = rng.random() < STATIC_SHARE
        if static:
            end = int(rng.integers(self.frames, length + 1))
            start = end - self.frames
            groups = start + 1 + c * np.arange(k - 1)
            latents = np.concatenate((self.still[index, start : start + 1], self.moving[index, groups]))
            rows = np.r_[np.full(c, start), start + 1 + np.arange(c * (k - 1))]
        else:
            end = int(rng.integers(c * k, length + 1))
            start = end - c * k
            latents = self.moving[index, start + c * np.arange(k)]
            rows = start + np.arange(c * k)
        portrait = start if static and rng.random() < PORTRAIT_SHARE else int(rng.integers(0, length))
        features = self.features[index, end - self.first_end][self.taps]
        mask = np.zeros(latents.shape[-2:], np.float32)
        boxes = self.mouth_box[index][np.unique(rows)]
        x0, y0 = boxes[:, :2].min(0) // self.cell
        x1, y1 = -(-boxes[:, 2:].max(0) // self.cell)
        mask[max(y0, 0) : y1, max(x0, 0) : x1] = 1
        motion = self.motion[index][rows][:, AUX_COLUMNS].reshape(k, c, -1)
        return latents, self.still[index, portrait], features, mask, motion

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        """`size` windows: latents and reference [B, C, k, h, w], features, mask [B, h, w], motion [B, k, c, 6]."""
        parts = [self.one(rng, int(index)) for index in rng.integers(0, len(self.motion), size)]
        latents, reference, features, mask, motion = (
            torch.from_numpy(np.stack(column)).float() for column in zip(*parts, strict=True)
        )
        features *= (torch.from_numpy(rng.random(size)) >= AUDIO_DROPOUT).float().view(-1, 1, 1, 1, 1)
        latents = latents.transpose(1, 2)
        return {
            "latents": latents,
            "reference": reference.unsqueeze(2).expand_as(latents).contiguous(),
            "features": features,
            "mask": mask,
            "motion": motion,
        }


class DiTTrainee(nn.Module):
    """The DiT with the frozen motion head that the VAE was trained with, as one training step sees them."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: DiTConfig, head: MotionHead, vae: NanoVAE) -> None:
        super().__init__()
        self.dit = DiT(config)
        self.head = head.requires_grad_(False)
        self.register_buffer("latents_mean", vae.latents_mean.clone(), persistent=False)
        self.register_buffer("latents_std", vae.latents_std.clone(), persistent=False)

    def forward(
        self, latents: Tensor, noise: Tensor, time: Tensor, features: Tensor, reference: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Velocity [B, C, k, h, w] at `time` [B] in 0..1, and the motion [B, k, c, columns] of its clean latents."""
        level = time.view(-1, 1, 1, 1, 1)
        noisy = (1 - level) * latents + level * noise
        velocity = self.dit(noisy, 1000.0 * time, features, reference)
        clean = (noisy - level * velocity).transpose(1, 2)
        raw = clean.flatten(0, 1) * self.latents_std + self.latents_mean
        return velocity, self.head(raw).unflatten(0, clean.shape[:2])


def sample_times(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels in 0..1: half uniform, half logit-normal, shifted towards 1 by `shift`; stratified."""
    uniform = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    bell = torch.sigmoid(torch.randn(count, generator=generator))
    time = torch.where(torch.rand(count, generator=generator) < 0.5, uniform, bell)
    return shift * time / (1 + (shift - 1) * time)


def train(
    cache: Path,
    data: Path,
    out: Path,
    minutes: float,
    config: DiTConfig,
    head: MotionHead,
    vae: NanoVAE,
    *,
    latents: int,
    shift: float,
    batch: int = 16,
    decay: float = 0.998,
) -> DiT:
    """Train for `minutes` (all resumptions together); state, averaged weights and log go to `out`.

    Returns:
        The DiT with the exponential average of its weights.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    torch.manual_seed(2)
    windows = Windows(
        cache, data, latents, config.temporal_compression, vae.config.spatial_compression, config.feature_window
    )
    model = DiTTrainee(config, head, vae)
    average = DiTTrainee(config, head, vae)
    average.load_state_dict(model.state_dict())
    optimiser = Muon(
        model, lr=0.01, adam_lr=1e-3, adam_names=("modulation", "patch_embedding", "head.head", "time_embedding")
    )
    folder = out / "dit"
    elapsed = load_checkpoint(folder, model, optimiser)
    load_trained(out / "dit_average", average)
    if elapsed >= minutes * 60:
        return average.dit.eval()
    clock = Clock(minutes * 60, elapsed, warmup=30)
    journal = Journal(out / "log.jsonl", "dit")
    step = optimiser.step_count
    generator = torch.Generator().manual_seed(step)
    running: dict[str, float] = {}
    last_save = clock.elapsed
    for example in prefetch(lambda rng: windows.batch(rng, batch), seed=step):
        noise = torch.randn(example["latents"].shape, generator=generator)
        time = sample_times(batch, shift, generator)
        with torch.autocast("cpu", torch.bfloat16):
            velocity, motion = model(example["latents"], noise, time, example["features"], example["reference"])
        error = (velocity.float() - (noise - example["latents"])).square().mean((1, 2))
        weight = 1 + 2 * example["mask"]
        flow = (error * weight).mean() / weight.mean()
        mouth = (error * example["mask"]).sum() / example["mask"].sum()
        lips = (motion.float() - example["motion"]).abs().mean()
        (flow + 1.0 * lips).backward()
        optimiser.step(clock.factor)
        step += 1
        with torch.no_grad():
            for kept, new in zip(average.dit.parameters(), model.dit.parameters(), strict=True):
                kept.lerp_(new, 1 - min(decay, (1 + step) / (10 + step)))
        for name, value in (("flow", flow), ("mouth", mouth), ("lips", lips)):
            running[name] = 0.98 * running.get(name, value.item()) + 0.02 * value.item()
        if not math.isfinite(running["flow"]):
            raise FloatingPointError("The DiT's loss is no longer finite; lower the step size and resume.")
        if step % 100 == 0:
            journal.write(step=step, seconds=round(clock.elapsed), factor=clock.factor, **running)
        if clock.elapsed - last_save > 120 or clock.done:
            save_checkpoint(folder, model, optimiser, clock.elapsed)
            save_checkpoint(out / "dit_average", average, optimiser, clock.elapsed)
            last_save = clock.elapsed
        if clock.done:
            return average.dit.eval()
    raise AssertionError("batches are endless")
