"""The bytes that one denoise step moves through a GPU's memory: node by node, in TensorRT-RTX's plan, and at least.

    python benchmarks/step_bytes.py [--spec flashhead-lite] [--passes NAMES]

Needs no GPU: the DiT is exported in fp16 with the spec's sizes and random weights, without and with the graph passes,
and TensorRT-RTX's plans name the kernels that they launch. Three blocks are built, the first, the middle and the last
of the spec's, and the middle one is counted as often as the spec has blocks between its ends. All of it is a
prediction: caches give back some of what is counted here.

nodes: every node of the graph without passes a kernel of its own; what only gives a tensor another shape is free.
before, after: every kernel of the plan, without and with the passes.
least: matrix products and attentions read what they need once and write their results once, every residual sum reads
its other term; all else happens on the way.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
import torch

from rap_edge.export.bundle_writer import new_bundle
from rap_edge.export.capture.five_graphs import GraphSource
from rap_edge.export.exporter import ExportSettings, write_graph
from rap_edge.export.plans.job import PlanJob
from rap_edge.export.plans.process import build_plan
from rap_edge.export.plans.truth.claim import read_claim
from rap_edge.export.plans.truth.program import Program, read_programs
from rap_edge.models.dit import DiT
from rap_edge.models.networks import published_configs
from rap_edge.models.presets import load_spec
from rap_edge.runtime.bundle.contract import contract
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.errors import RapEdgeError
from rap_edge.runtime.spec import ModelSpec

BLOCKS = 3
MIDDLE = 1
CAPABILITY = "8.9"
PRODUCTS = frozenset(("MatMul", "Gemm"))
ATTENTIONS = frozenset(("Attention", "HybridAttention"))
VIEWS = frozenset(("Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"))
NORMS = "layer norms, modulation"
REST = "patches, timestep, head"
# What a kernel or node is for, by the module that its product, or failing that its norm, belongs to.
GROUPS = {
    "self_attn.q": "queries, keys, values",
    "self_attn.k": "queries, keys, values",
    "self_attn.v": "queries, keys, values",
    "self_attn.norm_q": "norms, rotation of queries, keys",
    "self_attn.norm_k": "norms, rotation of queries, keys",
    "self_attn": "norms, rotation of queries, keys",
    "self_attn.o": "output of self-attention, gate, sum",
    "norm1": NORMS,
    "norm2": NORMS,
    "norm3": NORMS,
    "head.norm": NORMS,
    "cross_attn.q": "audio queries",
    "cross_attn.norm_q": "norm of audio queries",
    "cross_attn.o": "output of audio attention, sum",
    "ffn.0": "feed-forward, gate, sum",
    "ffn.1": "feed-forward, gate, sum",
    "ffn.2": "feed-forward, gate, sum",
}
ATTENTION = {"self_attn": "self-attention", "cross_attn": "audio attention"}
COPIES = {"self_attn": "copies around self-attention", "cross_attn": "copies around audio attention"}
_NODE = re.compile(r"dit\.(?:blocks\.(\d+)\.?)?([^/]*)/([A-Za-z]+)")


@dataclass(frozen=True)
class Node:
    """Where a node of the graph comes from: block (-1 outside), module within it, operator."""

    block: int
    module: str
    op_type: str


@dataclass(frozen=True)
class Kernel:
    """A node of the graph, or a kernel of the plan: its group, its block, the bytes that it moves and has to move."""

    group: str
    block: int
    moved: int
    least: int = 0


@dataclass(frozen=True)
class Count:
    """Bytes by group, and kernels, of one step."""

    moved: Mapping[str, int]
    least: Mapping[str, int]
    kernels: int

    @classmethod
    def of(cls, kernels: Iterable[Kernel], blocks: int) -> Count:
        """What a sample says of `blocks` blocks."""
        moved, least, number = Counter[str](), Counter[str](), 0
        for kernel in kernels:
            times = blocks - BLOCKS + 1 if kernel.block == MIDDLE else 1
            moved[kernel.group] += times * kernel.moved
            least[kernel.group] += times * kernel.least
            number += times
        return cls(moved, least, number)


def sample(spec: ModelSpec) -> ModelSpec:
    """The spec with its first, middle and last block alone; those between the ends are all like the middle one."""
    alpha = spec.alpha
    return dataclasses.replace(spec, num_layers=BLOCKS, alpha=(alpha[0], alpha[len(alpha) // 2], alpha[-1]))


def denoiser(spec: ModelSpec) -> GraphSource:
    """A DiT with random weights, to be captured."""
    with torch.device("meta"):
        dit = DiT(published_configs(spec).dit)
    dit.to_empty(device="cpu").reset_parameters(torch.Generator().manual_seed(0))
    return GraphSource("dit", dit.denoiser.eval(), *contract(spec, "float32")["dit"])


def node_of(name: str) -> Node | None:
    """Of a node's name, or of what a plan says of a node inside a function; None for what no module made."""
    found = _NODE.search(name)
    return Node(int(found[1] or -1), found[2], found[3]) if found else None


def group_of(nodes: Sequence[Node], *, attends: bool = False) -> str:
    """What a kernel that carries out these nodes is for."""
    attention = next((node.module.split(".")[0] for node in nodes if node.module.startswith(tuple(ATTENTION))), "")
    if attends:
        return ATTENTION[attention]
    if products := [node for node in nodes if node.op_type in PRODUCTS]:
        return GROUPS.get(products[0].module, REST)
    modules = {node.module for node in nodes}
    for module in ("norm1", "norm2", "norm3", "head.norm", "self_attn.norm_q", "self_attn.norm_k", "cross_attn.norm_q"):
        if module in modules:
            return GROUPS[module]
    return COPIES.get(attention, REST)


