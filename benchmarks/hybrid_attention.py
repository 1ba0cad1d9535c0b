"""The fused hybrid attention on a GPU: is it right, how fast is it, and how far from what the hardware allows.

    make plugins && python benchmarks/hybrid_attention.py [--only check|time|launch] [--library FILE ...] [--json FILE]

Right: against float64 on fresh random inputs, with NaN around every input and in the whole output, launched and
replayed from a CUDA graph. Fast: replays of a graph over sets of inputs that together do not fit the cache, beside two
scaled-dot-product attentions and a blend in PyTorch (its default, flash and cuDNN kernels, and compiled), and beside
two floors: the bytes that must move over the copy bandwidth of this card, and the operations over its matrix product,
both measured in the same run. Several libraries, built with other blocks, are timed side by side.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from fused_attention import Case, Inputs, Params
from provenance import commit
from torch.nn.attention import SDPBackend, sdpa_kernel

from rap_edge.models.attention import hybrid_attention
from rap_edge.runtime.errors import first_line

DEFAULT_LIBRARY = Path(__file__).parent.parent / "build" / "plugins" / "librap_hybrid_attention.so"
# Half a unit is a correctly rounded result; the weights are rounded once more before their product with V.
MOST_ERROR = 1.0

RAP = Case(batch=2, heads=12, head_dim=128, frames=11, query_tokens=256, key_tokens=32, alpha=0.5)
# FlashHead has the window branch alone.
FLASHHEAD = replace(RAP, batch=1, frames=5, alpha=1.0)
SMALL = Case(heads=4, head_dim=64, frames=5, query_tokens=64, key_tokens=8, alpha=0.4)
SPEED: dict[str, Case] = {
    "rap-1.3b": RAP,
    "rap-1.3b, separate": replace(RAP, full_tokens=352),
    "flashhead-lite": FLASHHEAD,
    "rap-small": SMALL,
}
ODD = Case(batch=3, heads=5, head_dim=128, frames=7, query_tokens=61, key_tokens=37, alpha=0.7)
RIGHT: dict[str, Case] = {
    **SPEED,
    "odd sizes": ODD,
    "odd sizes, separate": replace(ODD, full_tokens=101),
    "one token": Case(frames=1, query_tokens=1, key_tokens=1),
    "long": Case(head_dim=128, frames=3, query_tokens=1000, key_tokens=1000),
    "window alone": replace(ODD, alpha=1.0),
    "full alone": replace(ODD, alpha=0.0),
    "sharp": replace(ODD, gain=30.0),
}


# Inputs are rotated until they take this many bytes: more than the caches of today's cards hold.
ROTATED_BYTES = 200 << 20
MOST_SETS = 16


@dataclass(frozen=True)
class Timing:
    """One size, microseconds of a call.

    Attributes:
        name: of the size.
        dtype: "float16" or "bfloat16".
        sets: of inputs that take turns.
        fused_us: by library.
        torch_us: by PyTorch's way, two attentions and a blend; why it cannot be had where it cannot.
        bytes_floor_us: what must be moved, at the bandwidth of a copy.
        operations_floor_us: what must be computed, at the rate of a large matrix product.
    """

    name: str
    dtype: str
    sets: int
    fused_us: dict[str, float]
    torch_us: dict[str, float | str]
    bytes_floor_us: float
    operations_floor_us: float

    @property
    def floor_us(self) -> float:
        """The larger floor."""
        return max(self.bytes_floor_us, self.operations_floor_us)


class FusedAttention:
    """The C library."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.rap_hybrid_attention.argtypes = [ctypes.POINTER(Params), ctypes.c_void_p]
        self._library.rap_status_message.restype = ctypes.c_char_p

    def launch(self, params: Params) -> None:
        """Launch on PyTorch's current stream; raises RuntimeError with the library's sentence."""
        stream = torch.cuda.current_stream().cuda_stream
        if status := self._library.rap_hybrid_attention(params, stream):
            raise RuntimeError(self._library.rap_status_message(status).decode())


