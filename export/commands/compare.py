"""`rap-export compare`: the graphs of a bundle in ONNX Runtime and elsewhere, by Polygraphy's runners and comparator.

Every graph gets inputs that the bundle's own chunk loop gives it. With layers, every tensor between is an output of
both sides, and the first in the graph's order that differs is where to look.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import EngineInfo
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.cli.table import columns
from rap_edge.runtime.engines.interface import Array
from rap_edge.runtime.engines.onnxruntime_engine import load_engines
from rap_edge.runtime.engines.preflight import check_engine, this_machine
from rap_edge.runtime.errors import EngineError, ExportError
from rap_edge.runtime.machine.tensorrt_modules import PLAN_BACKENDS, RTX

from ..parity.check_inputs import RealInputs, drawn_portrait, drawn_speech, golden_inputs, to_int16
from ..parity.compare import GATES, Recorder, compare, roll_out

# ONNX has no limit of its own for a file; protobuf has one of 2 GB, and weights beside it have none.
_BESIDE = 1 << 20


@dataclass(frozen=True)
class Difference:
    """How far two sides are apart in one tensor.

    Attributes:
        tensor: its name.
        layer: the node that gives it.
        psnr: in dB, against the first side's largest magnitude.
        max_abs: the largest difference.
    """

    tensor: str
    layer: str
    psnr: float
    max_abs: float


@dataclass(frozen=True)
class Comparison:
    """One graph on both sides.

    Attributes:
        graph: its name.
        sides: what ran it, the reference first.
        tensors: how many were compared.
        worst: where the sides are farthest apart.
        first: the first in the graph's order below `least`; None if there is none.
        least: the gate in dB.
    """

    graph: str
    sides: tuple[str, str]
    tensors: int
    worst: Difference
    first: Difference | None
    least: float


def compare_bundle(path: str | Path, engine: str, graphs: Iterable[str], *, layers: bool) -> list[Comparison]:
    """Compare a bundle's graphs between ONNX Runtime and another engine.

    Args:
        path: the bundle.
        engine: one of `PLAN_BACKENDS`, or "onnxruntime": the graph as it is written, without ONNX Runtime's rewriting.
        graphs: names; none takes all.
        layers: whether every tensor is compared; plans are then built anew, since one has its graph's outputs only.

    Raises:
        BundleError: the bundle cannot be read.
        EngineError: the engine is not here, or the bundle has no plan of it.
        ExportError: there is no such graph, or the sides give other tensors.
    """
    bundle = Bundle.open(path)
    bundle.verify()
    names = tuple(graphs) or tuple(bundle.manifest.graphs)
    if unknown := [name for name in names if name not in bundle.manifest.graphs]:
        raise ExportError(f"There is no graph {unknown[0]!r}; choose among {', '.join(bundle.manifest.graphs)}.")
    plans = {name: _plan(bundle, name, engine) for name in names} if engine in PLAN_BACKENDS else {}
    inputs = _recorded_inputs(bundle)
    from polygraphy.logger import G_LOGGER

    # Both tell of every step and of what they may have rewritten, whatever comes of it.
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory() as folder, G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        return [_compare(bundle, name, plans.get(name), inputs[name], Path(folder), layers=layers) for name in names]


def text(found: Iterable[Comparison]) -> str:
    """The comparisons for a screen."""
    header = ("graph", "tensors", "worst PSNR dB", "max diff", "in")
    rows, lines = [], []
    for item in found:
        worst = item.worst
        rows.append((item.graph, str(item.tensors), f"{worst.psnr:.1f}", f"{worst.max_abs:.2g}", worst.layer))
        lines.append(
            f"{item.graph}: {' and '.join(item.sides)} agree in every tensor within {item.least:.0f} dB"
            if item.first is None
            else f"{item.graph}: the first layer that differs is {item.first.layer}, in {item.first.tensor!r}: "
            f"{item.first.psnr:.1f} dB where {item.least:.0f} are needed"
        )
    return "\n".join([*columns([header, *rows], left=(0, 4)), *lines])


def to_json(found: Iterable[Comparison]) -> list[dict[str, Any]]:
    """The comparisons as plain JSON types."""
    return [asdict(item) for item in found]


def _compare(
    bundle: Bundle, name: str, plan: EngineInfo | None, feed: Mapping[str, Array], folder: Path, *, layers: bool
) -> Comparison:
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator

    file = bundle.path(bundle.manifest.graphs[name].file)
    if layers:
        file = _with_all_outputs(file, folder / name)
    providers = ["CPUExecutionProvider"]
    first = OnnxrtRunner(SessionFromOnnx(str(file), providers=providers), name="ONNX Runtime")
    second = other_side(bundle, plan, file, layers=layers)
    figures: dict[str, Difference] = {}
    places = _places(file)

    def measure(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, bool]:
        for tensor in one:
            if tensor not in other:
                raise ExportError(f"Graph {name!r} has no tensor {tensor!r} in {second.name}; leave --layers out.")
            found = compare(one[tensor], other[tensor].reshape(one[tensor].shape))
            figures[tensor] = Difference(tensor, places.get(tensor, tensor), found.psnr, found.max_abs)
        return {tensor: item.psnr >= least for tensor, item in figures.items()}

    precision = bundle.manifest.precision
    least = GATES[precision if precision in GATES else Precision.FP16].tensor_psnr
    results = Comparator.run([first, second], data_loader=[dict(feed)])
    Comparator.compare_accuracy(results, compare_func=measure)
    order = {tensor: index for index, tensor in enumerate(places)}
    inside = sorted(figures.values(), key=lambda item: order.get(item.tensor, len(order)))
    return Comparison(
        name,
        (first.name, second.name),
        len(inside),
        min(inside, key=lambda item: item.psnr),
        next((item for item in inside if not item.psnr >= least), None),
        least,
    )


def other_side(bundle: Bundle, plan: EngineInfo | None, file: Path, *, layers: bool) -> Any:
    """Polygraphy's runner of a plan, built anew from `file` for its layers; without one, of the graph as written."""
    if plan is None:
        from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = SessionFromOnnx(str(file), providers=["CPUExecutionProvider"], graph_optimization_level=level)
        return OnnxrtRunner(session, name="the graph as written")
    # Polygraphy looks at it when it is imported.
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(plan.backend == RTX.backend))
    from polygraphy.backend.common import BytesFromPath
    from polygraphy.backend.trt import EngineFromBytes, EngineFromNetwork, NetworkFromOnnxPath, TrtRunner

    loader: Callable[..., Any] = EngineFromBytes(BytesFromPath(str(bundle.path(plan.file))))
    if layers:
        loader = EngineFromNetwork(NetworkFromOnnxPath(str(file), strongly_typed=True))
    return TrtRunner(loader, name=plan.backend)


