"""Gives the tiny bundle a golden clip, rendered by itself."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import hash_file
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME

SEED = 3


def write_file(root: Path, inside: str, content: bytes) -> None:
    """Put a file into a bundle and its hash into the manifest."""
    (root / inside).write_bytes(content)
    change_manifest(root, files={inside: vars(hash_file(root / inside))})


def change_manifest(root: Path, **changes: dict[str, Any]) -> None:
    """Update objects of the manifest; a value of None removes the key."""
    path = root / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    for section, values in changes.items():
        for key, value in values.items():
            if value is None:
                del manifest[section][key]
            else:
                manifest[section][key] = value
    path.write_text(json.dumps(manifest))


def packed(**arrays: np.ndarray) -> bytes:
    """The bytes of an npz file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def add_golden(root: Path, seconds: float = 1.7) -> tuple[np.ndarray, np.ndarray]:
    """Render with PyTorch's place taken by the bundle itself; returns the frames and their indices."""
    rate = 16000
    pcm = np.random.default_rng(0).integers(-9000, 9000, round(seconds * rate)).astype(np.int16)
    with Avatar.open(root, threads=1) as avatar, avatar.session(seed=SEED, sample_rate=rate) as session:
        session.push(pcm)
        session.finish()
        video = np.concatenate([chunk.frames for chunk in session.chunks()])
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    indices = np.linspace(0, len(video) - 1, 5).round().astype(np.int64)
    write_file(root, "speech.wav", stream.getvalue())
    write_file(root, "frames.npz", packed(frames=video[indices], indices=indices))
    golden = {"audio": "speech.wav", "frames": "frames.npz", "seed": SEED, "psnr": 66.0}
    change_manifest(root, golden=golden)
    return video[indices], indices
