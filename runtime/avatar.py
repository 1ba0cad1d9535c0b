"""`Avatar`: a model and a portrait, opened once and shared by any number of sessions."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from .bundle.bundle import Bundle
from .bundle.contract import check_contract
from .bundle.manifest import PortraitFigures
from .bundle.precision import Precision
from .engines.interface import Engine
from .engines.sound_encoder import SoundEncoder
from .errors import BundleError, PortraitError, SessionError, refuse_full_memory
from .inputs.picture.face import can_find_faces
from .inputs.picture.portrait import portrait_for
from .loading import load_engines
from .loop.host_loop import LoopMaker
from .loop.interface import Loop, encode_reference
from .loop.on_host import HostLoops
from .loop.still import decoded_portrait
from .machine.available import available_cores
from .machine.home_process import HomeProcess
from .reports.portrait_likeness import portrait_fault, portrait_figures
from .session.chunk_cost import measure_chunks
from .session.idle_reel import IdleReel
from .session.overload import Overload
from .session.session import Session
from .session.side_by_side import Sharing, share_machine
from .session.stream import AvatarStream
from .session.turns import Turns
from .session.whole_sound import WholeSound
from .spec import AudioEncodeMode, Crop, ModelSpec

# In four seconds a face might not blink at all, or twice and so for ever.
_REEL_SECONDS = 12.0
# Those of the last streams over the same engines: who comes soon after finds the face moving.
_REELS_KEPT = 3
_CLOSED = "The avatar is closed; open it again with Avatar.open()."


class Avatar:
    """Engines and an encoded portrait; immutable, so sessions may use it from several threads.

    Attributes:
        spec: the model.
        precision: of its graphs.
        notes: what a report should say about how it is run.
        portrait_figures: how near the model's own picture of the portrait is to it; None where it was not measured.
        portrait_fault: a sentence where that is less than the model should reach; else "".
        engine: backend and version.
        device: what the engines run on.
    """

    def __init__(
        self,
        spec: ModelSpec,
        engines: Mapping[str, Engine],
        portrait: NDArray[np.uint8],
        precision: Precision,
        *,
        new_loop: LoopMaker | None = None,
        turns: Turns | None = None,
        portrait_gates: PortraitFigures | None = None,
    ) -> None:
        """Encode the portrait.

        Args:
            spec: the model.
            engines: an engine for every graph of the contract.
            portrait: uint8 [*image_size, 3] RGB.
            precision: the graphs' precision, for reports.
            new_loop: makes a session's chunk loop over the engines; None takes the one on the CPU.
            turns: who renders when, where other avatars share the engines; None lets its own sessions take turns.
            portrait_gates: what the model's own picture of a portrait should reach; None measures nothing.

        Raises:
            EngineError: the encoder does not fit its contract.
            NumericalError: the portrait's latents hold NaN or Inf.
        """
        self.spec, self.precision = spec, precision
        self.notes: tuple[str, ...] = ()
        self._shared_cost: float | None = None
        self.engine, self.device = engines["dit"].backend, engines["dit"].device
        self._new_loop: LoopMaker | None = new_loop or HostLoops(engines)
        self._engines: Mapping[str, Engine] | None = engines
        self._portrait_gates = portrait_gates
        self._crop: Crop = "auto"
        self._new_encoder: Callable[[], SoundEncoder] | None = None
        self._take(engines, portrait)
        self._turns, self._home = turns or Turns(), HomeProcess()
        self._reels: WeakValueDictionary[int, IdleReel] = WeakValueDictionary()
        self._last_reels: deque[IdleReel] = deque(maxlen=_REELS_KEPT)
        self._opening = threading.Lock()

    @classmethod
    @refuse_full_memory()
    def open(
        cls,
        bundle: str | Path | Bundle,
        portrait: str | Path | bytes | NDArray[Any] | None = None,
        *,
        steps: int | None = None,
        new_latents: int | None = None,
        threads: int | None = None,
        viewers: int = 1,
        engine: str | None = None,
        fallback: bool = False,
        strict_portrait: bool = False,
        crop: Crop = "auto",
    ) -> Avatar:
        """Check a bundle, load its graphs and encode the portrait.

        Args:
            bundle: the folder that `rap-export` wrote.
            portrait: a picture file, its content, or uint8 [H, W, 3] RGB; None takes the bundle's golden portrait.
            steps: denoise steps per chunk; None takes the spec's.
            new_latents: latents that a chunk adds, the latency dial; None takes the spec's. See
                `ModelSpec.with_new_latents` and `ModelSpec.with_latency`.
            threads: threads per engine; None takes every core that the process may use. As many sessions render at
                the same time as there are cores for.
            viewers: sessions that are expected to render at the same time. For more than one, opening measures whether
                their chunks go faster side by side or in turn, which takes seconds; `notes` then says what it found.
            engine: what runs it: the name of a set of engines, "onnxruntime", "tensorrt-rtx", "tensorrt" or "openvino",
                or the path of a plan, whose whole set is taken; None takes ONNX Runtime.
            fallback: go on with ONNX Runtime where the plans cannot run; `notes` then says why.
            strict_portrait: refuse a portrait that the model cannot draw, of which `portrait_fault` speaks otherwise.
            crop: what of a picture is taken: "auto" brings a badly placed face where the model wants it, if the extra
                `face` is installed; "face" insists on one; "centre" is the middle square, "none" all of it.

        Raises:
            BundleError: the bundle is incomplete, changed, too new or not to be trusted.
            EngineError: an engine cannot be loaded; a `PreflightError` if a plan cannot run here, a `MemoryPlanError`
                if the memory that is free does not hold the model.
            PortraitError: the picture cannot be read, or, under `strict_portrait`, not be drawn by the model.
            SpecError: `steps` is less than 1, or the model does not allow `new_latents`.
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(bundle)
        check_contract(bundle.manifest)
        spec = bundle.manifest.spec if steps is None else bundle.manifest.spec.with_steps(steps)
        spec = spec if new_latents is None else spec.with_new_latents(new_latents)
        if portrait is None:
            golden = bundle.manifest.golden.portrait
            if golden is None:
                raise BundleError("The bundle has no golden portrait; pass a portrait.")
            picture = portrait_for(spec, bundle.read(golden), "centre")
        else:
            picture = portrait_for(spec, portrait, crop)
        loaded = load_engines(bundle, engine, fallback=fallback, threads=threads)
        turns = Turns(max(available_cores() // threads, 1) if threads else 1)
        shared = Sharing(loaded.engines, loaded.new_loop, turns)
        if viewers > 1 and not threads:
            shared = share_machine(bundle, spec, loaded, viewers)
        avatar = cls(
            spec,
            shared.engines,
            picture,
            bundle.manifest.precision,
            new_loop=shared.new_loop,
            turns=shared.turns,
            portrait_gates=bundle.manifest.portrait_gates,
        )
        avatar._crop, avatar._new_encoder = crop, partial(SoundEncoder, bundle, threads)
        if strict_portrait and avatar.portrait_fault:
            raise PortraitError(avatar.portrait_fault)
        avatar.notes, avatar._shared_cost = loaded.notes + shared.notes, shared.seconds or None
        return avatar

    def with_portrait(self, portrait: str | Path | bytes | NDArray[Any]) -> Avatar:
        """The same model with another portrait, over the same engines, which both may use at the same time.

        Their sessions take turns with each other. Each is closed for itself.

        Args:
            portrait: as for `open`.

        Raises:
            PortraitError: the picture cannot be read.
            EngineError: the encoder failed.
            NumericalError: the portrait's latents hold NaN or Inf.
            SessionError: the avatar is closed, or this process was forked from the one that opened it.
        """
        self._home.require()
        if self._engines is None:
            raise SessionError(_CLOSED)
        picture = portrait_for(self.spec, portrait, self._crop)
        other = copy(self)
        other._take(self._engines, picture)
        other._reels, other._opening = WeakValueDictionary(), threading.Lock()
        return other

    @property
    def portrait(self) -> NDArray[np.uint8]:
        """The portrait as the model sees it, uint8 [*image_size, 3] RGB, read-only."""
        picture = self._reference.portrait.view()
        picture.flags.writeable = False
        return picture

    def session(
        self,
        *,
        seed: int = 0,
        sample_rate: int | None = None,
        overload: Overload | None = None,
        clock: Callable[[], float] = time.monotonic,
        audio_encode_mode: AudioEncodeMode = "stream",
    ) -> Session:
        """Open a stream.

        Args:
            seed: of the noise; the same seed and audio give the same frames.
            sample_rate: of the audio that will be pushed, in Hz; None means the spec's.
            overload: what to do when chunks are late, for audio that comes in real time; None renders every chunk in
                full, however late.
            clock: seconds, for deadlines.
            audio_encode_mode: "stream" encodes a rolling window for every chunk; "once" all of the sound when it has
                been finished, before which no chunk is ready. For that the bundle is exported likewise.

        Raises:
            AudioError: the sample rate is impossible.
            BundleError: "once", and the audio encoder takes windows alone.
            SpecError: "once", and the model is causal.
            SessionError: the avatar is closed, or this process was forked from the one that opened it.
        """
        rate = self.spec.sample_rate if sample_rate is None else sample_rate
        whole = WholeSound(self.spec, self._encoder()) if audio_encode_mode == "once" else None
        return Session(self.spec, self._loop(seed), rate, self._turns, overload, clock, whole)

    def stream(
        self, *, seed: int = 0, sample_rate: int | None = None, overload: Overload | None = None
    ) -> AvatarStream:
        """Open a stream that idles while nobody speaks and can be interrupted.

        Args:
            seed: of the noise.
            sample_rate: of the sound that goes with the frames, in Hz, and of what is pushed unless `push` says
                otherwise; None means the spec's.
            overload: what to do when chunks are late; None takes `Overload()`.

        Raises:
            AudioError: the sample rate is impossible.
            SessionError: the avatar is closed, or this process was forked from the one that opened it.
        """
        rate = self.spec.sample_rate if sample_rate is None else sample_rate
        policy = Overload() if overload is None else overload
        return AvatarStream(self.spec, self._loop(seed), self._reel(seed), rate, self._turns, policy)

    @property
    def at_once(self) -> int:
        """Sessions that may render at the same time."""
        return self._turns.at_once

    def shared_cost(self) -> float:
        """Seconds of the machine that a chunk takes among those of other viewers, as far as opening measured them.

        Raises:
            NumericalError, EngineError, SessionError: as `chunk_cost`, which is asked where it did not.
        """
        return self.chunk_cost() if self._shared_cost is None else self._shared_cost

    def chunk_cost(self, rounds: int = 3) -> float:
        """Seconds that a chunk takes here and now: the median of `rounds`, after one that warms the engines up.

        Raises:
            NumericalError, EngineError: a chunk cannot be rendered.
            SessionError: the avatar is closed.
        """
        with self.session() as session:
            return measure_chunks((session,), rounds).seconds

    def close(self) -> None:
        """Let go of the engines; open sessions keep them until they are closed."""
        self._new_loop = self._engines = None
        self._last_reels.clear()

    def __enter__(self) -> Avatar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, engines: Mapping[str, Engine], portrait: NDArray[np.uint8]) -> None:
        """Encode the portrait, and measure what the model makes of it."""
        self._reference = encode_reference(self.spec, engines["vae_encoder"], portrait)
        self.portrait_figures: PortraitFigures | None = None
        self.portrait_fault = ""
        if (gates := self._portrait_gates) is not None:
            self.portrait_figures = portrait_figures(portrait, decoded_portrait(engines, self._reference))
            self.portrait_fault = portrait_fault(self.portrait_figures, gates)
            if self.portrait_fault and self.spec.framing is not None and not can_find_faces():
                self.portrait_fault += " To find and frame the face: pip install 'rap-edge[face]'."

    def _encoder(self) -> SoundEncoder:
        if self._new_encoder is None:
            raise BundleError("An avatar without a bundle encodes no whole sound; open one, or leave 'once' out.")
        return self._new_encoder()

    def _loop(self, seed: int) -> Loop:
        self._home.require()
        if self._new_loop is None:
            raise SessionError(_CLOSED)
        return self._new_loop(self.spec, self._reference, seed)

    def _reel(self, seed: int) -> IdleReel:
        """The reel of all streams with this seed."""
        with self._opening:
            reel = self._reels.get(seed)
            if reel is None:
                reel = IdleReel(self.portrait, self.spec.new_frames, round(_REEL_SECONDS / self.spec.chunk_seconds))
                self._reels[seed] = reel
            self._last_reels.append(reel)
            return reel
