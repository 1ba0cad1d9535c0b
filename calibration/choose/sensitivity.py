"""What a graph with layers in 8 bits does to the roll-out's frames."""

from __future__ import annotations

from collections.abc import Mapping

from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.spec import ModelSpec

from ..judge.quality import Bytes, mean_square, talk_frames
from ..record.clips import Talk
from .memo import MemoEngine

CHUNKS = 3


class Sensitivity:
    """Measures the frames' mean squared difference with one graph replaced.

    The difference is taken to the base's own frames, so that what the base loses to fp32 is not counted.
    """

    def __init__(self, spec: ModelSpec, base: Mapping[str, Engine], talk: Talk, chunks: int) -> None:
        self._spec, self._talk, self._chunks = spec, talk, chunks
        self._base = {name: MemoEngine(engine) for name, engine in base.items()}
        self._reference: Bytes | None = None

    def of(self, graph: str, engine: Engine) -> float:
        """Mean squared difference in levels that `engine` makes in place of the base's `graph`."""
        if self._reference is None:
            self._reference = talk_frames(self._spec, self._base, self._talk, self._chunks)
        frames = talk_frames(self._spec, self._base | {graph: engine}, self._talk, self._chunks)
        return mean_square(frames, self._reference)
