"""The graph contract: names, dtypes and shapes of the five graphs, as a function of the spec.

The exporter writes graphs that obey it; the runtime refuses a bundle that does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import BundleError
from ..spec import AudioEncodeMode, Caches, ModelSpec
from .manifest import GraphInfo, Manifest, TensorInfo

FREE_FRAMES = "frames"
FREE_LATENTS = "latents"
FREE_SAMPLES = "samples"
FREE_FEATURES = "features"
Signature = tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]


def audio_state_names(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the conditioner's outputs, which are inputs of `dit`, layer by layer.

    With separate branches, a branch that has no weight in a layer has no keys and values there.
    """
    names: list[str] = []
    for layer, alpha in enumerate(spec.alpha):
        if spec.audio_branches == "shared" or alpha > 0.0:
            names += [f"audio_key_{layer:02d}", f"audio_value_{layer:02d}"]
        if spec.audio_branches == "separate" and alpha < 1.0:
            names += [f"audio_full_key_{layer:02d}", f"audio_full_value_{layer:02d}"]
    return tuple(names)


def contract(spec: ModelSpec, state_dtype: str, mode: AudioEncodeMode = "stream") -> Mapping[str, Signature]:
    """Inputs and outputs of every graph.

    Args:
        spec: the model.
        state_dtype: dtype of the audio keys and values, "float16" in half precision bundles, else "float32".
        mode: "once" leaves the length of the audio encoder's sound free; not for causal models.
    """
    if spec.caches is not None:
        return _causal_contract(spec, spec.caches, state_dtype)
    features = (spec.feature_layers, spec.feature_width)
    latents = (spec.batch, *spec.latent_shape)
    cells, frame = spec.latent_size, (*spec.image_size, 3)
    tokens = (spec.batch, spec.chunk_latents * spec.audio_tokens, spec.hidden_dim)
    state = tuple(TensorInfo(name, state_dtype, tokens) for name in audio_state_names(spec))
    free = mode == "once"
    samples, heard = (FREE_SAMPLES, FREE_FEATURES) if free else (spec.window_samples, spec.window_frames)
    return {
        "audio_encoder": (
            (TensorInfo("waveform", "float32", (1, samples)),),
            (TensorInfo("audio_features", "float32", (heard, *features)),),
        ),
        "conditioner": (
            (
                TensorInfo(
                    "audio_features",
                    "float32",
                    (spec.batch, spec.chunk_frames, spec.feature_window, *features),
                ),
            ),
            state,
        ),
        "dit": (
            (
                TensorInfo("latents", "float32", latents),
                TensorInfo("reference", "float32", latents),
                TensorInfo("timestep", "float32", (1,)),
                *state,
            ),
            (TensorInfo("velocity", "float32", latents),),
        ),
        "vae_encoder": (
            (TensorInfo("frames", spec.frames_dtype, (FREE_FRAMES, *frame)),),
            (TensorInfo("latents", "float32", (1, spec.latent_channels, FREE_LATENTS, *cells)),),
        ),
        "vae_decoder": (
            (TensorInfo("latents", "float32", (1, *spec.latent_shape)),),
            (
                TensorInfo("frames", spec.frames_dtype, (spec.decoded_frames, *frame)),
                TensorInfo("magnitude", "float32", (1,)),
            ),
        ),
    }


def _causal_contract(spec: ModelSpec, caches: Caches, state_dtype: str) -> Mapping[str, Signature]:
    """Inputs and outputs of graphs that work latent by latent; what is `past_x` comes back as `next_x`."""
    frames, picture = spec.temporal_compression, (*spec.image_size, 3)
    features = (spec.feature_layers, spec.feature_width)
    latent = (1, spec.latent_channels, 1, *spec.latent_size)
    tokens = (1, spec.audio_tokens, spec.hidden_dim)
    state = tuple(TensorInfo(name, state_dtype, tokens) for name in audio_state_names(spec))
    past = (1, spec.num_layers, caches.past_latents, spec.hidden_dim)
    maps = tuple(
        TensorInfo(f"portrait_{i}", "float32", (1, each.channels, each.side, each.side))
        for i, each in enumerate(caches.portrait_maps)
    )

    def states(prefix: str, *tensors: tuple[str, str, tuple[int | str, ...]]) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(f"{prefix}_{name}", dtype, shape) for name, dtype, shape in tensors)

    audio = ("audio", "float32", (1, caches.audio_state))
    attention = (
        ("keys", state_dtype, past),
        ("values", state_dtype, past),
        ("known", "float32", (1, caches.past_latents)),
    )
    decoded = ("frames", "float32", (1, 1, caches.decoder_state))
    return {
        "audio_encoder": (
            (
                TensorInfo("waveform", "float32", (1, frames * spec.samples_per_frame)),
                *states("past", audio),
            ),
            (TensorInfo("audio_features", "float32", (frames, *features)), *states("next", audio)),
        ),
        "conditioner": (
            (TensorInfo("audio_features", "float32", (1, frames + 2 * caches.look_ahead, *features)),),
            state,
        ),
        "dit": (
            (
                TensorInfo("latents", "float32", latent),
                TensorInfo("reference", "float32", latent),
                TensorInfo("timestep", "float32", (1,)),
                *state,
                *states("past", *attention),
            ),
            (TensorInfo("velocity", "float32", latent), *states("next", *attention)),
        ),
        "vae_encoder": (
            (TensorInfo("frames", "uint8", (1, *picture)),),
            (TensorInfo("latents", "float32", latent), *maps),
        ),
        "vae_decoder": (
            (
                TensorInfo("latents", "float32", latent),
                TensorInfo("portrait", "uint8", (1, *picture)),
                *maps,
                *states("past", decoded),
            ),
            (
                TensorInfo("frames", "uint8", (frames, *picture)),
                TensorInfo("magnitude", "float32", (1,)),
                *states("next", decoded),
            ),
        ),
    }


