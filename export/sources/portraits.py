"""The portraits that a bundle offers, and what others have to reach: figures of those that the model can draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rap_edge.models.nano.portraits import pictures
from rap_edge.models.presets import NANO
from rap_edge.runtime.bundle.manifest import PortraitFigures
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.inputs.picture.portrait import portrait_for
from rap_edge.runtime.loop.interface import encode_reference
from rap_edge.runtime.loop.still import decoded_portrait
from rap_edge.runtime.outputs.png import encode_png
from rap_edge.runtime.reports.portrait_likeness import gates_from, portrait_figures
from rap_edge.runtime.spec import ModelSpec

MOST = 64
_LONGEST_NAME = 40


def known_portraits(spec: ModelSpec, files: tuple[Path, ...]) -> dict[str, bytes]:
    """Picture files by name that a model is at home with: those given, or the people whom nano was trained to animate.

    Raises:
        ExportError: too many, or two of one name.
        PortraitError: a file is no picture that can be read.
    """
    if not files:
        found = pictures() if spec.name == NANO.name else {}
        return {f"{name}.webp": picture for name, picture in found.items()}
    if len(files) > MOST:
        raise ExportError(f"A bundle offers at most {MOST} portraits, not {len(files)}; pass fewer.")
    names = ["".join(c if c.isalnum() or c in "-_" else "-" for c in file.stem)[:_LONGEST_NAME] for file in files]
    if len(set(names)) < len(names):
        raise ExportError("Two of the portraits have the same name; rename a file.")
    read = (portrait_for(spec, file) for file in files)
    return {f"{name}.png": encode_png(picture) for name, picture in zip(names, read, strict=True)}


def portrait_gates(
    spec: ModelSpec, engines: Mapping[str, Engine], known: Iterable[bytes], on_measured: Callable[[], None]
) -> PortraitFigures | None:
    """What a portrait has to reach that the model can draw, None where no such one is known.

    Args:
        spec: of the model.
        engines: of `vae_encoder` and `vae_decoder` at least.
        known: picture files of portraits that the model can draw.
        on_measured: called after each.

    Raises:
        NumericalError: an engine gave NaN or Inf.
    """
    figures = []
    for data in known:
        picture = portrait_for(spec, data, "centre")
        reference = encode_reference(spec, engines["vae_encoder"], picture)
        figures.append(portrait_figures(picture, decoded_portrait(engines, reference)))
        on_measured()
    return gates_from(figures) if figures else None
