"""What a built plan really does, read from the plan itself: TensorRT keeps the compiled program in it as text.

In: a plan file. Out: its programs, each with the GPUs that it was compiled for and its steps: kind, kernel, types of
the operands, bytes that move, and the ONNX nodes that the step carries out. This needs no GPU. The text is no
documented interface: a plan without it gives no program, and whoever asks must then do without the evidence, or refuse.
"""

from __future__ import annotations

import math
import mmap
import re
from dataclasses import dataclass
from pathlib import Path

_START, _MAIN, _END = b"header {\n  version", b"\nmain {", b"\n}\n"
_LARGEST_TEXT = 256 << 20
_ACCELERATORS = re.compile(r"^  accelerators=\{([^}]*)\}", re.MULTILINE)
_TENSOR = re.compile(r'^  (?:sub_)?tensor=\{.*? dims=\{([^}]*)\}.*? name="([^"]*)".* type=(\w+) \}', re.MULTILINE)
_STEP = re.compile(r"^  (\w+)=\{ (.*?)(?=^  \w+=\{|^ label|\Z)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r'\bname="?([^"\s]+)')
_INPUTS = re.compile(r"\binput(?:_args)?=\{([^}]*)\}")
_OUTPUTS = re.compile(r"\boutput(?:_args)?=\{([^}]*)\}")
_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_BITS = {
    "double": 64,
    "int64": 64,
    "half": 16,
    "bfloat": 16,
    "fp8_e4m3": 8,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
    "int4": 4,
}
_TYPES = {"half": "float16", "float": "float32", "bfloat": "bfloat16", "fp8_e4m3": "float8_e4m3fn"}
# A matrix product or a convolution, as one step of its own; what is fused with it stands in a program of its own.
PRODUCTS = frozenset(("fully_connected", "corrltn", "convolution", "deconvolution", "batch_gemm"))


@dataclass(frozen=True)
class Step:
    """One step of a compiled program.

    Attributes:
        kind: "function" for a generated kernel, one of `PRODUCTS`, or another word of the program.
        kernel: its name.
        operands: numpy dtype names of its inputs, "" where the program does not tell.
        layers: the ONNX nodes that it carries out; a node inside a function is followed by " | " and its caller.
        traffic: bytes of all that it reads, weights among them, and writes; None if the size of one is free.
    """

    kind: str
    kernel: str
    operands: tuple[str, ...]
    layers: tuple[str, ...]
    traffic: int | None = 0

    @property
    def fused_attention(self) -> bool:
        """Whether it is a fused attention kernel."""
        return "mha" in self.kernel and self.kind == "function"

    @property
    def product(self) -> bool:
        """Whether it multiplies matrices or convolves."""
        return self.kind in PRODUCTS


@dataclass(frozen=True)
class Program:
    """A compiled part of a network: GPUs such as "sm89" (or "*" for a part of another program), and steps."""

    accelerators: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def traffic(self) -> int | None:
        """Bytes that one run moves, if no step finds its operands in a cache; None if a size is free."""
        return _total([step.traffic for step in self.steps])


def read_programs(plan: Path) -> tuple[Program, ...]:
    """The programs of a plan, in order; none if it holds no such text."""
    programs = []
    with plan.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(_START)
        while start >= 0:
            main = data.find(_MAIN, start)
            end = data.find(_END, main) if main >= 0 else -1
            if end < 0 or end - start > _LARGEST_TEXT:
                break
            programs.append(parse_program(data[start:end].decode("utf-8", errors="replace")))
            start = data.find(_START, end)
    return tuple(programs)


def parse_program(text: str) -> Program:
    """One program, from "header {" to the end of "main"."""
    head, _, main = text.partition("\nmain {")
    accelerators = _ACCELERATORS.search(head)
    tensors = _TENSOR.findall(head)
    types = {name: _TYPES.get(kind, kind) for _, name, kind in tensors}
    sizes = {name: _bytes(dims, kind) for dims, name, kind in tensors}
    steps = []
    for kind, body in _STEP.findall(main):
        name = _NAME.search(body)
        operands, results = _names(_INPUTS, body), _names(_OUTPUTS, body)
        steps.append(
            Step(
                kind,
                name.group(1) if name else "",
                tuple(types.get(operand, "") for operand in operands),
                tuple(_LAYER.findall(body)),
                _total([sizes.get(tensor, 0) for tensor in (*operands, *results)]),
            )
        )
    return Program(tuple(accelerators.group(1).split()) if accelerators else (), tuple(steps))


def _names(pattern: re.Pattern[str], step: str) -> list[str]:
    found = pattern.search(step)
    return re.findall(r'"([^"]*)"', found.group(1)) if found else []


def _bytes(dims: str, kind: str) -> int | None:
    sizes = dims.split()
    known = all(size.isdigit() for size in sizes)
    return math.prod(map(int, sizes)) * _BITS.get(kind, 32) // 8 if known else None


def _total(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
