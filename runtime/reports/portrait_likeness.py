"""Whether a model can draw a portrait: its own picture of it beside the original."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import PortraitFigures
from .likeness import ROUNDED_PSNR, Pictures, psnr

_AREAS, _WINDOW = 16, 7
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Of SSIM's two stabilisers, for values in 0..255.
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_MARGIN = PortraitFigures(psnr=3.0, ssim=0.06, colour=3.0)


def portrait_figures(portrait: Pictures, drawn: Pictures) -> PortraitFigures:
    """Figures of the model's picture against the portrait, both uint8 [H, W, 3]."""
    areas = [_areas(picture) for picture in (portrait, drawn)]
    return PortraitFigures(
        psnr=psnr(drawn, portrait),
        ssim=ssim(_middle(portrait) @ _LUMA, _middle(drawn) @ _LUMA),
        colour=float(np.abs(areas[0] - areas[1]).mean()),
    )


def gates_from(figures: list[PortraitFigures]) -> PortraitFigures:
    """What a portrait has to reach, from the figures of portraits that the model can draw: the worst, and a margin."""
    return PortraitFigures(
        psnr=min(ROUNDED_PSNR, *(each.psnr for each in figures)) - _MARGIN.psnr,
        ssim=max(-1.0, min(each.ssim for each in figures) - _MARGIN.ssim),
        colour=min(255.0, max(each.colour for each in figures) + _MARGIN.colour),
    )


def portrait_fault(figures: PortraitFigures, gates: PortraitFigures) -> str:
    """What is wrong with a portrait and what to do, a sentence; "" where nothing is."""
    short = [
        f"{name} {value:.{digits}f}{unit} where at {word} {gate:.{digits}f}{unit} is usual"
        for name, value, gate, digits, unit, word, bad in (
            ("PSNR", figures.psnr, gates.psnr, 1, " dB", "least", figures.psnr < gates.psnr),
            ("SSIM of the face", figures.ssim, gates.ssim, 2, "", "least", figures.ssim < gates.ssim),
            ("difference of colours", figures.colour, gates.colour, 1, "", "most", figures.colour > gates.colour),
        )
        if bad
    ]
    if not short:
        return ""
    return (
        f"The model cannot draw this portrait well ({', '.join(short)}), so the face will not look like it; pass a "
        "picture of the kind that the model was trained on, cropped to head and shoulders."
    )


def ssim(brightness: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Mean structural similarity of two pictures [H, W] in 0..255, over windows of 7 x 7 (Wang et al., 2004)."""
    x, y = (np.asarray(picture, np.float64) for picture in (brightness, other))
    mean_x, mean_y = _windows(x), _windows(y)
    # The variance of a sample, as the paper's reference code has it.
    share = _WINDOW**2 / (_WINDOW**2 - 1)
    var_x = share * (_windows(x * x) - mean_x**2)
    var_y = share * (_windows(y * y) - mean_y**2)
    both = share * (_windows(x * y) - mean_x * mean_y)
    likeness = ((2 * mean_x * mean_y + _C1) * (2 * both + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    )
    return float(likeness.mean())


def _windows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over all windows that lie inside [H, W]."""
    summed = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    size = _WINDOW
    total = summed[size:, size:] - summed[:-size, size:] - summed[size:, :-size] + summed[:-size, :-size]
    means: NDArray[np.float64] = total / size**2
    return means


def _middle(picture: Pictures) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    return picture[height // 5 : height - height // 5, width // 5 : width - width // 5].astype(np.float32)


def _areas(picture: Pictures) -> NDArray[np.float32]:
    """Mean colours of 16 x 16 areas, float32 [16, 16, 3]."""
    rows, columns = (np.linspace(0, side, _AREAS + 1).astype(int) for side in picture.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(picture, rows[:-1], 0, np.float32), columns[:-1], 1)
    means: NDArray[np.float32] = (sums / np.outer(np.diff(rows), np.diff(columns))[..., None]).astype(np.float32)
    return means