def microseconds(works: Sequence[Callable[[], object]], runs: int = 30, repeat: int = 8) -> float:
    """Median over `runs` of the time of a call: `works` in turn, `repeat` times, as replays of one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for work in works:
            work()
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeat):
            for work in works:
                work()
    for _ in range(3):
        graph.replay()
    times = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / repeat / len(works))
    return statistics.median(times)


def copy_bytes_per_us() -> float:
    """Bytes that a large device copy reads and writes per microsecond."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / microseconds([lambda: target.copy_(source)], runs=10, repeat=2)


def operations_per_us(dtype: torch.dtype, size: int = 8192) -> float:
    """Floating point operations of a large matrix product per microsecond."""
    a, b = (torch.randn(size, size, dtype=dtype, device="cuda") for _ in range(2))
    return 2 * size**3 / microseconds([lambda: a @ b], runs=10, repeat=2)


def moved_bytes(case: Case) -> int:
    """Query and output once, keys and values once: the least that any kernel moves."""
    keys = case.frames * case.key_tokens + case.full_tokens
    return 2 * case.batch * case.heads * case.head_dim * (2 * case.frames * case.query_tokens + 2 * keys)


def operations(case: Case) -> int:
    """Two products for every query and key that meet; shared branches count once, and at alpha 1 the window alone."""
    met = case.full_tokens + case.key_tokens if case.full_tokens else case.frames * case.key_tokens
    if case.alpha == 1.0:
        met = case.key_tokens
    return 4 * case.batch * case.heads * case.head_dim * case.frames * case.query_tokens * met


def check(fused: FusedAttention, dtype: torch.dtype) -> dict[str, float]:
    """Error of every case of `RIGHT` in units of the dtype's rounding; inf where something beside it was written, or
    where a replay of the launch from a CUDA graph gives something else."""
    errors = {}
    for number, (name, case) in enumerate(RIGHT.items()):
        inputs = Inputs(replace(case, dtype=dtype, seed=number), device="cuda")
        params = inputs.params()
        fused.launch(params)
        torch.cuda.synchronize()
        errors[name] = inputs.error() if inputs.guard_is_whole() else float("inf")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            fused.launch(params)
        launched = inputs.views["output"].clone()
        inputs.views["output"].fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        if not torch.equal(launched, inputs.views["output"]):
            errors[name] = float("inf")
    return errors


