"""One chunk of video from one window of audio: the static-dynamic loop over five engines.

In: a window of samples, the session's carried latents, a seed. Out: uint8 frames. All buffers are bound once;
the audio keys and values go from the conditioner to the denoiser without a copy, and so do the latents to the
decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..bundle.contract import audio_state_names, carried_sizes, chunk_sizes
from ..engines.interface import Engine, Execution
from ..errors import SpecError
from ..spec import ModelSpec, unknown
from .carry import Carry, CleanCarry, LoopState, NoisyCarry
from .color import ColorMatcher
from .device_frames import DeviceFrames
from .interface import Loop, Reference, StageClock, frame_windows, require_finite
from .noise import normal
from .pixels import Frames, to_frames
from .solvers import denoise, schedule_of

LoopMaker = Callable[[ModelSpec, Reference, int], Loop]
"""Makes a session's loop from the model, the portrait and a seed."""


class ChunkLoop:
    """Renders consecutive chunks of one session; holds its buffers and carried latents."""

    on_device: DeviceFrames | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, engines: Mapping[str, Engine], spec: ModelSpec, reference: Reference, seed: int) -> None:
        """Bind every engine to this session's buffers.

        Raises:
            EngineError: an engine does not fit.
            SpecError: the spec's carry is unknown, or that of a causal model.
        """
        self._spec, self._seed = spec, seed
        self._state = LoopState()
        self._audio = engines["audio_encoder"].prepare(sizes=chunk_sizes(spec))
        self._conditioner = engines["conditioner"].prepare()
        shared = {name: self._conditioner.buffers[name] for name in audio_state_names(spec)}
        self._dit = engines["dit"].prepare(shared)
        self._decoder = engines["vae_decoder"].prepare(
            {"latents": self._dit.buffers["latents"]} if spec.batch == 1 else None
        )
        self._dit.buffers["reference"][...] = reference.latents
        self._frame_windows = frame_windows(spec)
        static = reference.latents[0, :, :1].copy()
        self._carry: Carry
        self._reencoding: tuple[CleanCarry, Execution] | None = None
        match spec.carry:
            case "noisy":
                self._carry = NoisyCarry(spec.carried_latents, static)
            case "clean":
                clean = CleanCarry(static)
                encoder = engines["vae_encoder"].prepare(sizes=carried_sizes(spec))
                self._carry, self._reencoding = clean, (clean, encoder)
            case "cached":
                raise SpecError(f"The model {spec.name!r} is causal; render it with CausalLoop.")
            case other:
                raise unknown("carry", other)
        self._matcher = ColorMatcher(reference.portrait, spec.color_match) if spec.color_match else None
        self._guided = np.zeros(spec.latent_shape, np.float32)

    @property
    def waveform(self) -> NDArray[np.float32]:
        """The buffer that takes the chunk's audio window, float32 [window_samples], before `render`."""
        waveform: NDArray[np.float32] = self._audio.buffers["waveform"][0]
        return waveform

    @property
    def state(self) -> LoopState:
        """Where the loop stands; see `Loop.state`."""
        return self._state

    def restore(self, state: LoopState) -> None:
        """Stand where `state` says; see `Loop.restore`."""
        self._state = state

    def render(
        self, steps: int, frame_step: int = 1, features: NDArray[np.float32] | None = None
    ) -> tuple[Frames, dict[str, float]]:
        """Render the next chunk; see `Loop.render`, also for what it raises."""
        clock = StageClock()
        self._carry.past = self._state.past
        heard = self._conditioner.buffers["audio_features"][0]
        if features is not None:
            heard[...] = features
        else:
            self._audio.run()
            encoded = self._audio.buffers["audio_features"]
            require_finite(encoded, "audio_encoder")
            clock.lap("audio_encoder")
            np.take(encoded, self._frame_windows, axis=0, out=heard, mode="clip")
        self._conditioner.run()
        clock.lap("conditioner")
        latents = self._dit.buffers["latents"][0]
        denoise(latents, schedule_of(self._spec, steps), self._spec.solver, self._carry, self._noise, self._velocity)
        clock.lap("denoise")
        if self._spec.batch > 1:
            self._decoder.buffers["latents"][0] = latents
        self._decoder.run()
        # uint8 frames cannot hold a NaN, so the decoder reports the mean magnitude before the conversion.
        require_finite(self._decoder.buffers["magnitude"], "vae_decoder")
        frames = self._decoder.buffers["frames"]
        new = frames[-self._spec.new_frames :: frame_step]
        clock.lap("vae_decoder")
        if self._matcher is not None:
            # A clean carry encodes the frames between as well.
            self._matcher.apply(new if self._reencoding is None else frames)
            clock.lap("color_match")
        if self._reencoding is not None:
            carry, encoder = self._reencoding
            encoder.buffers["frames"][...] = frames[-self._spec.carried_frames :]
            encoder.run()
            carried = encoder.buffers["latents"]
            require_finite(carried, "vae_encoder")
            carry.advance(carried[0])
            clock.lap("vae_encoder")
        self._state = self._state.after(self._carry.past)
        return new.copy() if new.dtype == np.uint8 else to_frames(new), clock.seconds

    def _noise(self, draw: int) -> NDArray[np.float32]:
        return normal(self._spec.latent_shape, self._seed, self._state.index, draw)

    def _velocity(self, t: float) -> NDArray[np.float32]:
        buffers = self._dit.buffers
        buffers["timestep"][0] = self._spec.timestep_of(t)
        if self._spec.batch > 1:
            buffers["latents"][1] = buffers["latents"][0]
        self._dit.run()
        velocity: NDArray[np.float32] = buffers["velocity"]
        if not np.isfinite(velocity).all():
            for name, state in self._conditioner.buffers.items():
                require_finite(state, "conditioner" if name != "audio_features" else "audio_encoder")
            require_finite(velocity, "dit")
        if self._spec.batch == 1:
            velocity = velocity[0]
            return velocity
        # v = v_uncond + s (v_cond - v_uncond)
        np.subtract(velocity[0], velocity[1], out=self._guided)
        self._guided *= np.float32(self._spec.guidance_scale)
        self._guided += velocity[1]
        return self._guided
