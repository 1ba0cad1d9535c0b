"""Draws the curves of a training log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PANELS = (
    ("decoder", ("mouth", "eyes", "sharp_mouth", "moved_mouth")),
    ("decoder", ("psnr", "psnr_mouth")),
    ("decoder", ("corr", "corr_within", "corr_worst")),
    ("codes", ("codes", "moved")),
    ("audio", ("mouth", "moved", "voice")),
    ("audio", ("espeak_clean", "flite_clean", "espeak_music10", "espeak_telephone")),
    ("dit", ("flow", "parts")),
    ("dit", ("lips",)),
)
COLOURS = ((180, 90, 30), (40, 120, 220), (60, 160, 60), (150, 60, 160))
COLUMNS = 4
WIDTH, HEIGHT, MARGIN = 420, 260, 44


def read_log(file: Path) -> list[dict[str, Any]]:
    """Every record of `log.jsonl`, held-out figures lifted to the top level."""
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [record | record.pop("held_out", {}) for record in records]


def _panel(records: list[dict[str, Any]], stage: str, names: tuple[str, ...]) -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    curves = {}
    for name in names:
        points = [(float(r["step"]), float(r[name])) for r in records if r["stage"] == stage and name in r]
        if points:
            curves[name] = np.array(points)
    if not curves:
        return image
    everything = np.concatenate(list(curves.values()))
    last = max(everything[:, 0].max(), 1e-6)
    low, high = min(0.0, everything[:, 1].min()), everything[:, 1].max() * 1.05
    font = cv2.FONT_HERSHEY_SIMPLEX
    right, bottom = WIDTH - 12, HEIGHT - 30
    cv2.rectangle(image, (MARGIN, 12), (right, bottom), (200, 200, 200), 1)
    cv2.putText(image, f"{high:.3g}", (4, 20), font, 0.38, (90, 90, 90), 1, cv2.LINE_AA)
    cv2.putText(image, f"{low:.3g}", (4, bottom), font, 0.38, (90, 90, 90), 1, cv2.LINE_AA)
    cv2.putText(image, f"{stage}: {last:.0f} steps", (MARGIN, HEIGHT - 10), font, 0.4, (60, 60, 60), 1, cv2.LINE_AA)
    for number, (name, curve) in enumerate(curves.items()):
        x = MARGIN + curve[:, 0] / last * (right - MARGIN)
        y = bottom - (curve[:, 1] - low) / (high - low) * (bottom - 12)
        line = np.stack((x, y), axis=1).round().astype(np.int32)
        cv2.polylines(image, [line], False, COLOURS[number], 1, cv2.LINE_AA)
        place = (right - 150, 28 + 16 * number)
        cv2.putText(image, f"{name} {curve[-1, 1]:.3g}", place, font, 0.4, COLOURS[number], 1, cv2.LINE_AA)
    return image


def plot_log(log: Path, out: Path) -> None:
    """Write a PNG of all panels of the log file `log`."""
    records = read_log(log)
    panels = [_panel(records, stage, names) for stage, names in PANELS]
    rows = [np.concatenate(panels[i : i + COLUMNS], axis=1) for i in range(0, len(panels), COLUMNS)]
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), np.concatenate(rows))
