"""The five graphs of the contract, captured from PyTorch networks.

In: `Networks`. Out: one `GraphSource` per graph, a module whose inputs and outputs are the contract's, and the
`ir.Model` captured from it. Where frames are uint8 at the graphs' ends, their conversion lives in the VAE graphs.
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from torch import Tensor, nn

from rap_edge.models.causal.networks import CausalNetworks
from rap_edge.models.vaes.interface import Vae
from rap_edge.runtime.bundle.contract import FREE_FRAMES, FREE_SAMPLES, chunk_sizes, contract
from rap_edge.runtime.bundle.manifest import TensorInfo
from rap_edge.runtime.errors import ExportError, first_line
from rap_edge.runtime.spec import AudioEncodeMode, ModelSpec

from ..hybrid_attention.onnx_function import symbolic_hybrid_attention
from ..rewriter import scalar
from .own_model import AnyNetworks, OwnModel, OwnVae
from .signature import require_shapes

OPSET = 23
_SHIELD, _TINY = "rap.shielded", 1e-4
_SCOPES = "pkg.torch.onnx.name_scopes"
# Frames of sound that are encoded at once: eleven hours at 25 a second, more than any memory holds.
_MOST_HEARD = 1 << 20
_TORCH_DTYPES = {"float32": torch.float32, "uint8": torch.uint8}


class FrameEncoder(nn.Module):
    """Frames [T, H, W, 3], uint8 or float32 in -1..1 -> normalised latents [1, C, k, h, w]."""

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: Tensor) -> Tensor:
        """[T, H, W, 3] to latents [1, C, k, h, w]."""
        # TensorRT allows uint8 at a graph's ends alone: the casts come first here and last in the decoder.
        pixels = frames.float() * (1.0 / 127.5) - 1.0 if frames.dtype == torch.uint8 else frames
        return self.vae.encode(pixels.permute(3, 0, 1, 2).unsqueeze(0))


class FrameDecoder(nn.Module):
    """Normalised latents [1, C, k, h, w] -> the last frames [T, H, W, 3] and their mean magnitude [1].

    Frames are uint8, or float32 of about -1..1 where they are worked on; the magnitude is in the same unit. A uint8
    frame cannot hold a NaN; the magnitude can, which is how the runtime notices one.
    """

    def __init__(self, vae: Vae, frames: int, *, rounded: bool) -> None:
        super().__init__()
        self.vae = vae
        self.frames = frames
        self.rounded = rounded

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [1, C, k, h, w] to [T, H, W, 3] and float32 [1]."""
        pixels = self.vae.decode(latents, self.frames).squeeze(0)
        if self.rounded:
            pixels = pixels * 127.5 + 127.5
        # Row by row: one sum over millions of pixels would round as the backend happens to order it.
        magnitude = pixels.abs().mean(-1).mean(-1).mean().reshape(1)
        if not self.rounded:
            return pixels.permute(1, 2, 3, 0), magnitude
        return pixels.round().clamp(0.0, 255.0).permute(1, 2, 3, 0).to(torch.uint8), magnitude


@dataclass(frozen=True)
class GraphSource:
    """One graph before it is captured.

    Attributes:
        name: the graph's name in the contract.
        module: takes the inputs in order, gives the outputs in order; fp32, in eval mode.
        inputs: contract, in order.
        outputs: contract, in order.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def graph_sources(networks: AnyNetworks, mode: AudioEncodeMode = "stream") -> dict[str, GraphSource]:
    """The five graphs of a model, sharing the networks' weights; `mode` as for `contract`.

    Raises:
        ExportError: the networks give other audio keys and values than the spec's contract names, or a causal model
            would have to hear all of its sound at once.
    """
    spec, signatures = networks.spec, contract(networks.spec, "float32", mode)
    if mode == "once" and spec.caches is not None:
        raise ExportError(
            f"The model {spec.name!r} is causal and hears sound as it comes; leave out --audio-encode-mode once."
        )
    if isinstance(networks, CausalNetworks):
        return {name: GraphSource(name, m.eval(), *signatures[name]) for name, m in networks.graph_modules().items()}
    if isinstance(networks, OwnModel):
        vae: Vae = OwnVae(networks.vae_encoder, networks.vae_decoder)
        modules = dict(networks.graph_modules())
    else:
        vae, dit = networks.vae, networks.dit
        modules = {"audio_encoder": networks.audio_encoder, "conditioner": dit.conditioner, "dit": dit.denoiser}
        if (names := dit.audio_state_names()) != tuple(t.name for t in signatures["conditioner"][1]):
            raise ExportError(
                f"The DiT gives the audio state {', '.join(names)}, which is not what spec {spec.name!r} needs; use "
                "the spec of this checkpoint."
            )
    decoder = FrameDecoder(vae, spec.decoded_frames, rounded=spec.frames_dtype == "uint8")
    modules |= {"vae_encoder": FrameEncoder(vae), "vae_decoder": decoder}
    return {name: GraphSource(name, module.eval(), *signatures[name]) for name, module in modules.items()}


def capture(source: GraphSource, spec: ModelSpec) -> ir.Model:
    """Trace the module into an fp32 model with the contract's names and free dimensions.

    The weights are not copied: they stay the module's until the model is saved or converted.

    Raises:
        ExportError: torch cannot capture the module.
    """
    sizes = chunk_sizes(spec)
    arguments = tuple(
        torch.zeros([sizes[d] if isinstance(d, str) else d for d in tensor.shape], dtype=_TORCH_DTYPES[tensor.dtype])
        for tensor in source.inputs
    )
    try:
        with torch.no_grad(), symbolic_hybrid_attention(source.module), _quiet():
            program = torch.onnx.export(
                source.module,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                input_names=[tensor.name for tensor in source.inputs],
                output_names=[tensor.name for tensor in source.outputs],
                dynamic_shapes=_free_dimensions(source, spec),
                optimize=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError, LookupError) as error:
        raise ExportError(
            f"Graph {source.name!r} cannot be captured ({_innermost(error)}); report the checkpoint's config, or "
            "correct the module."
        ) from error
    if program is None:
        raise ExportError(f"Graph {source.name!r} was captured as nothing; reinstall torch 2.13 or later.")
    model: ir.Model = program.model
    simplify(model)
    _apply_contract(model, source)
    return model


def _innermost(error: BaseException) -> str:
    """What was wrong first: torch wraps it in pages about its own exporter."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return first_line(error) if isinstance(error, Exception) else type(error).__name__


