"""fp16 frames for the report's comparison."""

from __future__ import annotations

import shutil
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from rap_edge.export.precision.to_fp16 import to_fp16
from rap_edge.runtime.bundle.contract import contract
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from rap_edge.runtime.errors import RapEdgeError

from ..judge.quality import Bytes, talk_chunks, talk_frames
from ..quantize.variants import save
from .context import Context


def half_frames(context: Context, chunks: int) -> Bytes | None:
    """The first chunks of the gates' clip in fp16, or None where the graphs have no fp16 form."""
    spec = context.spec
    chunks = min(chunks, talk_chunks(spec, context.material.long))
    if context.bundle.manifest.precision == Precision.FP16:
        return talk_frames(spec, context.base, context.material.long, chunks)
    folder = context.work / "half"
    folder.mkdir(parents=True, exist_ok=True)
    engines: dict[str, Engine] = {}
    try:
        for name, (inputs, outputs) in contract(spec, Precision.FP16.state_dtype).items():
            if name == "vae_encoder":
                # It encodes the portrait once, before any frame; every precision shown starts from the same latents.
                engines[name] = context.base[name]
                continue
            plan = context.plans[name]
            model = ir.load(plan.path)
            ShapeInferencePass()(model)
            to_fp16(model, {tensor.name: tensor.dtype for tensor in (*inputs, *outputs)})
            path = folder / f"{name}.onnx"
            save(model, path)
            info = replace(plan.info, inputs=inputs, outputs=outputs)
            engines[name] = OnnxRuntimeEngine(name, info, path, context.settings.threads)
        return talk_frames(spec, engines, context.material.long, chunks)
    except RapEdgeError:
        # A picture less in the report is no reason to lose a calibration.
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
