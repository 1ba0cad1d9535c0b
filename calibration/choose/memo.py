"""Engines that remember: a graph that is given the same inputs again answers from memory.

While one graph changes, the graphs before it are given the same inputs in every roll-out.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

from rap_edge.runtime.engines.interface import Array, Engine, Execution

MEMO_LIMIT = 512 << 20


class MemoEngine:
    """Wraps an engine; the oldest answers are forgotten above `MEMO_LIMIT` bytes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.backend, self.device, self.graph = engine.backend, engine.device, engine.graph
        self._answers: OrderedDict[bytes, dict[str, Array]] = OrderedDict()
        self._size = 0

    def prepare(self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None) -> Execution:
        """Bind buffers; see `Engine.prepare`."""
        return _MemoExecution(self, self._engine.prepare(buffers, sizes))

    def recall(self, key: bytes) -> dict[str, Array] | None:
        """The outputs that these inputs gave before."""
        return self._answers.get(key)

    def remember(self, key: bytes, outputs: dict[str, Array]) -> None:
        """Keep outputs."""
        self._answers[key] = outputs
        self._size += sum(array.nbytes for array in outputs.values())
        while self._size > MEMO_LIMIT and len(self._answers) > 1:
            _, old = self._answers.popitem(last=False)
            self._size -= sum(array.nbytes for array in old.values())


class _MemoExecution:
    def __init__(self, engine: MemoEngine, execution: Execution) -> None:
        self._engine, self._execution = engine, execution
        self.buffers = execution.buffers

    def run(self) -> None:
        digest = hashlib.sha256()
        for tensor in self._engine.graph.inputs:
            digest.update(self.buffers[tensor.name].data)
        key = digest.digest()
        known = self._engine.recall(key)
        if known is None:
            self._execution.run()
            outputs = {tensor.name: self.buffers[tensor.name].copy() for tensor in self._engine.graph.outputs}
            self._engine.remember(key, outputs)
            return
        for name, value in known.items():
            self.buffers[name][...] = value

    def capture(self) -> str:
        return self._execution.capture()
