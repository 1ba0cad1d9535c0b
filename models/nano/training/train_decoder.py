"""Trains the motion decoder: frames from a portrait and the latents of their motion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.models.causal.motion_decoder import MotionDecoder, MotionDecoderConfig
from rap_edge.models.memory import channels_last

from ..data.identity import Identity
from ..data.pairs import sitter
from ..data.renderer import mouth_box, part_flow
from ..data.sentences import SPLITS
from ..data.view import View
from ..errors import MeasureError
from ..measure.mouth import MouthGauge, correlation, within_latent_correlation
from .optim import Muon
from .stage import prefetch
from .state import Course, Schedule
from .train_dit import known_statistics

LATENTS = 3  # per window
SHOWN = 2  # frames decoded per window, of the last latent and the frame before it: more of one clip teach little more
STATIC_SHARE = 0.15
READABLE, MOVING = 0.9, 0.08  # a mouth that leaves the picture cannot be read even in the truth
NEAR_SIDE = 64  # cells of the finer flow along a side
STILL_SHARE = 0.5  # of a batch's windows: where the head keeps still, nothing hides how eyes and lips move
NOISE = 0.12  # deviation that latents are given: what follows them need not hit them better than that


@dataclass(frozen=True)
class Clips:
    """The memory-mapped arrays of one folder of `pairs`, and what they were drawn from."""

    seed: int
    split: str
    portrait: np.ndarray
    video: np.ndarray
    pose: np.ndarray
    motion: np.ndarray
    mouth_box: np.ndarray
    eye_box: np.ndarray
    flow: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Clips:
        """Map the arrays of `folder`."""
        names = ("portrait", "video", "pose", "motion", "mouth_box", "eye_box", "flow")
        made = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        arrays = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in names)
        return cls(made["seed"], made["split"], *arrays)

    def sitter(self, index: int) -> tuple[Identity, View]:
        """Who is drawn in a clip, and how."""
        return sitter(np.random.default_rng([self.seed, SPLITS.index(self.split), index, 2]))


def window(clips: Clips, rng: np.random.Generator, index: int, compression: int) -> dict[str, np.ndarray]:
    """Consecutive frames of one clip with its portrait; some follow on the portrait itself, unmoved."""
    frames, first = LATENTS * compression, int(rng.integers(0, compression + 2 - SHOWN))
    start = int(rng.integers(0, clips.video.shape[1] - frames + 1))
    motion = clips.motion[index, start : start + frames] - clips.pose[index]
    begin = start + frames - compression - 1 + first
    shown = slice(begin, begin + SHOWN)
    target, flow = np.array(clips.video[index, shown]), np.array(clips.flow[index, shown], np.float32)
    rows = np.array(clips.motion[index, shown])
    masks = np.zeros((2, SHOWN, *target.shape[1:3]), np.float32)
    for mask, boxes in zip(masks, (clips.mouth_box, clips.eye_box), strict=True):
        for frame, (x0, y0, x1, y1) in zip(mask, boxes[index, shown], strict=True):
            frame[y0:y1, x0:x1] = 1
    if rng.random() < STATIC_SHARE:
        motion[:-compression] = 0
        if first == 0:
            target[0], flow[0], rows[0] = clips.portrait[index], 0, clips.pose[index]
    identity, view = clips.sitter(index)
    parts = [part_flow(identity, clips.pose[index], row, NEAR_SIDE, view) for row in rows]
    return {
        "portrait": clips.portrait[index],
        "target": target,
        "motion": motion,
        "masks": masks,
        "flow": flow,
        "part_flow": np.stack([part.transpose(2, 0, 1) for part, _ in parts]),
        "part_mask": np.stack([mask[None] for _, mask in parts]).astype(np.float32),
        "shown": np.arange(SHOWN) + first,
    }


def make_batch(clips: Clips, still: Clips, rng: np.random.Generator, size: int, compression: int) -> dict[str, Tensor]:
    """`size` windows of random clips of two sets, stacked."""
    sets = [still if rng.random() < STILL_SHARE else clips for _ in range(size)]
    parts = [window(one, rng, int(rng.integers(0, len(one.motion))), compression) for one in sets]
    return {name: torch.from_numpy(np.stack([part[name] for part in parts])) for name in parts[0]}


def as_input(pictures: Tensor) -> Tensor:
    """uint8 [..., H, W, 3] -> float [N, 3, H, W] in -1..1, channels last."""
    return pictures.flatten(0, -4).permute(0, 3, 1, 2).float() / 127.5 - 1.0


MEANING = ("model.motion_encoder.", "reader.")  # what says how a latent follows from motion, and back


class Trainee(nn.Module):
    """The decoder with a linear reader of the motion and a finder of mouth and eyes, as one training step sees it."""

    def __init__(self, config: MotionDecoderConfig) -> None:
        super().__init__()
        self.model = MotionDecoder(config)
        self.reader = nn.Linear(config.latent_channels, config.temporal_compression * config.motion_columns)
        self.code_reader = nn.Linear(config.code_width, config.motion_columns)
        self.finder = nn.Conv2d(config.widths[1], 2, 1)

    def forward(self, portrait: Tensor, motion: Tensor, noise: Tensor, shown: Tensor) -> tuple[Tensor, ...]:
        """Portraits [B, 3, H, W], motion [B, 3c, columns], noise [B, 3, C], and which of the last c + 1 frames [B, n].

        Returns:
            Those frames [B * n, 3, H, W], their two flows, motion [B, 3c, columns], raw latents, where the portrait's
            mouth and eyes are, as logits [B, 2, H / 8, W / 8], and motion [B, 2c, columns] as the codes tell it.
        """
        reference = self.model.reference(portrait)
        raw = self.model.motion_encoder(motion)
        noisy = raw + NOISE * noise
        state = self.model.code_decoder.inlet(noisy[:, :1])
        codes, _ = self.model.code_decoder(noisy[:, 1:], state)
        compression = self.model.config.temporal_compression
        chosen = codes[:, compression - 1 :].gather(1, shown.unsqueeze(-1).expand(-1, -1, codes.shape[-1]))
        frames, flow, near, _ = self.model.frame_decoder(chosen.flatten(0, 1), reference)
        read = self.reader(noisy).unflatten(-1, (compression, -1)).flatten(1, 2)
        return frames, flow, near, read, raw, self.finder(reference[2]), self.code_reader(codes)


def edges(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours along the height and the width, padded to the same size."""
    down = F.pad(picture[..., 1:, :] - picture[..., :-1, :], (0, 0, 0, 1))
    across = F.pad(picture[..., 1:] - picture[..., :-1], (0, 1))
    return down, across


