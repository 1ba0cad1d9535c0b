"""The loops of `on_host` on a GPU: the same chunks, with everything between sound and frames on the device.

A chunk is a model's `Program`, captured once as a CUDA graph and replayed; its inputs are the waveform and the control
words. The hot path never allocates, rebinds or captures again, except once for each other number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ...bundle.contract import audio_state_names
from ...engines.interface import DeviceEngine
from ...errors import EngineError
from ...machine.cuda import CudaEvent, CudaGraph, PinnedPool
from ...spec import ModelSpec
from ..carry import Cached, LoopState, Past
from ..device_frames import DeviceFrames
from ..interface import Reference, not_finite, require_finite
from ..pixels import Frames
from ..solvers import schedule_of
from .kernels import FLOAT, POINTER, WORD
from .operations import CHECKED, RING, Argument, At, Buffer, Copy, Lap, Launch, Operation, Run
from .programs import program_of
from .shared import Device

# Two runs of the same work may differ in the order of their sums, by a code here and there.
_SAME_CODES = 0.5
# Chunks of frames in page-locked memory of the host: one is shown, one waits, one is rendered.
_LENT = 3
_Kind = tuple[int, bool]
"""A chunk's denoise steps, and whether it is given features instead of a waveform."""


class DeviceChunkLoop:
    """Renders consecutive chunks of one session on a GPU; see `Loop`, whose interface it has.

    Attributes:
        on_device: the last chunk's new frames in device memory, overwritten after `RING` more chunks.
        notes: why chunks are not replayed as a CUDA graph, if they are not.
    """

    def __init__(
        self,
        device: Device,
        engines: Mapping[str, DeviceEngine],
        spec: ModelSpec,
        reference: Reference,
        seed: int,
        *,
        capture: bool = True,
    ) -> None:
        """Allocate the session's memory, run a chunk once, capture it, and compare the replay with it.

        Args:
            device: the GPU; its arena is large enough for `engines`.
            engines: by graph name.
            spec: the model.
            reference: the portrait and its latents.
            seed: of the noise, taken modulo 2**64.
            capture: whether to replay chunks as a CUDA graph.

        Raises:
            EngineError: the GPU has too little memory, or an engine does not fit the contract.
            NumericalError: a network gave NaN or Inf for the portrait.
        """
        self._device, self._stream, self._spec, self._seed = device, device.stream, spec, seed
        self._program = program_of(spec, {name: engine.graph for name, engine in engines.items()})
        self._buffers = self._program.buffers
        self._new = Buffer(self._buffers["ring"].shape[1:], "uint8")
        self._laps: dict[Lap, CudaEvent] = {}
        self._programs: dict[_Kind, tuple[Operation, ...]] = {}
        self._graphs: dict[_Kind, CudaGraph | None] = {}
        self._features: NDArray[np.float32] | None = None
        self._rendered = 0
        self._state = LoopState()
        self.on_device: DeviceFrames | None = None
        self._past_on_device: Past | None = None
        with device.turn:
            device.cuda.activate()
            self._allocate(engines, reference)
            self._first = self._opened()
            # The first run compiles and loads kernels: seconds that must not fall into the first chunk.
            self._begin(spec.schedule())
            self._work((spec.steps, False))
            self._stream.synchronize()
            uncaptured = self._rehearse() if capture else "it was not asked for"
        for engine in engines.values():
            engine.keep_kernels()
        self.notes: tuple[str, ...] = (f"Chunks run without a CUDA graph: {uncaptured}.",) if uncaptured else ()

    @property
    def waveform(self) -> NDArray[np.float32]:
        """The buffer that takes the chunk's audio window, float32 [window_samples], before `render`."""
        return self._waveform

    @property
    def state(self) -> LoopState:
        """Where the loop stands; see `Loop.state`."""
        return self._state

    def restore(self, state: LoopState) -> None:
        """Stand where `state` says; a past that is not on the device is uploaded with the next chunk."""
        self._state = state

    def render(
        self, steps: int, frame_step: int = 1, features: NDArray[np.float32] | None = None
    ) -> tuple[Frames, dict[str, float]]:
        """Render the next chunk; see `Loop.render`. The seconds per stage are the GPU's.

        Raises:
            NumericalError: a stage gave NaN or Inf; names the stage.
            EngineError: the GPU failed, or there are more steps than the session was opened for.
        """
        if steps > self._spec.steps:
            raise EngineError(f"The session was opened for {self._spec.steps} steps, not {steps}; open it for more.")
        levels, slot = schedule_of(self._spec, steps), self._slot()
        with self._device.turn:
            self._device.cuda.activate()
            kind = steps, features is not None
            self._take(features)
            self._begin(levels)
            graph = self._graph(kind)
            if graph is None:
                self._work(kind)
            else:
                graph.launch(self._stream)
            self._stream.copy(slot, self._address(self._program.frames), self._new.nbytes)
            frames = self._download_frames()
            self._require_finite()
        self._rendered += 1
        past = self._program.past_of(levels, self._left)
        self._past_on_device, self._state = past, self._state.after(past)
        seconds = self._seconds(kind)
        height, width, channels = self._new.shape[1:]
        shape = (len(frames), height, width, channels)
        self.on_device = DeviceFrames(slot, shape, frames[0].nbytes, self._memory).every(frame_step, len(frames))
        return frames[::frame_step], seconds

    def _allocate(self, engines: Mapping[str, DeviceEngine], reference: Reference) -> None:
        """One block of device memory with the constants in it, the engines bound to it, and memory of the host."""
        cuda, spec = self._device.cuda, self._spec
        ends = list(accumulate(buffer.room for buffer in self._buffers.values()))
        self._offsets, size = dict(zip(self._buffers, [0, *ends], strict=False)), ends[-1]
        self._memory = cuda.device_memory(size)
        self._stream.clear(self._memory.address, size)
        for name, values in self._program.constants(reference).items():
            self._stream.upload(self._address(name), values)
        # Where GPU and CPU share memory, the values may still be read after the call.
        self._stream.synchronize()
        self._engines = {
            graph: engines[graph].bind(
                self._stream,
                {tensor: self._address(buffer) for tensor, buffer in names.items()},
                self._program.sizes,
                self._device.arena,
            )
            for graph, names in self._program.bindings.items()
        }
        self._waveform = cuda.pinned((spec.window_samples,), np.float32)
        self._control = cuda.pinned(self._buffers["control"].shape, np.uint32)
        self._flags = cuda.pinned(self._buffers["flags"].shape, np.uint32)
        self._lent = PinnedPool(cuda, self._new.shape, np.uint8, _LENT)
        left = {name: self._buffers[name] for name in self._program.left}
        self._left = {name: cuda.pinned(buffer.shape, buffer.dtype) for name, buffer in left.items()}
        self._started = cuda.event()

    def _slot(self) -> int:
        """Where the chunk's frames stay on the device until `RING` more have been rendered."""
        return self._address(At("ring", self._rendered % RING * self._new.nbytes))

    def _address(self, place: str | At) -> int:
        name, offset = (place, 0) if isinstance(place, str) else (place.buffer, place.offset)
        return self._memory.address + self._offsets[name] + offset

    def _opened(self) -> Past | None:
        """What the first chunk begins with, None where its program says so."""
        operations = self._program.opening()
        if not operations:
            return None
        for operation in operations:
            self._put(operation)
        self._download_left()
        self._stream.synchronize()
        self._require_finite()
        past = self._program.past_of(self._spec.schedule(), self._left)
        # The sound before the first chunk is not all silence.
        return replace(past, sound=None) if isinstance(past, Cached) else past

    def _begin(self, levels: tuple[float, ...]) -> None:
        """Write what the next chunk begins with; the device then holds no past that the host knows."""
        state = self._state if self._state.past is not None else replace(self._state, past=self._first)
        past = state.past
        if past is not None and past is not self._past_on_device:
            for name, values in self._program.contents_of(past).items():
                self._stream.upload(self._address(name), np.ascontiguousarray(values))
        self._past_on_device = None
        if operations := self._program.beginning(past):
            self._stream.upload(self._address("waveform"), self._waveform)
            for operation in operations:
                self._put(operation)
        self._control[...] = self._program.control_words(levels, self._seed, state)

    def _take(self, features: NDArray[np.float32] | None) -> None:
        """Bring a chunk's features to where they are uploaded from."""
        if features is None:
            return
        if self._features is None:
            self._features = self._device.cuda.pinned(self._buffers["windows"].shape[1:], np.float32)
        self._features[...] = features

    def _work(self, kind: _Kind) -> None:
        """Put one chunk into the stream."""
        stream = self._stream
        heard, where = (self._features, "windows") if kind[1] else (self._waveform, "waveform")
        assert heard is not None  # `_take` comes first
        stream.upload(self._address(where), heard)
        stream.upload(self._address("control"), self._control)
        stream.record(self._started)
        for operation in self._operations(kind):
            self._put(operation)
        self._download_left()

    def _download_left(self) -> None:
        """What the work has left to the next chunk, and whether all of it was finite."""
        self._stream.download(self._flags, self._address("flags"))
        for name, values in self._left.items():
            self._stream.download(values, self._address(name))

    def _download_frames(self) -> Frames:
        """The new frames once all work is done, in page-locked memory unless all of that is held by somebody."""
        lent = self._lent.lend()
        frames: Frames = np.empty(self._new.shape, np.uint8) if lent is None else lent
        self._stream.download(frames, self._address(self._program.frames))
        self._stream.synchronize()
        return frames

    def _put(self, operation: Operation) -> None:
        match operation:
            case Run(graph):
                self._engines[graph].enqueue()
            case Launch(kernel, items, arguments, blocks):
                typed = [self._argument(argument) for argument in arguments]
                values, types = zip(*typed, strict=True)
                self._device.kernels.launch(self._stream, kernel, items, values, types, blocks)
            case Copy(target, source, nbytes):
                self._stream.copy(self._address(target), self._address(source), nbytes)
            case Lap():
                if operation not in self._laps:
                    self._laps[operation] = self._device.cuda.event()
                self._stream.record(self._laps[operation])

    def _argument(self, argument: Argument) -> tuple[float, type]:
        if isinstance(argument, str | At):
            return self._address(argument), POINTER
        return argument, FLOAT if isinstance(argument, float) else WORD

    def _operations(self, kind: _Kind) -> tuple[Operation, ...]:
        if kind not in self._programs:
            steps, encoded = kind
            self._programs[kind] = self._program.chunk(schedule_of(self._spec, steps), encoded=encoded)
        return self._programs[kind]

    def _graph(self, kind: _Kind) -> CudaGraph | None:
        if self.notes:
            return None
        if kind not in self._graphs:
            try:
                self._graphs[kind] = self._capture(kind)
            except EngineError:
                self._graphs[kind] = None
        return self._graphs[kind]

    def _capture(self, kind: _Kind) -> CudaGraph:
        return self._stream.capture(lambda: self._work(kind))

    def _rehearse(self) -> str:
        """Capture the chunk that has just been run, and compare; returns "" or the reason to run without a graph."""
        if any(engine.uncapturable() for engine in self._engines.values()):
            # Kernels may have been compiled beside the first run, to be used from the next one on.
            self._begin(self._spec.schedule())
            self._work((self._spec.steps, False))
            self._stream.synchronize()
        for name, engine in self._engines.items():
            if reason := engine.uncapturable():
                return f"{name}: {reason}"
        expected = self._download_frames().astype(np.int16)
        try:
            graph = self._capture((self._spec.steps, False))
        except EngineError as error:
            return str(error).rstrip(".")
        self._stream.clear(self._address(self._program.frames), self._new.nbytes)
        self._begin(self._spec.schedule())
        graph.launch(self._stream)
        apart = float(np.abs(self._download_frames() - expected).mean())
        if not apart <= _SAME_CODES:
            return f"its frames were {apart:.1f} codes away from those without it"
        self._graphs[self._spec.steps, False] = graph
        return ""

    def _require_finite(self) -> None:
        failed = [stage for stage, flag in zip(CHECKED, self._flags, strict=True) if flag]
        if not failed:
            return
        if failed[0] == "dit":
            # The audio keys and values are looked at only now: they are too many for every chunk.
            for name in audio_state_names(self._spec):
                buffer = self._buffers[name]
                values = np.empty(buffer.shape, buffer.dtype)
                self._stream.download(values, self._address(name))
                self._stream.synchronize()
                require_finite(values, "conditioner")
        raise not_finite(failed[0])

    def _seconds(self, kind: _Kind) -> dict[str, float]:
        seconds: dict[str, float] = {}
        earlier = self._started
        for lap in self._operations(kind):
            if isinstance(lap, Lap):
                event = self._laps[lap]
                seconds[lap.stage] = seconds.get(lap.stage, 0.0) + event.seconds_since(earlier)
                earlier = event
        return seconds
