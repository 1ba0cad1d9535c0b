"""`ModelSpec`: everything in which RAP and its relatives differ, as data.

The chunk loop, the exporter and the engines read these fields and have no other knowledge of a model. Sources:
RAP (arXiv 2508.05115), SoulX-FlashHead (arXiv 2602.07449) and its published inference code.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Never

from .checks.bounds import Count, Real, Text, Whole
from .checks.fields import FieldError, check_record, record_from, refuse_unknown_keys
from .errors import SpecError

Attention = Literal["full", "block-causal"]
Decoder = Literal["full", "causal"]
Carry = Literal["noisy", "clean", "cached"]
Solver = Literal["euler", "renoise"]
AudioBranches = Literal["shared", "separate"]
TimestepDtype = Literal["float32", "bfloat16"]
Resizing = Literal["lanczos", "bilinear"]
Crop = Literal["auto", "face", "centre", "none"]
AudioEncodeMode = Literal["stream", "once"]
"""Whether the audio encoder hears a rolling window for every chunk, or the whole sound at once."""
# Denoise steps per chunk, and the longest chunk that is asked for.
STEPS, LATENCY = Whole(1, 1000), Real(0.01, 60.0, "seconds")


_Side = Annotated[int, Whole(1, 8192, "pixels")]


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Where a model wants the face, shares of the picture: the square around brows, cheeks and chin.

    Attributes:
        face_side: its side, of the picture's shorter side.
        face_x, face_y: its centre, of the width from the left and of the height from above.
    """

    face_side: Annotated[float, Real(0.05, 1.0)]
    face_x: Annotated[float, Real(0.0, 1.0)] = 0.5
    face_y: Annotated[float, Real(0.0, 1.0)] = 0.5


@dataclass(frozen=True, kw_only=True)
class PortraitMap:
    """One feature map of the portrait that a causal decoder reads: `channels` over `side` x `side` cells."""

    channels: Annotated[int, Whole(1, 4096)]
    side: Annotated[int, Whole(1, 8192, "cells")]