def losses(output: tuple[Tensor, ...], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The terms of the loss from `Trainee.forward`, each a mean; `mouth` and `eyes` are those of the boxes alone."""
    frames, flow, near, motion, raw, found, told = output
    target = as_input(batch["target"])
    error = frames - target
    count = batch["masks"].shape[0]
    pixel = error.abs().mean(1)
    sharp = sum((edge.abs().mean(1) for edge in edges(error)), torch.zeros(()))
    steps = error.unflatten(0, (count, -1))
    moved = (steps[:, 1:] - steps[:, :-1]).abs().mean(2)
    mouth, eyes = (batch["masks"][:, part].flatten(0, 1) for part in (0, 1))
    places = F.adaptive_avg_pool2d(batch["masks"].mean(2), found.shape[-1])
    late_mouth, late_eyes = (batch["masks"][:, part, 1:] for part in (0, 1))

    def within(values: Tensor, mask: Tensor) -> Tensor:
        return (values * mask).sum() / mask.sum().clamp_min(1.0)

    return {
        "all": pixel.mean(),
        "mouth": within(pixel, mouth),
        "eyes": within(pixel, eyes),
        "sharp": sharp.mean(),
        "sharp_mouth": within(sharp, mouth),
        "sharp_eyes": within(sharp, eyes),
        "coarse": F.avg_pool2d(error, 8).abs().mean(),
        "moved": moved.mean(),
        "moved_mouth": within(moved, late_mouth),
        "moved_eyes": within(moved, late_eyes),
        "flow": (flow - batch["flow"].flatten(0, 1)).abs().mean() * 128.0,
        "parts_flow": within(
            (near - batch["part_flow"].flatten(0, 1)).abs().sum(1, keepdim=True), batch["part_mask"].flatten(0, 1)
        )
        * 128.0,
        "motion": (motion - batch["motion"]).abs().mean(),
        "codes": (told - batch["motion"][:, -told.shape[1] :]).abs().mean(),
        "size": raw.square().mean(),
        "parts": F.binary_cross_entropy_with_logits(found, places),
    }


WEIGHTS: Mapping[str, float] = {
    "all": 1.5,
    "mouth": 1.0,
    "eyes": 1.2,
    "sharp": 1.0,
    "sharp_mouth": 0.4,
    "sharp_eyes": 0.6,
    "coarse": 1.0,
    "moved": 0.5,
    "moved_mouth": 0.8,
    "moved_eyes": 0.8,
    "flow": 0.03,
    "parts_flow": 0.06,
    "motion": 0.3,
    "codes": 0.3,
    "size": 1e-3,
    "parts": 0.2,
}


@torch.no_grad()
def reconstruct(model: MotionDecoder, portrait: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames uint8 [T, H, W, 3] of a motion [T, columns] counted from the portrait's, and masks [T, H, W]."""
    reference = model.reference(as_input(torch.from_numpy(np.array(portrait))[None]))
    raw = model.motion_encoder(torch.from_numpy(np.array(motion))[None])
    codes, _ = model.code_decoder(raw, model.first_state())
    frames, _, _, masks = model.frame_decoder(codes.flatten(0, 1), reference)
    pixels = ((frames.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels, masks[:, 0].numpy()


def evaluate(model: MotionDecoder, clips: Clips, picture: Path, count: int = 48) -> dict[str, float]:
    """PSNR whole, in the mouth and in the eyes, and the mouth's correlation with the truth, on held-out clips.

    Args:
        clips: held out; their faces are drawn again to calibrate the measure.
        picture: PNG of portraits, truth, result and mask.
    """
    squares: dict[str, list[float]] = {"psnr": [], "psnr_mouth": [], "psnr_eyes": []}
    found, truth = [], []
    rows: list[np.ndarray] = []
    for index in range(min(count, len(clips.video))):
        portrait, video = np.array(clips.portrait[index]), np.array(clips.video[index])
        result, masks = reconstruct(model, portrait, clips.motion[index] - clips.pose[index])
        error = np.square(result.astype(np.float32) - video).mean(-1)
        squares["psnr"].append(float(error.mean()))
        for name, boxes in (("psnr_mouth", clips.mouth_box), ("psnr_eyes", clips.eye_box)):
            inside = [e[y0:y1, x0:x1].mean() for e, (x0, y0, x1, y1) in zip(error, boxes[index], strict=True)]
            squares[name].append(float(np.mean(inside)))
        identity, view = clips.sitter(index)
        try:
            box = mouth_box(identity, clips.pose[index])
            gauge = MouthGauge.calibrate(view.straighten(portrait[None])[0], box)
        except MeasureError:
            continue
        opening = np.asarray(clips.motion[index, :, 0])
        if correlation(gauge.opening(view.straighten(video)), opening) < READABLE and opening.std() > MOVING:
            continue
        found.append(gauge.opening(view.straighten(result)))
        truth.append(opening)
        if len(rows) < 10:
            shown = [portrait]
            for frame in (3, 9, 14, 20):
                mask = np.repeat(np.round(masks[frame] * 255).astype(np.uint8)[..., None], 3, -1)
                shown += [video[frame], result[frame], mask]
            rows.append(np.concatenate(shown, axis=1))
    cv2.imwrite(str(picture), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
    measured, expected = np.stack(found), np.stack(truth)
    each = [correlation(one, two) for one, two in zip(measured, expected, strict=True) if two.std() > MOVING]
    figures = {name: float(-10 * np.log10(np.mean(values) / 255**2)) for name, values in squares.items()}
    return figures | {
        "corr": correlation(measured, expected),
        "corr_within": within_latent_correlation(measured, expected, 0, model.config.temporal_compression),
        "corr_worst": float(np.min(each)),
        "corr_low": float(np.quantile(each, 0.1)),
    }


def train(
    data: Path, out: Path, steps: int, config: MotionDecoderConfig, *, batch: int = 6, compiled: bool = True
) -> None:
    """Train to `steps` steps, all runs together, on `data`/train; state, log and pictures go to `out`.

    Compiling takes minutes and pays over hours. Once the DiT has begun, latents keep the meaning that it has learned: a
    decoder that goes on from there learns to draw them better.

    Raises:
        TrainingError: the loss is not finite.
    """
    torch.manual_seed(0)
    clips, still, held_out = (Clips.open(data / name) for name in ("train", "still", "heldout"))
    trainee = channels_last(Trainee(config))
    optimiser = Muon(trainee, lr=0.01, adam_lr=1e-3, adam_names=("reader", "finder", "flow.weight"))
    course = Course(out, "decoder", trainee, optimiser, Schedule(steps), told=20, saved=50)
    if course.over:
        return
    if known_statistics(out) is not None:
        with course.averaged():
            kept = {name: value.clone() for name, value in trainee.state_dict().items() if name.startswith(MEANING)}
        trainee.load_state_dict(kept, strict=False)
        trainee.model.motion_encoder.requires_grad_(False)
        trainee.reader.requires_grad_(False)
    run = torch.compile(trainee, dynamic=False) if compiled else trainee
    loss_of = torch.compile(losses, dynamic=False) if compiled else losses
    compression = config.temporal_compression
    batches = prefetch(lambda rng: make_batch(clips, still, rng, batch, compression), seed=course.step)
    while not course.over:
        example = next(batches)
        noise = torch.randn(batch, LATENTS, config.latent_channels)
        portrait = as_input(example["portrait"].unsqueeze(1))
        terms = loss_of(run(portrait, example["motion"], noise, example["shown"]), example)
        course.learn(sum((WEIGHTS[name] * term for name, term in terms.items()), torch.zeros(())), terms)
        if course.step % 500 == 0 or course.step in (100, 250) or course.over:
            with course.averaged():
                figures = evaluate(trainee.model, held_out, out / "decoder.png")
                course.journal.write(step=course.step, held_out=figures)
