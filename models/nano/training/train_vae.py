"""Trains the nano VAE: mouth crops and whole frames in turn, weighted on the mouth and on its movement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.runtime.errors import OutputError

from ...memory import channels_last
from ...nano_vae import NanoVAE, NanoVAEConfig
from .optim import Muon
from .stage import Clock, Journal, load_checkpoint, load_trained, prefetch, save_checkpoint

AUX_COLUMNS = (0, 1, 2, 3, 4, 10)  # the mouth's five and the blink
CROP = 128


@dataclass(frozen=True)
class Clips:
    """The memory-mapped arrays of one data set folder (see `dataset`)."""

    video: np.ndarray
    motion: np.ndarray
    mouth_box: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Clips:
        """Map the arrays of `folder`."""
        names = ("video", "motion", "mouth_box")
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


class MotionHead(nn.Module):
    """Reads each frame's mouth and blink parameters from a latent: linear values under a linear attention map."""

    def __init__(self, channels: int, compression: int) -> None:
        super().__init__()
        self.compression = compression
        self.attend = nn.Conv2d(channels, len(AUX_COLUMNS), 1)
        self.values = nn.Conv2d(channels, compression * len(AUX_COLUMNS), 1)

    def forward(self, latents: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, compression, columns]."""
        weights = self.attend(latents).flatten(2).softmax(-1).unsqueeze(1)
        values = self.values(latents).flatten(2).unflatten(1, (self.compression, -1))
        result: Tensor = (weights * values).sum(-1)
        return result


class VAETrainee(nn.Module):
    """The autoencoder with its auxiliary head, as one training step sees it."""

    def __init__(self, config: NanoVAEConfig) -> None:
        super().__init__()
        self.vae = NanoVAE(config)
        self.head = MotionHead(config.latent_channels, config.temporal_compression)
        statistics = cast(nn.Conv2d, self.vae.encoder.group[-1])
        with torch.no_grad():
            statistics.weight[config.latent_channels :] *= 0.1
            if statistics.bias is not None:
                statistics.bias.zero_()[config.latent_channels :] = -6.0

    def forward(self, groups: Tensor, noise: Tensor, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Group frames [B*k*c, 3, H, W] -> (frames [B*T, 3, H, W], motion [B*k, c, columns], KL per element).

        With as many frames as clips each frame stands for a static group.
        """
        moments = self.vae.encoder.still(groups) if len(groups) == batch else self.vae.encoder(groups)
        mean, logvar = moments.chunk(2, dim=1)
        logvar = logvar.clamp(-12.0, 4.0)
        latents = mean + torch.exp(0.5 * logvar) * noise
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).float().mean()
        return self.vae.decoder(latents, batch), self.head(latents), kl


