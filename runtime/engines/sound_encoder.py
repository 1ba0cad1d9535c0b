"""A bundle's audio encoder over a sound of any length, which a bundle exported with `once` has.

In: a whole sound. Out: its features. It is loaded for that alone, on the processor, and its memory given back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..bundle.contract import encode_mode, sound_sizes
from ..errors import AudioError, BundleError, SpecError
from ..machine.available import available_memory
from ..machine.system_memory import as_gib
from .onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine

_NAME = "audio_encoder"


class SoundEncoder:
    """Encodes whole sounds."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        """Find out how long a sound may be here.

        Args:
            bundle: whose audio encoder it is.
            threads: of ONNX Runtime; None takes every core.

        Raises:
            SpecError: the model is causal.
            BundleError: the audio encoder takes windows alone.
        """
        spec, graph = bundle.manifest.spec, bundle.manifest.graphs[_NAME]
        if spec.carry == "cached":
            raise SpecError(
                f"The model {spec.name!r} is causal and hears sound as it comes; leave out --audio-encode-mode once."
            )
        if encode_mode(bundle.manifest) != "once" or not graph.memory:
            raise BundleError(
                f"The bundle's audio encoder hears windows of {spec.audio_window_seconds:g} s and no whole sound; "
                "export it again with --audio-encode-mode once, or leave that out."
            )
        self._bundle, self._threads, self._spec, self._graph = bundle, threads, spec, graph
        self._free = None if (memory := available_memory()) is None else memory[1]
        self._longest = graph.memory[-1].frames
        if self._free is not None:
            frames, held = [0, *(at.frames for at in graph.memory)], [0, *(at.bytes for at in graph.memory)]
            self._longest = int(np.interp(self._free, held, frames))

    def require(self, frames: int) -> None:
        """Refuse a sound that is too long.

        Args:
            frames: of the video that it makes.

        Raises:
            AudioError: says how long it may be.
        """
        if frames > self._longest:
            longest = self._longest / self._spec.fps
            why = "" if self._free is None else f" in the {as_gib(self._free)} of memory that are free"
            raise AudioError(
                f"The sound is longer than the {longest:.0f} s that can be encoded at once{why}; "
                "without --audio-encode-mode once it may have any length."
            )

    def encode(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features of a sound.

        Args:
            waveform: float32 [samples] in -1..1 at the spec's rate, whole frames.

        Returns:
            float32 [frames, layers, width].

        Raises:
            EngineError: ONNX Runtime fails, or has not enough memory.
            BundleError: the graph is missing or changed.
        """
        with self._bundle.graph_content(_NAME) as content:
            engine = OnnxRuntimeEngine(_NAME, self._graph, content, self._threads, CPU_ONLY, keeps_memory=False)
        execution = engine.prepare(sizes=sound_sizes(self._spec, waveform.size // self._spec.samples_per_frame))
        execution.buffers["waveform"][0] = waveform
        execution.run()
        features: NDArray[np.float32] = execution.buffers["audio_features"]
        return features
