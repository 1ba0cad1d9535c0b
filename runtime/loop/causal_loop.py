"""One chunk of video latent by latent, over what the networks keep of their past (block-causal models).

In: a window of samples, the session's caches, a seed. Out: uint8 frames. A latent costs the same whatever was before it
and however many make a chunk, and it comes out the same. Source: the roll-out of self-forcing (arXiv 2506.08009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ..bundle.contract import audio_state_names, cache_names
from ..engines.interface import Engine, Execution
from ..errors import SpecError
from ..spec import ModelSpec
from .carry import Cached, LoopState, NoCarry, Sound
from .color import ColorMatcher
from .device_frames import DeviceFrames
from .interface import Reference, StageClock, require_finite
from .noise import normal
from .pixels import Frames, to_frames, to_pixels
from .solvers import denoise, schedule_of

Floats = NDArray[np.float32]
# Latents of silence, which no audio encoder remembers for longer.
MOST_SILENCE = 64


@dataclass(frozen=True)
class Opening:
    """What a session begins with, the same for every session of a portrait; not written to any more.

    Attributes:
        silence: what is kept of endless silence.
        first: what the networks keep of the portrait.
    """

    silence: Sound
    first: Cached


class CausalLoop:
    """Renders consecutive chunks of one session; holds its buffers and caches.

    Attributes:
        opening: what it began with.
    """

    on_device: DeviceFrames | None = None
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        engines: Mapping[str, Engine],
        spec: ModelSpec,
        reference: Reference,
        seed: int,
        opening: Opening | None = None,
    ) -> None:
        """Bind every engine to this session's buffers, and let the networks see the portrait as the first latent.

        Args:
            engines: one for every graph of the contract.
            spec: of the model.
            reference: its portrait.
            seed: of the noise.
            opening: of another loop over the same engines and portrait; None finds it.

        Raises:
            EngineError: an engine does not fit.
            NumericalError: a network gave NaN or Inf for the portrait.
            SpecError: the spec has no caches.
        """
        if spec.caches is None:
            raise SpecError(f"The model {spec.name!r} has no caches; render it with ChunkLoop.")
        self._spec, self._seed, self._ahead = spec, seed, spec.caches.look_ahead
        self._waveform = np.zeros(spec.window_samples, np.float32)
        self._audio = engines["audio_encoder"].prepare()
        self._conditioner = engines["conditioner"].prepare()
        self._dit = engines["dit"].prepare({name: self._conditioner.buffers[name] for name in audio_state_names(spec)})
        self._decoder = engines["vae_decoder"].prepare({"latents": self._dit.buffers["latents"]})
        # By name, what a run leaves to the next one, and who runs.
        self._caches = {
            name: execution
            for graph, execution in (("dit", self._dit), ("vae_decoder", self._decoder))
            for name in cache_names(engines[graph].graph)
        }
        self._dit.buffers["reference"][...] = reference.latents
        self._decoder.buffers["portrait"][0] = reference.portrait
        for name, values in reference.maps.items():
            self._decoder.buffers[name][...] = values
        self._matcher = ColorMatcher(reference.portrait, spec.color_match) if spec.color_match else None
        self._clock = StageClock()
        self.opening = opening or self._opened(reference)
        self._state = LoopState()

    @property
    def waveform(self) -> Floats:
        """The buffer that takes the chunk's audio window, float32 [window_samples], before `render`."""
        return self._waveform

    @property
    def state(self) -> LoopState:
        """Where the loop stands; see `Loop.state`."""
        return self._state

    def restore(self, state: LoopState) -> None:
        """Stand where `state` says; see `Loop.restore`."""
        self._state = state

    def render(
        self, steps: int, frame_step: int = 1, features: Floats | None = None
    ) -> tuple[Frames, dict[str, float]]:
        """Render the next chunk from `waveform`; see `Loop.render`, also for what it raises."""
        assert features is None  # a causal model hears as it goes
        spec, clock = self._spec, StageClock()
        self._clock = clock
        past = self._state.past
        cached = past if isinstance(past, Cached) else self.opening.first
        for name, execution in self._caches.items():
            execution.buffers[f"past_{name}"][...] = cached.caches[name]
        fresh = spec.chunk_samples
        heard = self._waveform[:-fresh]
        sound = self._primed(heard) if cached.sound is None else cached.sound
        frames = np.empty((spec.new_frames, *spec.image_size, 3), np.uint8)
        schedule, block = schedule_of(spec, steps), spec.temporal_compression
        for latent in range(spec.chunk_latents):
            start = heard.size + latent * block * spec.samples_per_frame
            sound = self._hear(sound, start)
            self._denoise(schedule, latent)
            self._decode()
            frames[latent * block : (latent + 1) * block] = self._decoder.buffers["frames"]
        new: Frames = frames[::frame_step]
        if self._matcher is not None:
            pixels = to_pixels(new)
            self._matcher.apply(pixels)
            new = to_frames(pixels)
            clock.lap("color_match")
        self._state = self._state.after(self._kept(sound))
        return new.copy(), clock.seconds

    def _opened(self, reference: Reference) -> Opening:
        """Show the networks the portrait, in silence."""
        silent = self._settled()
        self._conditioner.buffers["audio_features"][...] = silent.features[-1]
        self._conditioner.run()
        self._dit.buffers["latents"][...] = reference.latents
        self._remember()
        self._decode()
        return Opening(silent, self._kept(None))

    def _settled(self) -> Sound:
        """What is kept of endless silence: of as much as changes anything."""
        state, sound = np.zeros_like(self._audio.buffers["past_audio"]), np.zeros(self._block, np.float32)
        for _ in range(MOST_SILENCE):
            found = self._encoded(sound, state)
            if np.array_equal(found.state, state):
                break
            state = found.state
        return found

    @property
    def _block(self) -> int:
        """Samples of one latent."""
        return self._spec.temporal_compression * self._spec.samples_per_frame

    def _primed(self, heard: Floats) -> Sound:
        """What is kept of the sound before a chunk, of which the last latents' worth is heard in silence."""
        features, state = [], self.opening.silence.state
        for index in range(self._spec.priming_latents, 0, -1):
            start = heard.size - index * self._block
            found = self._encoded(heard[start : start + self._block], state)
            features.append(found.features)
            state = found.state
        layers = self._audio.buffers["audio_features"].shape[1:]
        known = np.concatenate([np.empty((0, *layers), np.float32), *features])
        return Sound(state, known[len(known) - 2 * self._ahead :])

    def _hear(self, sound: Sound, start: int) -> Sound:
        """Take the sound of one more latent; its keys and values are the conditioner's outputs then."""
        found = self._encoded(self._waveform[start : start + self._block], sound.state)
        features = np.concatenate([sound.features, found.features])
        require_finite(features, "audio_encoder")
        self._clock.lap("audio_encoder")
        self._conditioner.buffers["audio_features"][0] = features
        self._conditioner.run()
        self._clock.lap("conditioner")
        return Sound(found.state, features[self._spec.temporal_compression :])

    def _encoded(self, samples: Floats, state: Floats) -> Sound:
        """The features of one latent's sound, and the state behind it."""
        buffers = self._audio.buffers
        buffers["waveform"][0], buffers["past_audio"][...] = samples, state
        self._audio.run()
        return Sound(buffers["next_audio"].copy(), buffers["audio_features"].copy())

    def _denoise(self, schedule: tuple[float, ...], latent: int) -> None:
        """Make the next latent, and let the network remember it."""
        spec, number = self._spec, self._state.index * self._spec.chunk_latents + latent
        shape = (spec.latent_channels, 1, *spec.latent_size)

        def noise(draw: int) -> Floats:
            return normal(shape, self._seed, number, draw)

        denoise(self._dit.buffers["latents"][0], schedule, spec.solver, NoCarry(), noise, self._velocity)
        self._remember()
        self._clock.lap("denoise")

    def _velocity(self, t: float) -> Floats:
        self._dit.buffers["timestep"][0] = self._spec.timestep_of(t)
        self._dit.run()
        velocity: Floats = self._dit.buffers["velocity"]
        if not np.isfinite(velocity).all():
            for state in self._conditioner.buffers.values():
                require_finite(state, "conditioner")
            require_finite(velocity, "dit")
        velocity = velocity[0]
        return velocity

    def _remember(self) -> None:
        """Show the network the clean latent: its keys and values are the next one's past."""
        self._velocity(0.0)
        self._advance(self._dit)

    def _decode(self) -> None:
        """Decode the latent."""
        self._decoder.run()
        # uint8 frames cannot hold a NaN, so the decoder reports the mean magnitude before the conversion.
        require_finite(self._decoder.buffers["magnitude"], "vae_decoder")
        self._advance(self._decoder)
        self._clock.lap("vae_decoder")

    def _advance(self, execution: Execution) -> None:
        for name, owner in self._caches.items():
            if owner is execution:
                execution.buffers[f"past_{name}"][...] = execution.buffers[f"next_{name}"]

    def _kept(self, sound: Sound | None) -> Cached:
        caches = {name: execution.buffers[f"past_{name}"].copy() for name, execution in self._caches.items()}
        return Cached(MappingProxyType(caches), sound)