def simplify(model: ir.Model) -> None:
    """Fold constants and clean up as torch's exporter does, in place, without losing an epsilon.

    onnxscript takes the addition of 1e-8 for that of 0 (its constants match within 1e-8) and drops it, so a norm of
    zeros would divide by zero; such nodes wear another domain meanwhile.
    """
    with _quiet():
        onnxscript.optimizer.fold_constants(model)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        shielded = [node for node in model.graph if node.op_type in ("Add", "Sub", "Mul", "Div") and _is_tiny(node)]
        for node in shielded:
            node.domain = _SHIELD
        onnxscript.optimizer.optimize_ir(model)
        for node in model.graph:
            if node.domain == _SHIELD:
                node.domain = ""
        model.opset_imports.pop(_SHIELD, None)


def _is_tiny(node: ir.Node) -> bool:
    """Whether a constant of the node is close to one that would make it do nothing, but is another one."""
    identity = 0.0 if node.op_type in ("Add", "Sub") else 1.0
    numbers = (scalar(value) for value in node.inputs)
    return any(number is not None and 0.0 < abs(number - identity) < _TINY for number in numbers)


def _free_dimensions(source: GraphSource, spec: ModelSpec) -> dict[str, Mapping[int, object]] | None:
    if not any(isinstance(d, str) for tensor in source.inputs for d in tensor.shape):
        return None
    # Frames are 1 + compression * groups, and sound has whole frames; a derived dimension tells torch so.
    free = {
        FREE_FRAMES: spec.temporal_compression * torch.export.Dim("groups", min=1, max=4096) + 1,
        FREE_SAMPLES: spec.samples_per_frame * torch.export.Dim("heard", min=spec.chunk_frames, max=_MOST_HEARD),
    }
    return {
        tensor.name: {axis: free[d] for axis, d in enumerate(tensor.shape) if isinstance(d, str)}
        for tensor in source.inputs
    }


def _apply_contract(model: ir.Model, source: GraphSource) -> None:
    for side, values, tensors in (
        ("inputs", model.graph.inputs, source.inputs),
        ("outputs", model.graph.outputs, source.outputs),
    ):
        if [value.name for value in values] != [tensor.name for tensor in tensors]:
            raise ExportError(
                f"Graph {source.name!r} was captured with the {side} {[value.name for value in values]}, not "
                f"{[tensor.name for tensor in tensors]}; an output may be returned twice or an input be unused."
            )
        found = [[d if isinstance(d, int) else str(d) for d in value.shape or ()] for value in values]
        require_shapes(source.name, found, {tensor.name: tensor.shape for tensor in tensors})
        for value, tensor in zip(values, tensors, strict=True):
            value.shape = ir.Shape(tensor.shape)
    ends = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph:
        for value in node.outputs:
            # torch's names of derived dimensions contradict the contract's; shape inference finds them again.
            if value not in ends and value.shape is not None and not value.shape.is_static():
                value.shape = ir.Shape([d if isinstance(d, int) else None for d in value.shape])
    _name_nodes(model)
    model.graph.name = source.name
    model.producer_name = "rap-edge"


def _name_nodes(model: ir.Model) -> None:
    """Name nodes after the modules they came from, and drop torch's notes, which hold paths of this machine."""
    counts: Counter[str] = Counter()
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
        scope = next((item for item in reversed(scopes[:-1]) if item), "")
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        counts[name] += 1
        node.name = f"{name}_{counts[name]}"
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter warns about packages that it does not need here.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