def make_batch(
    clips: Clips, rng: np.random.Generator, batch: int, latents: int, c: int, crop: bool
) -> dict[str, Tensor]:
    """`batch` windows of `latents` groups: `groups` uint8 [B, k*c, H, W, 3], `mask` [B, H, W], `motion`.

    Half of the windows begin with a static group: one frame, repeated. One latent means single frames [B, 1, ...].
    """
    groups, masks, motions = [], [], []
    for index in rng.integers(0, clips.video.shape[0], batch):
        total = clips.video.shape[1]
        if latents == 1:
            frames = rng.integers(0, total, 1)
        elif rng.random() < 0.5:
            start = int(rng.integers(0, total - c * (latents - 1)))
            frames = np.r_[np.full(c, start), start + 1 + np.arange(c * (latents - 1))]
        else:
            frames = int(rng.integers(0, total - c * latents + 1)) + np.arange(c * latents)
        boxes = np.asarray(clips.mouth_box[index])[frames].astype(int)
        x0, y0 = boxes[:, :2].min(0)
        x1, y1 = boxes[:, 2:].max(0)
        size = clips.video.shape[2]
        left = top = 0
        side = size
        if crop:
            side = CROP
            left = int(np.clip((x0 + x1) // 2 - side // 2 + rng.integers(-20, 21), 0, size - side))
            top = int(np.clip((y0 + y1) // 2 - side // 2 + rng.integers(-20, 21), 0, size - side))
        first, last = int(frames[0]), int(frames[-1])
        pixels = np.asarray(clips.video[index, first : last + 1, top : top + side, left : left + side])
        groups.append(pixels[frames - first])
        mask = np.zeros((side, side), np.float32)
        mask[max(y0 - top, 0) : max(y1 - top, 0), max(x0 - left, 0) : max(x1 - left, 0)] = 1
        masks.append(mask)
        motions.append(np.asarray(clips.motion[index])[frames][:, AUX_COLUMNS])
    return {
        "groups": torch.from_numpy(np.stack(groups)),
        "mask": torch.from_numpy(np.stack(masks)),
        "motion": torch.from_numpy(np.stack(motions)),
    }


def losses(output: Tensor, target: Tensor, mask: Tensor, batch: int) -> dict[str, Tensor]:
    """L1 over everything and in the mouth box, of frames [B*T, 3, H, W] and of their differences in time."""
    error = (output - target).abs().mean(1).unflatten(0, (batch, -1))
    weight = mask.unsqueeze(1)
    area = weight.sum((-1, -2)).clamp_min(1)
    out, aim = output.unflatten(0, (batch, -1)), target.unflatten(0, (batch, -1))
    terms = {
        "all": error.mean(),
        "mouth": ((error * weight).sum((-1, -2)) / area).mean(),
        "coarse": F.avg_pool2d(output - target, 4).abs().mean(),
    }
    if out.shape[1] == 1:
        return terms
    moved = ((out[:, 1:] - out[:, :-1]) - (aim[:, 1:] - aim[:, :-1])).abs().mean(2)
    return terms | {
        "moved": moved.mean(),
        "moved_mouth": ((moved * weight).sum((-1, -2)) / area).mean(),
    }


WEIGHTS: Mapping[str, float] = {
    "all": 1.0,
    "mouth": 2.0,
    "coarse": 1.0,
    "moved": 0.5,
    "moved_mouth": 2.0,
    "motion": 0.3,
    "kl": 1e-5,
}


def as_input(groups: Tensor) -> Tensor:
    """uint8 [B, N, H, W, 3] -> bfloat16 [B*N, 3, H, W] in -1..1, channels last."""
    return groups.flatten(0, 1).permute(0, 3, 1, 2).bfloat16() / 127.5 - 1.0


@torch.no_grad()
def evaluate(model: VAETrainee, clips: Clips, count: int = 12) -> dict[str, float]:
    """PSNR (dB) whole and in the mouth, and the mouth's correlations on held-out clips, from the posterior mean.

    The mouth's opening is read from pixels: the mean in the mouth box along the direction in RGB and place that
    predicts the truth's `mouth_open` best on the original frames (least squares, per clip).
    """
    c = model.vae.config.temporal_compression
    whole, mouth, estimated, truth = [], [], [], []
    for index in range(min(count, clips.video.shape[0])):
        total = (clips.video.shape[1] - 1) // c * c + 1
        video = torch.from_numpy(np.array(clips.video[index, :total])).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            out = model.vae.decode(model.vae.encode(video)).float().clamp(-1, 1)
        x0, y0 = np.asarray(clips.mouth_box[index, :, :2]).min(0)
        x1, y1 = np.asarray(clips.mouth_box[index, :, 2:]).max(0)
        error = (out - video).square() / 4
        whole.append(error.mean().item())
        mouth.append(error[..., y0:y1, x0:x1].mean().item())
        opening = np.asarray(clips.motion[index, :total, 0])
        if opening.std() < 0.05:
            continue
        features = [
            F.adaptive_avg_pool2d(v[0, :, :, y0:y1, x0:x1].transpose(0, 1), (6, 6)).flatten(1).numpy()
            for v in (video, out)
        ]
        centre = features[0].mean(0)
        matrix = np.vstack((features[0] - centre, 0.3 * np.eye(features[0].shape[1])))
        aim = np.concatenate((opening - opening.mean(), np.zeros(features[0].shape[1])))
        direction = np.linalg.lstsq(matrix, aim, rcond=None)[0]
        estimated.append((features[1] - centre) @ direction)
        truth.append(opening - opening.mean())
    a, b = np.stack(estimated), np.stack(truth)
    ga = a[:, 1:].reshape(len(a), -1, 8)
    gb = b[:, 1:].reshape(len(b), -1, 8)
    inner_a, inner_b = ga - ga.mean(-1, keepdims=True), gb - gb.mean(-1, keepdims=True)
    return {
        "psnr": float(-10 * np.log10(np.mean(whole))),
        "psnr_mouth": float(-10 * np.log10(np.mean(mouth))),
        "corr": float(np.corrcoef(a.ravel(), b.ravel())[0, 1]),
        "corr_within": float(np.corrcoef(inner_a.ravel(), inner_b.ravel())[0, 1]),
    }


@dataclass(frozen=True)
class Mix:
    """Clips per batch and share of each kind of batch.

    Attributes:
        crops, wholes, stills: clips in a batch of mouth crops, of whole frames and of single whole frames.
        crop_share, whole_share: shares of the first two kinds; single frames take the rest.
    """

    crops: int = 16
    wholes: int = 4
    stills: int = 32
    crop_share: float = 0.45
    whole_share: float = 0.25

    def batch(self, clips: Clips, rng: np.random.Generator, c: int) -> dict[str, Tensor]:
        """One batch of a random kind, see `make_batch`."""
        draw = rng.random()
        if draw < self.crop_share:
            return make_batch(clips, rng, self.crops, 2, c, True)
        if draw < self.crop_share + self.whole_share:
            return make_batch(clips, rng, self.wholes, 2, c, False)
        return make_batch(clips, rng, self.stills, 1, c, False)


def train(data: Path, out: Path, minutes: float, config: NanoVAEConfig, mix: Mix | None = None) -> None:
    """Train for `minutes` (all resumptions together) on `data`/train; state and log go to `out`."""
    torch.manual_seed(0)
    model = channels_last(VAETrainee(config))
    optimiser = Muon(model, lr=0.02, adam_lr=2e-3, adam_names=("head.",))
    _fit(model, optimiser, data, out, "vae", minutes, mix or Mix())


def refine(data: Path, out: Path, minutes: float, config: NanoVAEConfig, mix: Mix | None = None) -> None:
    """Go on training the decoder alone, so that latents (and a DiT trained on them) stay as they are.

    Raises:
        OutputError: `out` holds no trained autoencoder.
    """
    torch.manual_seed(3)
    model = channels_last(VAETrainee(config))
    if not load_trained(out / "vae", model):
        raise OutputError(f"{out} holds no trained autoencoder; run the stage vae first.")
    model.vae.encoder.requires_grad_(False)
    model.head.requires_grad_(False)
    optimiser = Muon(model, lr=0.01, adam_lr=1e-3)
    _fit(model, optimiser, data, out, "decoder", minutes, mix or Mix(crop_share=0.3, whole_share=0.35))


def _fit(model: VAETrainee, optimiser: Muon, data: Path, out: Path, stage: str, minutes: float, mix: Mix) -> None:
    clips, held_out = Clips.open(data / "train"), Clips.open(data / "heldout")
    config = model.vae.config
    folder = out / stage
    elapsed = load_checkpoint(folder, model, optimiser)
    if elapsed >= minutes * 60:
        return
    journal = Journal(out / "log.jsonl", stage)
    step = optimiser.step_count
    c = config.temporal_compression
    run = torch.compile(model, dynamic=False)
    loss_of = torch.compile(losses, dynamic=False)
    clock = Clock(minutes * 60, elapsed)
    last_save = last_eval = clock.elapsed
    running: dict[str, float] = {}
    for batch in prefetch(lambda rng: mix.batch(clips, rng, c), seed=step):
        count, length = batch["groups"].shape[:2]
        k = max(1, length // c)
        groups = as_input(batch["groups"])
        side = groups.shape[-1] // config.spatial_compression
        noise = torch.randn(count * k, config.latent_channels, side, side)
        with torch.autocast("cpu", torch.bfloat16):
            output, motion, kl = run(groups, noise, count)
        target = groups if k == 1 else groups.unflatten(0, (count, -1))[:, c - 1 :].flatten(0, 1)
        if k == 1:
            motion = motion.mean(1, keepdim=True)
        terms = loss_of(output.float(), target.float(), batch["mask"], count)
        terms["motion"] = (motion.float().flatten(0, 1) - batch["motion"].flatten(0, 1)).abs().mean()
        terms["kl"] = kl
        loss = sum((WEIGHTS[name] * term for name, term in terms.items()), torch.zeros(()))
        loss.backward()
        optimiser.step(clock.factor)
        step += 1
        for name, term in terms.items():
            kind = "still" if k == 1 else "crop" if side == CROP // config.spatial_compression else "whole"
            key = f"{name}_{kind}"
            running[key] = 0.95 * running.get(key, term.item()) + 0.05 * term.item()
        if step % 50 == 0:
            journal.write(step=step, seconds=round(clock.elapsed), factor=clock.factor, **running)
        if clock.elapsed - last_eval > 300 or clock.done:
            last_eval = clock.elapsed
            journal.write(step=step, seconds=round(clock.elapsed), held_out=evaluate(model, held_out))
        if clock.elapsed - last_save > 180 or clock.done:
            save_checkpoint(folder, model, optimiser, clock.elapsed)
            last_save = clock.elapsed
        if clock.done:
            break
