"""The chunk on the device with ONNX Runtime's CUDA provider, and where it puts every node.

python benchmarks/steps/onnxruntime_cuda.py SPEC --bundle build/gpu/rap-small-fp16
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence

import onnxruntime as ort
import torch
from measured_loop import HEAD, SEED, Model, networks_of

from rap_edge.models.presets import PRESETS
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.engines.onnxruntime_engine import load_engines, on_gpu
from rap_edge.runtime.loop.gpu.loop import DeviceChunkLoop
from rap_edge.runtime.loop.gpu.shared import Device
from rap_edge.runtime.machine.cuda import Cuda


def main(argv: Sequence[str] | None = None) -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description="The GPU's chunk loop over ONNX Runtime's CUDA provider.")
    parser.add_argument("spec", choices=list(PRESETS))
    parser.add_argument("--bundle", required=True, help="of the spec, in fp16, exported of the same weights")
    given = parser.parse_args(argv)
    bundle = Bundle.open(given.bundle)
    print(f"- onnxruntime {ort.__version__}, providers {', '.join(ort.get_available_providers())}", flush=True)
    for graph, info in bundle.manifest.graphs.items():
        counts = placement(str(bundle.path(info.file)))
        print(f"- {graph}: {', '.join(f'{count} {where}' for where, count in counts.most_common())}", flush=True)
    model = Model.of(networks_of(given.spec), 3, torch.device("cuda"), torch.float16)
    torch.cuda.empty_cache()
    cuda = Cuda()
    stream = cuda.stream()
    started = time.perf_counter()
    engines = load_engines(bundle, None, on_gpu(stream.handle))
    device = Device.open(cuda, stream, engines)
    print(f"- sessions and kernels in {time.perf_counter() - started:.1f} s\n\n{HEAD}", flush=True)
    for name in ("ONNX Runtime CUDA", "ONNX Runtime CUDA, a second session"):
        print(
            model.row(name, lambda: DeviceChunkLoop(device, engines, model.spec, model.reference, SEED), 5), flush=True
        )


def placement(file: str) -> Counter[str]:
    """Nodes on the GPU, and those elsewhere by operator; one's own graph, as it is read without the bundle's checks."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(file, options, providers=list(on_gpu()), enable_fallback=0)
    found: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            at_gpu = part.ep_name == "CUDAExecutionProvider"
            found["CUDA" if at_gpu else f"{node.op_type} on {part.ep_name.removesuffix('ExecutionProvider')}"] += 1
    return found


if __name__ == "__main__":
    main()