def count_kernels(programs: Sequence[Program]) -> list[Kernel]:
    """The kernels of a plan that was built for one GPU; what others call is part of its caller."""
    steps = next((program.steps for program in programs if "*" not in program.accelerators), ())
    found = []
    for step in steps:
        if step.traffic:
            nodes = [node for layer in step.layers if (node := node_of(layer)) is not None]
            block = max((node.block for node in nodes), default=-1)
            found.append(Kernel(group_of(nodes, attends=step.fused_attention), block, step.traffic))
    return found


def count_nodes(model: onnx.ModelProto) -> list[Kernel]:
    """Every node of a graph as a kernel."""
    sizes, shapes = _sizes(model.graph)
    groups: dict[str, tuple[str, int]] = {}
    found, read = [], set[str]()
    for node in model.graph.node:
        place = node_of(node.name)
        group, block = _group_of_node(node, place, groups)
        groups.update(dict.fromkeys(node.output, (group, block)))
        moved = 0 if node.op_type in VIEWS else sum(sizes.get(name, 0) for name in {*node.input, *node.output})
        least = 0
        if node.op_type in PRODUCTS | ATTENTIONS:
            # Products of the same tokens read them together.
            least = sum(sizes.get(name, 0) for name in {*node.input, *node.output} - read)
            read.update(node.input)
        if node.op_type == "Add" and len({shapes.get(name) for name in (*node.input, *node.output)}) == 1:
            # A sum of tokens [B, N, C]; pairs of channels are rotated with their heads apart.
            least = sizes[node.output[0]] if len(shapes[node.output[0]]) == 3 else 0
        if moved:
            found.append(Kernel(group, block, moved, least))
    return found


def _group_of_node(node: onnx.NodeProto, place: Node | None, groups: Mapping[str, tuple[str, int]]) -> tuple[str, int]:
    """The group and block of a node; a cast, a gate and a sum belong to what made the last of their operands."""
    made = [groups[name] for name in node.input if name in groups]
    if place is None or node.op_type == "Cast":
        return made[-1] if made else (REST, -1)
    if node.op_type in ATTENTIONS:
        return group_of([place], attends=True), place.block
    if place.module in GROUPS and node.op_type not in ("Transpose", "Reshape"):
        return GROUPS[place.module], place.block
    if place.module.startswith(tuple(COPIES)):
        return group_of([place]), place.block
    if place.module in ("", "head"):
        gated = [group for group, _ in made if group not in (NORMS, REST)]
        return (gated[-1] if gated and place.module == "" else NORMS), place.block
    return REST, place.block


def _sizes(graph: onnx.GraphProto) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Bytes and shape of every tensor."""
    kinds, shapes = {}, {}
    for tensor in graph.initializer:
        kinds[tensor.name], shapes[tensor.name] = tensor.data_type, tuple(tensor.dims)
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        kinds[value.name], shapes[value.name] = kind.elem_type, tuple(dim.dim_value for dim in kind.shape.dim)
    widths = {name: onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize for name, kind in kinds.items()}
    return {name: prod(shape) * widths[name] for name, shape in shapes.items()}, shapes


def build(spec: ModelSpec, passes: tuple[str, ...] | None) -> tuple[onnx.ModelProto, tuple[Program, ...]]:
    """The graph and the programs of its plan."""
    settings = ExportSettings(Precision.FP16, passes=passes, compared=False)
    with tempfile.TemporaryDirectory() as folder, new_bundle(Path(folder) / "bundle") as writer:
        written = write_graph(denoiser(spec), spec, settings, writer)
        file, plan = writer.root / written.info.file, Path(folder) / "dit.plan"
        claim = read_claim("dit", file, "float16", [island.node for island in written.islands])
        job = PlanJob("tensorrt_rtx", str(file), str(plan), claim, (CAPABILITY,), "ahead-of-time")
        build_plan(job, lambda part: None)
        return onnx.load(file, load_external_data=False), read_programs(plan)


def table(nodes: Count, before: Count, after: Count) -> str:
    """Megabytes per step by group, what moves most beyond the least first."""
    groups = sorted(
        nodes.moved | before.moved, key=lambda group: nodes.least.get(group, 0) - before.moved.get(group, 0)
    )
    lines = [
        "| MB per step | nodes | before | after | least | beyond it, before | after |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for group in (*groups, ""):
        figures = [sum(c.values()) if not group else c.get(group, 0) for c in (nodes.moved, before.moved, after.moved)]
        least = nodes.least.get(group, 0) if group else sum(nodes.least.values())
        row = [*figures, least, *(figure - least for figure in figures[1:])]
        lines.append(f"| {group or 'all'} | " + " | ".join(f"{value / 1e6:,.0f}" for value in row) + " |")
    lines.append(f"| kernels | {nodes.kernels:,} | {before.kernels:,} | {after.kernels:,} | | | |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="flashhead-lite", help="preset or JSON file (default: %(default)s)")
    parser.add_argument(
        "--passes", metavar="A,B", help="graph passes of the third column (default: those of fp16 exports)"
    )
    options = parser.parse_args(arguments)
    try:
        spec = load_spec(options.spec)
        graph, plain = build(sample(spec), ())
        _, passed = build(sample(spec), None if options.passes is None else tuple(options.passes.split(",")))
    except RapEdgeError as error:
        print(f"step_bytes: {error}", file=sys.stderr)
        return 2
    blocks = spec.num_layers
    nodes = Count.of(count_nodes(graph), blocks)
    print(table(nodes, Count.of(count_kernels(plain), blocks), Count.of(count_kernels(passed), blocks)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