@dataclass(frozen=True, kw_only=True)
class Caches:
    """What a causal model keeps of its past, instead of denoising and decoding it again.

    Attributes:
        past_latents: latents before itself whose keys and values a latent sees, in every layer.
        look_ahead: frames after a latent that it hears; as many before it are heard too.
        audio_state: numbers that the audio encoder leaves from latent to latent.
        decoder_state: numbers that the decoder leaves from latent to latent.
        portrait_maps: what the encoder gives of the portrait besides its latent, for the decoder.
    """

    past_latents: Annotated[int, Whole(1, 4096)]
    look_ahead: Annotated[int, Whole(0, 255, "frames")]
    audio_state: Annotated[int, Whole(1, 1 << 24)]
    decoder_state: Annotated[int, Whole(1, 1 << 24)]
    portrait_maps: Annotated[tuple[PortraitMap, ...], Count(16)]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One audio-driven portrait model, as data. Immutable; `validate()` names an illegal combination.

    Attributes:
        name: identifies the model in reports and file names.
        image_size: height and width of a frame in pixels; one number makes a square.
        fps: frames per second of the video; also the rate of the audio features in Hz.
        latent_channels: channels of a VAE latent.
        spatial_compression: pixels per latent cell along height and width.
        temporal_compression: frames per latent after the first; the first latent is one frame.
        chunk_latents: latents per chunk, k; a chunk decodes to `temporal_compression * (k - 1) + 1` frames.
        carried_latents: latents handed from chunk to chunk, n.
        carry: "noisy" places the previous chunk's intermediate latents level by level (RAP, static-dynamic
            inference); "clean" re-encodes the last decoded frames (FlashHead); "cached" hands over what the networks
            keep of their past (block-causal attention and a causal decoder).
        solver: "euler" integrates the velocity; "renoise" predicts the clean latent and adds fresh noise.
        timesteps: levels before shifting, from 1000 down to 0; one denoise step per interval.
        shift: timestep shift s, `t' = s t / (1 + (s - 1) t)` with t in 0..1.
        guidance_scale: audio classifier-free guidance; 1 runs the conditional branch alone.
        color_match: strength in 0..1 of matching each chunk's Lab mean and deviation to the portrait's.
        sample_rate: audio samples per second that the audio encoder takes.
        audio_window_seconds: the rolling audio that is encoded for every chunk, in seconds.
        feature_window: consecutive feature frames around each video frame that the DiT sees (odd).
        feature_layers: hidden states of the audio encoder stacked per feature frame.
        feature_width: width of one hidden state.
        audio_tokens: audio tokens per latent frame.
        hidden_dim: width of the DiT.
        num_heads: attention heads of the DiT.
        num_layers: blocks of the DiT.
        alpha: per layer, the weight of the per-frame window branch in hybrid attention; `1 - alpha` weighs
            the branch that sees all audio tokens (RAP, hybrid attention).
        audio_branches: whether the two branches share keys and values or have their own.
        idle_replays: how often a chunk of settled silence is shown again, alternately backwards and forwards, before
            the next silent chunk is rendered; 0 renders every chunk.
        attention: "full" denoises a chunk's latents together; "block-causal" one latent after the other, over the keys
            and values of those before it (self-forcing, arXiv 2506.08009).
        decoder: "full" decodes a chunk's latents together, the first to one frame; "causal" each to
            `temporal_compression` frames, from what the latent before left.
        caches: what a causal model keeps of its past; None for the others.
        timestep_dtype: to which the DiT's timesteps are rounded; the solver's levels are not.
        portrait_resizing: filter that brings a portrait to its size, "bilinear" in FlashHead's published code.
        framing: where the model wants the face; None takes portraits as they are.
    """

    name: Annotated[str, Text(64)]
    image_size: tuple[_Side, _Side]
    fps: Annotated[int, Whole(1, 240, "frames per second")]
    latent_channels: Annotated[int, Whole(1, 4096)]
    spatial_compression: Annotated[int, Whole(1, 256, "pixels")]
    temporal_compression: Annotated[int, Whole(1, 64, "frames")]
    chunk_latents: Annotated[int, Whole(1, 256)]
    carried_latents: Annotated[int, Whole(0, 255)]
    carry: Carry
    solver: Solver
    timesteps: Annotated[tuple[Annotated[float, Real(0.0, 1000.0)], ...], Count(STEPS.high + 1)]
    shift: Annotated[float, Real(0.001, 1000.0)]
    guidance_scale: Annotated[float, Real(1.0, 100.0)]
    color_match: Annotated[float, Real(0.0, 1.0)]
    sample_rate: Annotated[int, Whole(1000, 768_000, "Hz")]
    audio_window_seconds: Annotated[float, Real(0.004, 300.0, "seconds")]
    feature_window: Annotated[int, Whole(1, 255, "frames")]
    feature_layers: Annotated[int, Whole(1, 256)]
    feature_width: Annotated[int, Whole(1, 16384)]
    audio_tokens: Annotated[int, Whole(1, 4096)]
    hidden_dim: Annotated[int, Whole(2, 32768)]
    num_heads: Annotated[int, Whole(1, 1024)]
    num_layers: Annotated[int, Whole(1, 1024)]
    alpha: Annotated[tuple[Annotated[float, Real(0.0, 1.0)], ...], Count(1024)]
    audio_branches: AudioBranches
    idle_replays: Annotated[int, Whole(0, 1000)]
    attention: Attention = "full"
    decoder: Decoder = "full"
    caches: Caches | None = None
    timestep_dtype: TimestepDtype = "float32"
    portrait_resizing: Resizing = "lanczos"
    framing: Framing | None = None

    def __post_init__(self) -> None:
        """One number is both height and width."""
        if isinstance(self.image_size, int):
            object.__setattr__(self, "image_size", (self.image_size, self.image_size))

    @property
    def chunk_frames(self) -> int:
        """Frames that one chunk spans, the carried ones included."""
        frames = self.temporal_compression * self.chunk_latents
        return frames if self.decoder == "causal" else frames - self.temporal_compression + 1

    @property
    def new_latents(self) -> int:
        """Latents that one chunk adds to the video."""
        return self.chunk_latents - self.carried_latents

    @property
    def new_frames(self) -> int:
        """Frames that one chunk adds to the video; the same for every chunk."""
        return self.new_latents * self.temporal_compression

    @property
    def carried_frames(self) -> int:
        """Frames at a chunk's start that belong to the previous chunk."""
        return self.chunk_frames - self.new_frames

    @property
    def decoded_frames(self) -> int:
        """Last frames of a chunk that the decoder gives: the new ones, and all that a clean carry re-encodes."""
        return max(self.new_frames, self.carried_frames) if self.carry == "clean" else self.new_frames

    @property
    def frames_dtype(self) -> str:
        """Numpy dtype name of the VAE's frames: uint8 where they are only shown, else float32, not rounded yet."""
        worked_on = self.carry == "clean" or (self.color_match > 0.0 and self.caches is None)
        return "float32" if worked_on else "uint8"

    @property
    def chunk_seconds(self) -> float:
        """Seconds of video and of audio that one chunk covers."""
        return self.new_frames / self.fps

    @property
    def samples_per_frame(self) -> int:
        """Audio samples per video frame."""
        return self.sample_rate // self.fps

    @property
    def chunk_samples(self) -> int:
        """Audio samples that one chunk consumes."""
        return self.new_frames * self.samples_per_frame

    @property
    def window_samples(self) -> int:
        """Audio samples in the rolling window that is encoded for every chunk."""
        return self.window_frames * self.samples_per_frame

    @property
    def look_ahead_samples(self) -> int:
        """Audio samples behind a chunk that it hears too."""
        return 0 if self.caches is None else self.caches.look_ahead * self.samples_per_frame

    @property
    def priming_latents(self) -> int:
        """Latents' worth of sound, up to what a causal model's first one hears ahead, that it has to have heard."""
        return 0 if self.caches is None else -(-2 * self.caches.look_ahead // self.temporal_compression)

    def window_of(self, index: int) -> tuple[int, int]:
        """First sample, and the one behind the last, of what chunk `index` hears; negative ones are silence."""
        stop = (index + 1) * self.chunk_samples + self.look_ahead_samples
        return stop - self.window_samples, stop

    @property
    def window_frames(self) -> int:
        """Feature frames that the rolling audio window gives."""
        return round(self.audio_window_seconds * self.fps)

    @property
    def height(self) -> int:
        """Of a frame, in pixels."""
        return self.image_size[0]

    @property
    def width(self) -> int:
        """Of a frame, in pixels."""
        return self.image_size[1]

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return self.height * self.width

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of a latent in cells."""
        return self.height // self.spatial_compression, self.width // self.spatial_compression

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_dim // self.num_heads

    @property
    def guided(self) -> bool:
        """Whether the denoiser runs a conditional and an unconditional row."""
        return self.guidance_scale != 1.0

    @property
    def batch(self) -> int:
        """Rows of every denoiser and conditioner tensor: 2 under guidance (conditional first), else 1."""
        return 2 if self.guided else 1

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape [C, k, h, w] of a chunk's latents."""
        return (self.latent_channels, self.chunk_latents, *self.latent_size)

    def schedule(self) -> tuple[float, ...]:
        """Shifted timesteps in 0..1000, one more than there are denoise steps; the last is 0."""
        return tuple(
            1000.0 * self.shift * (t / 1000.0) / (1.0 + (self.shift - 1.0) * (t / 1000.0)) for t in self.timesteps
        )

    def timestep_of(self, level: float) -> float:
        """What the DiT is told of a level of `schedule`, in 0..1000."""
        if self.timestep_dtype == "float32" or level == 0.0:
            return level
        # Of the 24 bits of a float32's mantissa a bfloat16 has 8.
        unit = 2.0 ** (math.frexp(level)[1] - 8)
        return round(level / unit) * unit

    def with_steps(self, steps: int) -> ModelSpec:
        """The same model sampled with `steps` evenly spaced denoise steps before shifting.

        Raises:
            SpecError: `steps` is not within `STEPS`.
        """
        if fault := STEPS.fault(steps):
            raise SpecError(f"The denoise steps of a chunk {fault}; pass --steps in that range.")
        timesteps = tuple(1000.0 * (1.0 - i / steps) for i in range(steps + 1))
        return dataclasses.replace(self, timesteps=timesteps).validate()

    @property
    def steps(self) -> int:
        """Denoise steps per chunk."""
        return len(self.timesteps) - 1

    def with_new_latents(self, new_latents: int) -> ModelSpec:
        """The same model with fewer new latents per chunk: shorter chunks, less latency, more work per second.

        The graphs stay as they are: a chunk keeps its k latents, of which more are carried. With a cache it has fewer
        latents, and the work per second stays the same.

        Raises:
            SpecError: less than 1, more than the model was exported for, or, with a clean carry, so few that the
                decoder does not give all the frames that would have to be encoded again.
        """
        if not 1 <= new_latents <= self.new_latents:
            raise SpecError(
                f"A chunk of {self.name!r} can have 1 to {self.new_latents} new latents, not {new_latents}; pass one "
                "of these."
            )
        if self.carry == "cached":
            return dataclasses.replace(self, chunk_latents=new_latents).validate()
        spec = dataclasses.replace(self, carried_latents=self.chunk_latents - new_latents)
        if spec.carry == "clean" and spec.carried_frames > self.decoded_frames:
            raise SpecError(
                f"With {new_latents} new latents a chunk of {self.name!r} would encode {spec.carried_frames} frames "
                f"again and its decoder gives {self.decoded_frames}; choose more new latents."
            )
        return spec.validate()

    def with_latency(self, seconds: float) -> ModelSpec:
        """The same model with the longest chunks that are not longer than `seconds`; see `with_new_latents`.

        Raises:
            SpecError: no chunk of this model is that short.
        """
        # No chunk is longer than the model's, and no number of latents than a number can be.
        longest = min(seconds, self.chunk_seconds) if math.isfinite(seconds) else 0.0
        latents = int(longest * self.fps / self.temporal_compression + 1e-6)
        if latents < 1:
            raise SpecError(
                f"No chunk of {self.name!r} is as short as {seconds} s; the shortest lasts "
                f"{self.temporal_compression / self.fps:.2f} s."
            )
        return self.with_new_latents(min(latents, self.new_latents))

    def validate(self) -> ModelSpec:
        """Return self if every field and combination is legal.

        Raises:
            SpecError: names the first field or combination that cannot work.
        """
        try:
            check_record(self)
        except FieldError as error:
            raise SpecError(f"{error}; correct the spec.") from None
        if not self.name or any(not (c.isalnum() or c in "-_.") for c in self.name) or self.name[0] == ".":
            raise SpecError(f"Spec name {self.name!r} must be letters, digits, '-', '_' and '.'; rename it.")
        for rule, sentence in (
            (
                all(side % self.spatial_compression == 0 for side in self.image_size),
                f"image_size {self.image_size} is not a multiple of spatial_compression {self.spatial_compression} in "
                "height and width; choose multiples.",
            ),
            (
                self.carried_latents < self.chunk_latents,
                f"carried_latents {self.carried_latents} must be less than chunk_latents "
                f"{self.chunk_latents}; lower it or lengthen the chunk.",
            ),
            (
                self.sample_rate % self.fps == 0,
                f"sample_rate {self.sample_rate} is not a multiple of fps {self.fps}, so audio and video would "
                "drift apart; choose rates that divide.",
            ),
            (
                len({self.attention == "block-causal", self.decoder == "causal", self.carry == "cached"}) == 1
                and (self.caches is not None) == (self.carry == "cached"),
                "attention 'block-causal', decoder 'causal', carry 'cached' and caches need each other; give all of "
                "them or none.",
            ),
            (
                self.caches is None or self.caches.look_ahead <= self.temporal_compression,
                "look_ahead must not be longer than a latent, temporal_compression; lower it.",
            ),
            (
                self.carry == "cached" or (self.carried_latents >= 1 and self.chunk_latents >= 2),
                f"carry {self.carry!r} needs at least 1 of carried_latents and 2 of chunk_latents; raise them.",
            ),
            (
                self.carry != "cached" or (self.carried_latents, self.batch, self.feature_window) == (0, 1, 1),
                "carry 'cached' needs carried_latents 0, guidance_scale 1 and feature_window 1; correct them.",
            ),
            (
                abs(self.audio_window_seconds * self.fps - self.window_frames) < 1e-6
                and self.window_frames >= self.chunk_frames + self.priming_latents * self.temporal_compression,
                f"audio_window_seconds {self.audio_window_seconds} must be a whole number of frames and hold the "
                f"{self.chunk_frames + self.priming_latents * self.temporal_compression} frames that a chunk needs; "
                "lengthen it.",
            ),
            (
                self.feature_window % 2 == 1,
                f"feature_window {self.feature_window} must be odd so that it has a centre; change it.",
            ),
            (
                self.hidden_dim % self.num_heads == 0 and self.head_dim % 2 == 0,
                f"hidden_dim {self.hidden_dim} must split into {self.num_heads} heads of even width for "
                "rotary embedding; change num_heads.",
            ),
            (
                len(self.alpha) == self.num_layers,
                f"alpha needs one value for each of the {self.num_layers} layers and has "
                f"{len(self.alpha)}; correct the list.",
            ),
            (
                len(self.timesteps) >= 2
                and self.timesteps[-1] == 0.0
                and all(a > b for a, b in pairwise(self.timesteps)),
                "timesteps must fall from at most 1000 to exactly 0 with at least one step; correct the list.",
            ),
            (
                not (self.carry == "noisy" and self.solver == "renoise"),
                "carry 'noisy' needs the solver 'euler': 'renoise' draws fresh noise at every level, so the "
                "previous chunk's intermediate latents do not lie on this chunk's path; use carry 'clean'.",
            ),
        ):
            if not rule:
                raise SpecError(sentence)
        return self

    def to_json(self) -> str:
        """The spec as a JSON object with one key per field."""
        return json.dumps(self.to_dict(), indent=2)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON types."""
        # A field that came later is left out at its default: what was written before it is written still.
        hidden = {each.name for each in dataclasses.fields(self) if getattr(self, each.name) == each.default}
        data = {key: _plain(value) for key, value in dataclasses.asdict(self).items() if key not in hidden}
        return data | {"image_size": self.height if self.height == self.width else [self.height, self.width]}

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read and validate a spec that `to_json` wrote.

        Raises:
            SpecError: the text is not JSON, a key is missing, unknown or of another type, or the values are
                illegal together.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"The spec is not JSON ({error}); export it again or mend the file.") from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: object) -> ModelSpec:
        """Read and validate a spec from plain JSON types; raises `SpecError` as `from_json` does."""
        try:
            refuse_unknown_keys(cls, data)
            if isinstance(data, Mapping) and isinstance(side := data.get("image_size"), int):
                data = {**data, "image_size": [side, side]}
            spec = record_from(cls, data)
        except FieldError as error:
            raise SpecError(f"The spec cannot be read: {error}; correct it or upgrade rap-edge.") from None
        return spec.validate()


def _plain(value: Any) -> Any:
    """Tuples as lists, at any depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """A size in pixels, of which one number makes a square."""
    return (size, size) if isinstance(size, int) else size


def unknown(field: str, value: Never) -> SpecError:
    """The error of the last case of a `match` over a spec's field; mypy refuses it where a value has no case."""
    return SpecError(f"The spec's {field} {value!r} is unknown; correct it or upgrade rap-edge.")


def linear_alpha(num_layers: int, w: float = 1.0, delta: float = 0.0) -> tuple[float, ...]:
    """Alpha per layer, linear in depth and clipped to 0..1 (RAP: best w=1, delta=0; the direction is our choice).

    Args:
        num_layers: blocks of the DiT.
        w: slope over the whole depth.
        delta: value of the first layer.
    """
    depth = max(num_layers - 1, 1)
    return tuple(min(max(w * layer / depth + delta, 0.0), 1.0) for layer in range(num_layers))
