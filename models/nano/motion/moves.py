"""From motion to latents without pictures: what the autoencoder's encoder says of a motion, on average over all faces.

With it the DiT never sees the same pair of sound and head twice: any voice can be set beside any life.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rap_edge.models.motion_autoencoder import Autoencoder, AutoencoderConfig

from ...memory import channels_last
from ..training.stage import Journal
from .state import load_average
from .train_autoencoder import COLUMNS, Clips, Trainee, as_input, relative

_WIDTH = 384
_BATCH = 512


class MotionMap(nn.Module):
    """The raw latent of a group of frames with a given motion."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.temporal_compression * COLUMNS, _WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, config.latent_channels),
        )

    def forward(self, motion: Tensor) -> Tensor:
        """Motion [..., 4 * 13], relative to the portrait's pose (see `relative`) -> raw latents [..., C]."""
        result: Tensor = self.layers(motion)
        return result


def trained_autoencoder(out: Path, config: AutoencoderConfig) -> tuple[Autoencoder, nn.Linear] | None:
    """The averaged autoencoder of a run and its reader of motion; None if that stage has not begun."""
    trainee = Trainee(config)
    if not load_average(out / "autoencoder", trainee):
        return None
    trainee.requires_grad_(False).eval()
    return channels_last(trainee.model), trainee.reader


@torch.no_grad()
def encoded(model: Autoencoder, clips: Clips) -> Iterator[tuple[Tensor, Tensor]]:
    """For every clip the motion [k, 4 * 13] and raw latent [k, C] of its groups, the portrait itself last."""
    size = model.config.temporal_compression
    for index in range(len(clips.motion)):
        portrait = torch.from_numpy(np.array(clips.portrait[index]))
        reference = model.reference(as_input(portrait[None]))
        frames = torch.cat((torch.from_numpy(np.array(clips.video[index])), portrait.expand(size, -1, -1, -1)))
        raw = model.motion_encoder(as_input(frames), reference)[0]
        motion = np.concatenate((clips.motion[index], np.repeat(clips.pose[index][None], size, 0)))
        told = relative(motion, clips.pose[index]).reshape(len(raw), -1)
        yield torch.from_numpy(told), raw


def fit(out: Path, data: Path, model: Autoencoder, clips: int = 1500, steps: int = 6000) -> None:
    """Write `moves/map.safetensors` and `moves/statistics.json`, unless they are there; `model` must be final."""
    folder = out / "moves"
    if (folder / "statistics.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    every = Clips.open(data / "train")
    some = Clips(*(getattr(every, name)[:clips] for name in every.__dataclass_fields__))
    motions, latents = (torch.cat(parts) for parts in zip(*encoded(model, some), strict=True))
    mean, std = latents.mean(0), latents.std(0).clamp_min(1e-3)
    held = len(latents) // 10
    torch.manual_seed(4)
    network = MotionMap(model.config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    aim = (latents - mean) / std
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-6
        rows = torch.randint(held, len(aim), (_BATCH,))
        loss = F.mse_loss((network(motions[rows]) - mean) / std, aim[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        error = ((network(motions[:held]) - mean) / std - aim[:held]).square().mean(0)
    Journal(out / "log.jsonl", "moves").write(explained=float(1 - error.mean()), worst=float(1 - error.max()))
    save_file(network.state_dict(), folder / "map.safetensors")
    statistics = {"mean": mean.tolist(), "std": std.tolist()}
    (folder / "statistics.json").write_text(json.dumps(statistics), encoding="utf-8")


def load(out: Path, config: AutoencoderConfig) -> tuple[MotionMap, Tensor, Tensor]:
    """What `fit` wrote: the map, and mean and deviation of the raw latents."""
    network = MotionMap(config)
    network.load_state_dict(load_file(out / "moves" / "map.safetensors"))
    statistics = json.loads((out / "moves" / "statistics.json").read_text(encoding="utf-8"))
    mean, std = (torch.tensor(statistics[name]) for name in ("mean", "std"))
    return network.requires_grad_(False).eval(), mean, std
