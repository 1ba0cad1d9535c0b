"""A portrait as the model draws it when nothing moves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..bundle.contract import cache_names
from ..engines.interface import Engine
from .interface import Reference, require_finite
from .pixels import Frames, to_frames


def decoded_portrait(engines: Mapping[str, Engine], reference: Reference) -> Frames:
    """What the decoder makes of the encoder's latents of a portrait, uint8 [H, W, 3].

    Raises:
        EngineError: the decoder failed.
        NumericalError: the decoder gave NaN or Inf.
    """
    engine = engines["vae_decoder"]
    execution, caches = engine.prepare(), cache_names(engine.graph)
    buffers = execution.buffers
    buffers["latents"][...] = reference.latents
    if "portrait" in buffers:
        buffers["portrait"][0] = reference.portrait
    for name, values in reference.maps.items():
        buffers[name][...] = values
    # A causal decoder has seen the portrait once before it draws it.
    for _ in range(1 + bool(caches)):
        execution.run()
        for name in caches:
            buffers[f"past_{name}"][...] = buffers[f"next_{name}"]
    require_finite(buffers["magnitude"], "vae_decoder")
    last = buffers["frames"][-1]
    return last.copy() if last.dtype == np.uint8 else to_frames(last)