def time_case(libraries: Mapping[str, FusedAttention], name: str, case: Case, rates: tuple[float, float]) -> Timing:
    """Time one size in every way on the same sets of inputs."""
    sets = min(MOST_SETS, -(-ROTATED_BYTES // moved_bytes(case)))
    inputs = [Inputs(replace(case, seed=seed), device="cuda") for seed in range(sets)]
    params = [item.params() for item in inputs]
    plain = [_two_attentions(case, {key: view.contiguous() for key, view in item.views.items()}) for item in inputs]
    compiled = torch.compile(hybrid_attention, dynamic=False)
    kernels = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
    torch_us: dict[str, float | str] = {"default": microseconds([partial(hybrid_attention, *call) for call in plain])}
    for label, kernel in kernels.items():
        with sdpa_kernel([kernel]):
            torch_us[label] = _or_why([partial(hybrid_attention, *call) for call in plain])
    torch_us["compiled"] = _or_why([partial(compiled, *call) for call in plain])
    return Timing(
        name=name,
        dtype=_plain(case.dtype),
        sets=sets,
        fused_us={
            label: microseconds([partial(fused.launch, item) for item in params]) for label, fused in libraries.items()
        },
        torch_us=torch_us,
        bytes_floor_us=moved_bytes(case) / rates[0],
        operations_floor_us=operations(case) / rates[1],
    )


def _two_attentions(case: Case, views: Mapping[str, torch.Tensor]) -> tuple[object, ...]:
    """The arguments of `hybrid_attention`."""
    full = [views.get(f"full_{kind}", views[kind]) for kind in ("key", "value")]
    return (views["query"], views["key"], views["value"], *full, case.alpha, case.heads, case.frames)


def _or_why(works: Sequence[Callable[[], object]]) -> float | str:
    try:
        return microseconds(works)
    except RuntimeError as error:
        return first_line(error)[:60]


def table(timings: Sequence[Timing]) -> str:
    """Markdown: what the best fused kernel is against PyTorch's best, and its share of the floor."""
    fused, plain = list(timings[0].fused_us), list(timings[0].torch_us)
    columns = ["size", "type", "sets", *fused, *plain, "best against best", "floor", "reached"]
    lines = [f"| {' | '.join(columns)} |", "|---|---|" + "--:|" * (len(columns) - 2)]
    for t in timings:
        ours = min(t.fused_us.values())
        theirs = min(value for value in t.torch_us.values() if isinstance(value, float))
        cells = [
            value if isinstance(value, str) else f"{value:.2f} us"
            for value in (*t.fused_us.values(), *t.torch_us.values())
        ]
        ends = [f"{theirs / ours:.2f}x", f"{t.floor_us:.2f} us", f"{100 * t.floor_us / ours:.0f} %"]
        lines.append(f"| {' | '.join([t.name, t.dtype, str(t.sets), *cells, *ends])} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 after a sound run or without a GPU, 1 if a result is wrong, 2 without the library."""
    parser = argparse.ArgumentParser(description="Check and time the fused hybrid attention on a GPU.")
    parser.add_argument("--only", choices=("check", "time", "launch"), help="one part; launch is for a profiler")
    parser.add_argument("--library", type=Path, nargs="+", default=[DEFAULT_LIBRARY], help="default: of `make plugins`")
    parser.add_argument("--json", type=Path, help="write errors and times here too")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("skipped: PyTorch finds no CUDA GPU here, and the kernel can be timed on one alone.")
        return 0
    if missing := [path for path in arguments.library if not path.is_file()]:
        print(f"{str(missing[0])!r} is missing; run `make plugins` or pass --library.", file=sys.stderr)
        return 2
    libraries = {path.stem: FusedAttention(path) for path in arguments.library}
    if arguments.only == "launch":
        _launch(libraries)
        return 0
    dtypes = [torch.float16] + [torch.bfloat16] * torch.cuda.is_bf16_supported()
    errors: dict[str, dict[str, float]] = {}
    timings: list[Timing] = []
    if arguments.only in (None, "check"):
        errors = {
            f"{label} {_plain(dtype)}": check(fused, dtype) for label, fused in libraries.items() for dtype in dtypes
        }
        for name, found in errors.items():
            wrong = ", ".join(f"{case} {error:.3f}" for case, error in found.items() if not error < MOST_ERROR)
            told = f"WRONG: {wrong}" if wrong else "right"
            print(f"- {name}: {len(found)} sizes, worst {max(found.values()):.3f} units; {told}")
    if arguments.only in (None, "time"):
        bandwidth = copy_bytes_per_us()
        for dtype in dtypes:
            rates = (bandwidth, operations_per_us(dtype))
            timings += [time_case(libraries, name, replace(case, dtype=dtype), rates) for name, case in SPEED.items()]
        print(f"\n{_device()}; copies at {bandwidth / 1e3:.0f} GB/s\n\n{table(timings)}")
    if arguments.json:
        found = {"device": _device(), "errors": errors, "timings": [asdict(timing) for timing in timings]}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(any(not error < MOST_ERROR for found in errors.values() for error in found.values()))


def _launch(libraries: Mapping[str, FusedAttention]) -> None:
    """A few launches at RAP's size."""
    inputs = Inputs(replace(RAP, dtype=torch.float16), device="cuda")
    for fused in libraries.values():
        for _ in range(3):
            fused.launch(inputs.params())
    torch.cuda.synchronize()


def _device() -> str:
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, torch {torch.__version__}, commit {commit()}"


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    sys.exit(main())
