"""Recognising the layout of a checkpoint and reading it."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

import torch

from rap_edge.runtime.errors import CheckpointError
from rap_edge.runtime.spec import ModelSpec

from ..causal.networks import CausalNetworks
from ..config import read_json_object
from ..dit import DiT
from ..networks import Networks
from ..presets import FLASHHEAD_LITE
from .causal import load_causal_networks
from .flashhead import is_flashhead_layout, load_flashhead_dit, load_flashhead_networks, member_of
from .layouts import FAMILY
from .own import is_own_layout, load_own_dit, load_own_networks, read_own_spec
from .tensors import refuse_pickle


def load_networks(
    path: str | PathLike[str], spec: ModelSpec | None = None, dtype: torch.dtype = torch.float32
) -> Networks | CausalNetworks:
    """Read the networks of a checkpoint folder of rap-edge's own or of FlashHead's layout.

    Args:
        path: the folder.
        spec: stands in for the checkpoint's own spec.
        dtype: of the weights in memory.

    Raises:
        CheckpointError: the layout is unknown, or a file is missing, damaged or does not agree with the spec.
    """
    folder = _folder(path)
    if is_own_layout(folder):
        own = spec or read_own_spec(folder / "spec.json")
        load = load_causal_networks if own.carry == "cached" else load_own_networks
        return load(folder, own, dtype)
    if is_flashhead_layout(folder):
        return load_flashhead_networks(folder, spec, dtype)
    raise CheckpointError(
        f"{folder} is no known checkpoint: it has neither spec.json with dit, vae and audio_encoder nor "
        f"{' or '.join(member.dit_folder for member in FAMILY)}; point at the folder that holds them."
    )


def load_dit(path: str | PathLike[str], spec: ModelSpec | None = None, dtype: torch.dtype = torch.float32) -> DiT:
    """Read the DiT alone, from a checkpoint folder or from the DiT's own folder.

    Args:
        path: the folder.
        spec: what a FlashHead config does not say; FlashHead Lite's or Pro's if None. The own layout needs none.
        dtype: of the weights in memory.

    Raises:
        CheckpointError: as `load_networks`.
    """
    folder = _folder(path)
    known = spec or FLASHHEAD_LITE
    if is_own_layout(folder):
        folder = folder / "dit"
    elif is_flashhead_layout(folder):
        member = member_of(folder, spec)
        known, folder = spec or member.spec, folder / member.dit_folder
    if "alpha" in read_json_object(folder / "config.json"):
        return load_own_dit(folder, dtype)
    return load_flashhead_dit(folder, known, dtype)


def _folder(path: str | PathLike[str]) -> Path:
    folder = Path(path)
    if not os.path.isdir(folder):
        refuse_pickle(folder)
        raise CheckpointError(f"{folder} is not a folder; point at the folder that holds the checkpoint.")
    return folder
