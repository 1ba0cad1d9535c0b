"""Two plans of one graph side by side on the GPU that built them: how long each takes, and whether they agree."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rap_edge.runtime.engines.tensorrt_engine import DTYPES
from rap_edge.runtime.errors import EngineError
from rap_edge.runtime.machine.cuda import Cuda, CudaStream

_WARM_UPS, _ROUNDS = 3, 21


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    milliseconds: median of one run by plan.
    difference: between the plans' outputs, root mean square over that of the first plan's; NaN if one has NaN.
    """

    milliseconds: Mapping[str, float]
    difference: float


def compare_plans(module: Any, logger: Any, plans: Mapping[str, Any], cuda: Cuda | None = None) -> Comparison:
    """Run two plans in turns, so that a change of the clocks meets both, on the same random inputs.

    Args:
        module: of TensorRT.
        logger: its `ILogger`.
        plans: by name, serialised, with static shapes.
        cuda: the GPU; None opens it.

    Raises:
        EngineError: a plan cannot be loaded or run, or the GPU has no room for both.
    """
    cuda = cuda or Cuda()
    stream = cuda.stream()
    runs = {name: _Run(module, logger, plan, cuda, stream) for name, plan in plans.items()}
    times: dict[str, list[float]] = {name: [] for name in plans}
    for turn in range(_WARM_UPS + _ROUNDS):
        for name, run in runs.items():
            seconds = run.seconds()
            if turn >= _WARM_UPS:
                times[name].append(1000.0 * seconds)
    first, second = (run.outputs() for run in runs.values())
    apart = sum(float(np.square(second[name] - values).sum()) for name, values in first.items())
    size = sum(float(np.square(values).sum()) for values in first.values())
    return Comparison(
        {name: statistics.median(values) for name, values in times.items()}, float(np.sqrt(apart / max(size, 1e-30)))
    )


class _Run:
    """One plan with buffers; every plan of a graph gets the same inputs."""

    def __init__(self, module: Any, logger: Any, plan: Any, cuda: Cuda, stream: CudaStream) -> None:
        self._runtime = module.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._context = self._engine.create_execution_context() if self._engine is not None else None
        if self._context is None:
            raise EngineError("The GPU cannot load both plans at once; free GPU memory.")
        self._stream = stream
        self._started, self._ended = cuda.event(), cuda.event()
        self._memory, self._arrays = {}, {}
        names = sorted(self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors))
        self._outputs = [name for name in names if self._engine.get_tensor_mode(name).name == "OUTPUT"]
        random = np.random.default_rng(0)
        for name in names:
            # Zeros would let the GPU clock higher than data does.
            values = random.random(tuple(self._engine.get_tensor_shape(name)))
            self._arrays[name] = values.astype(DTYPES[self._engine.get_tensor_dtype(name).name])
            self._memory[name] = cuda.device_memory(values.nbytes)
            stream.upload(self._memory[name].address, self._arrays[name])
            self._context.set_tensor_address(name, self._memory[name].address)
        stream.synchronize()

    def seconds(self) -> float:
        """Time on the GPU of one run."""
        assert self._context is not None  # it goes when the comparison ends
        self._stream.record(self._started)
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError("A plan failed on the GPU that built it.")
        self._stream.record(self._ended)
        self._stream.synchronize()
        return self._ended.seconds_since(self._started)

    def outputs(self) -> dict[str, NDArray[np.float64]]:
        """What the last run gave."""
        for name in self._outputs:
            self._stream.download(self._arrays[name], self._memory[name].address)
        self._stream.synchronize()
        return {name: self._arrays[name].astype(np.float64) for name in self._outputs}