def _plan(bundle: Bundle, name: str, backend: str) -> EngineInfo:
    plans = [plan for plan in bundle.manifest.engines.get(name, ()) if plan.backend == backend]
    if not plans:
        raise EngineError(
            f"The bundle has no {backend} plan of {name!r}; build one with rap-export --bundle {bundle.root} --engine "
            f"{backend}."
        )
    check_engine(bundle, name, plans[0], this_machine())
    return plans[0]


def _recorded_inputs(bundle: Bundle) -> dict[str, Mapping[str, Array]]:
    """What the bundle's chunk loop gives each graph, of its golden clip or of drawn inputs."""
    spec = bundle.manifest.spec
    golden = bundle.manifest.golden
    if golden.portrait is not None and golden.audio is not None:
        portrait, speech = golden_inputs(bundle)
    else:
        portrait, speech = drawn_portrait(spec.image_size), drawn_speech(spec.sample_rate)
    recorder = Recorder(active=True)
    engines = recorder.watch(load_engines(bundle, None))
    for _ in roll_out(spec, engines, RealInputs(portrait, to_int16(speech), "golden clip"), 1):
        pass
    return {name: cases[-1].inputs for name, cases in recorder.cases.items()}


def _with_all_outputs(file: Path, folder: Path) -> Path:
    """A copy of a graph whose every tensor is an output."""
    from polygraphy.backend.onnx import ModifyOutputs, OnnxFromPath, SaveOnnx
    from polygraphy.constants import MARK_ALL

    folder.mkdir()
    target = folder / file.name
    marked = ModifyOutputs(OnnxFromPath(str(file)), outputs=MARK_ALL)
    SaveOnnx(marked, path=str(target), external_data_path=f"{file.name}.data", size_threshold=_BESIDE)()
    return target


def _places(file: Path) -> dict[str, str]:
    """The layer that gives every tensor, in the graph's order."""
    graph = onnx.load(str(file), load_external_data=False).graph
    return {tensor: node.name or node.op_type for node in graph.node for tensor in node.output if tensor}
