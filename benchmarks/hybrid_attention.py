"""The fused hybrid attention on a GPU: is it right, how fast is it, and how far from what the hardware allows.

    make plugins && python benchmarks/hybrid_attention.py [--library FILE] [--json FILE]

Right: against float64 on fresh random inputs, with NaN around every input and in the whole output. Fast: beside two
scaled-dot-product attentions and a blend in PyTorch, eager and compiled, and beside two floors: the bytes that must
move over the copy bandwidth of this card, and the operations over its matrix product, both measured in the same run.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from fused_attention import Case, Inputs, Params

from rap_edge.models.attention import hybrid_attention

DEFAULT_LIBRARY = Path(__file__).parent.parent / "build" / "plugins" / "librap_hybrid_attention.so"
# Half a unit is a correctly rounded result; the weights are rounded once more before their product with V.
MOST_ERROR = 1.0

RAP = Case(batch=2, heads=12, head_dim=128, frames=11, query_tokens=256, key_tokens=32, alpha=0.5)
FLASHHEAD = replace(RAP, batch=1, frames=5)
NANO = Case(heads=4, head_dim=64, frames=5, query_tokens=64, key_tokens=8, alpha=0.4)
SPEED: dict[str, Case] = {
    "rap-1.3b": RAP,
    "rap-1.3b, separate": replace(RAP, full_tokens=352),
    "flashhead size": FLASHHEAD,
    "nano": NANO,
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


@dataclass(frozen=True)
class Timing:
    """Microseconds of one size: the three ways and the two floors."""

    name: str
    dtype: str
    fused_us: float
    eager_us: float
    compiled_us: float
    bytes_floor_us: float
    operations_floor_us: float


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


def microseconds(work: Callable[[], object], runs: int = 30, repeat: int = 20) -> float:
    """Median over `runs` of the time of `work`, each the mean of `repeat` launches in a row."""
    for _ in range(repeat):
        work()
    times = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeat):
            work()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / repeat)
    return statistics.median(times)


def copy_bytes_per_us() -> float:
    """Bytes that a large device copy reads and writes per microsecond."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / microseconds(lambda: target.copy_(source), repeat=3)


def operations_per_us(dtype: torch.dtype, size: int = 8192) -> float:
    """Floating point operations of a large matrix product per microsecond."""
    a, b = (torch.randn(size, size, dtype=dtype, device="cuda") for _ in range(2))
    return 2 * size**3 / microseconds(lambda: a @ b, runs=10, repeat=3)


def moved_bytes(case: Case) -> int:
    """Query and output once, keys and values once: the least that any kernel moves."""
    keys = case.frames * case.key_tokens + case.full_tokens
    return 2 * case.batch * case.heads * case.head_dim * (2 * case.frames * case.query_tokens + 2 * keys)


def operations(case: Case) -> int:
    """Two products for every query and key that meet; shared branches count once."""
    met = (case.full_tokens + case.key_tokens) if case.full_tokens else case.frames * case.key_tokens
    return 4 * case.batch * case.heads * case.head_dim * case.frames * case.query_tokens * met


def check(fused: FusedAttention, dtype: torch.dtype) -> dict[str, float]:
    """Error of every case of `RIGHT` in units of the dtype's rounding; inf where something beside it was written."""
    errors = {}
    for number, (name, case) in enumerate(RIGHT.items()):
        inputs = Inputs(replace(case, dtype=dtype, seed=number), device="cuda")
        fused.launch(inputs.params())
        torch.cuda.synchronize()
        errors[name] = inputs.error() if inputs.guard_is_whole() else float("inf")
    return errors


def time_case(fused: FusedAttention, name: str, case: Case, rates: tuple[float, float]) -> Timing:
    """Time one size in the three ways on the same inputs."""
    inputs = Inputs(case, device="cuda")
    params, views = inputs.params(), {key: view.contiguous() for key, view in inputs.views.items()}
    full = [views.get(f"full_{kind}", views[kind]) for kind in ("key", "value")]

    def two_attentions() -> torch.Tensor:
        return hybrid_attention(
            views["query"], views["key"], views["value"], *full, case.alpha, case.heads, case.frames
        )

    compiled = torch.compile(two_attentions)
    return Timing(
        name=name,
        dtype=str(case.dtype).removeprefix("torch."),
        fused_us=microseconds(lambda: fused.launch(params)),
        eager_us=microseconds(two_attentions),
        compiled_us=microseconds(compiled),
        bytes_floor_us=moved_bytes(case) / rates[0],
        operations_floor_us=operations(case) / rates[1],
    )


def table(timings: Sequence[Timing]) -> str:
    """Markdown; `floor` is the larger of the two floors, and its share of the fused kernel's time."""
    lines = ["| size | type | fused | eager | compiled | against eager | against compiled | floor | reached |"]
    lines.append("|---|---|" + "--:|" * 7)
    for t in timings:
        floor = max(t.bytes_floor_us, t.operations_floor_us)
        lines.append(
            f"| {t.name} | {t.dtype} | {t.fused_us:.1f} us | {t.eager_us:.1f} us | {t.compiled_us:.1f} us "
            f"| {t.eager_us / t.fused_us:.2f}x | {t.compiled_us / t.fused_us:.2f}x | {floor:.1f} us "
            f"| {100 * floor / t.fused_us:.0f} % |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 after a sound run or without a GPU, 1 if a result is wrong, 2 without the library."""
    parser = argparse.ArgumentParser(description="Check and time the fused hybrid attention on a GPU.")
    parser.add_argument("--library", type=Path, default=DEFAULT_LIBRARY, help="default: what `make plugins` builds")
    parser.add_argument("--json", type=Path, help="write errors and times here too")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("skipped: PyTorch finds no CUDA GPU here, and the kernel can be timed on one alone.")
        return 0
    if not arguments.library.is_file():
        print(f"{str(arguments.library)!r} is missing; run `make plugins` or pass --library.", file=sys.stderr)
        return 2
    fused = FusedAttention(arguments.library)
    dtypes = [torch.float16] + [torch.bfloat16] * torch.cuda.is_bf16_supported()
    errors = {str(dtype).removeprefix("torch."): check(fused, dtype) for dtype in dtypes}
    for name, found in errors.items():
        for case, error in found.items():
            print(f"{'ok   ' if error < MOST_ERROR else 'WRONG'} {name:<9} {case:<22} {error:.3f} units")
    right = all(error < MOST_ERROR for found in errors.values() for error in found.values())
    timings, bandwidth = [], copy_bytes_per_us()
    for dtype in dtypes:
        rates = (bandwidth, operations_per_us(dtype))
        timings += [time_case(fused, name, replace(case, dtype=dtype), rates) for name, case in SPEED.items()]
    device = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, torch {torch.__version__}"
    print(f"\n{device}; copies at {bandwidth / 1e3:.0f} GB/s\n\n{table(timings)}")
    if arguments.json:
        found = {"device": device, "errors": errors, "timings": [asdict(timing) for timing in timings]}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