def cache_names(graph: GraphInfo) -> tuple[str, ...]:
    """What a graph of the contract hands to its next run: the names x of its inputs `past_x` and outputs `next_x`."""
    names = (tensor.name.partition("_") for tensor in graph.inputs)
    return tuple(rest for first, _, rest in names if first == "past")


def runs_per_chunk(spec: ModelSpec) -> Mapping[str, int]:
    """How often a chunk's loop runs every graph, besides the portrait's encoding and a causal model's first runs."""
    latents = spec.chunk_latents if spec.carry == "cached" else 1
    return {
        "audio_encoder": latents,
        "conditioner": latents,
        # A clean latent is shown to the network once more, for its keys and values.
        "dit": latents * (spec.steps + (spec.carry == "cached")),
        "vae_decoder": latents,
        "vae_encoder": int(spec.carry == "clean"),
    }


def chunk_sizes(spec: ModelSpec) -> dict[str, int]:
    """The free dimensions of a whole chunk."""
    return {FREE_FRAMES: spec.chunk_frames, FREE_LATENTS: spec.chunk_latents} | sound_sizes(spec, spec.window_frames)


def carried_sizes(spec: ModelSpec) -> dict[str, int]:
    """The free dimensions of what a clean carry encodes again."""
    return chunk_sizes(spec) | {FREE_FRAMES: spec.carried_frames, FREE_LATENTS: spec.carried_latents}


def sound_sizes(spec: ModelSpec, frames: int) -> dict[str, int]:
    """The free dimensions of the sound of so many frames."""
    return {FREE_SAMPLES: frames * spec.samples_per_frame, FREE_FEATURES: frames}


def encode_mode(manifest: Manifest) -> AudioEncodeMode:
    """What a bundle's audio encoder was exported for; one for sound of any length hears windows too."""
    free = any(isinstance(size, str) for tensor in manifest.graphs["audio_encoder"].inputs for size in tensor.shape)
    return "once" if free else "stream"


def check_contract(manifest: Manifest) -> None:
    """Compare the manifest's graphs with the contract of its spec.

    Raises:
        BundleError: names the first graph and tensor that differ.
    """
    outputs = manifest.graphs["conditioner"].outputs
    state_dtype = outputs[0].dtype if outputs and outputs[0].dtype == "float16" else "float32"
    for name, (inputs, outputs) in contract(manifest.spec, state_dtype, encode_mode(manifest)).items():
        check_signature(name, manifest.graphs[name], inputs, outputs)


def check_signature(name: str, graph: GraphInfo, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
    """Compare one graph's inputs and outputs, in any order, with the expected ones.

    Raises:
        BundleError: names the first tensor that is missing, superfluous, or of another dtype or shape.
    """
    for side, found, expected in (("input", graph.inputs, inputs), ("output", graph.outputs, outputs)):
        have = {tensor.name: tensor for tensor in found}
        want = {tensor.name: tensor for tensor in expected}
        for tensor in (*want, *have):
            if have.get(tensor) != want.get(tensor):
                raise BundleError(
                    f"Graph {name!r} has {side} {tensor!r} as {_describe(have.get(tensor))} but the spec needs "
                    f"{_describe(want.get(tensor))}; export the bundle again."
                )


def _describe(tensor: TensorInfo | None) -> str:
    return "none" if tensor is None else f"{tensor.dtype}{list(tensor.shape)}"
