"""What is run on a GPU, as data: commands, what each needs, and how long it may take.

Two phases of minutes each are for a machine that is lent once, without a network: what is worth most comes first, and
bundles with random weights are exported beside the measuring. The whole is for a machine of one's own. Only the
standard library is needed here.
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = Path("build") / "gpu"
NANO, SMALL, FLASHHEAD, RAP = "nano", "rap-small", "flashhead-lite", "rap-1.3b"
RTX, TENSORRT = "tensorrt-rtx", "tensorrt"
_PROFILED = (
    *("sm__inst_executed_pipe_tensor.sum", "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"),
    *("l1tex__data_pipe_lsu_wavefronts_mem_shared.sum", "gpu__time_duration.sum"),
)
_SECTIONS = ("SpeedOfLight", "WarpStateStats", "Occupancy", "MemoryWorkloadAnalysis_Tables")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        words: the command.
        seconds: it is ended after; 0 lets it run.
        needs: "GPU", programs, and modules written "import NAME", without which it is left out.
        plain: its output is text that has to be set as it is, not Markdown.
        waits_for: a file that another process is writing; it is waited for as long as the step may take.
    """

    words: tuple[str, ...]
    seconds: int = 0
    needs: tuple[str, ...] = ()
    plain: bool = False
    waits_for: str = ""

    def __str__(self) -> str:
        return shlex.join(self.words)

    def lacks(self, has: Callable[[str], bool]) -> list[str]:
        """What is needed and not here."""
        return [need for need in self.needs if not has(need)]


@dataclass(frozen=True)
class Phase:
    """Steps in order, and commands that run beside them from the start and may outlive them."""

    beside: tuple[Step, ...]
    steps: tuple[Step, ...]


def program(name: str) -> str:
    """The path of a program of this repository's benchmarks."""
    return f"benchmarks/{name}"


def step(script: str, *words: str, seconds: int, needs: Sequence[str] = (), **more: str | bool) -> Step:
    """A program of `benchmarks/` that needs a GPU."""
    return Step(("python", program(script), *words), seconds, ("GPU", *needs), **more)  # type: ignore[arg-type]


def bundle(name: str) -> str:
    """Where the fp16 bundle of a spec is exported to."""
    return str(BUNDLES / f"{name}-fp16")


def quick_export(name: str) -> Step:
    """An export without the comparison, which would take longer than the GPU is there."""
    words = ("python", "-m", "rap_edge.export.cli", "--no-parity", "--precision", "fp16", "-o", bundle(name))
    words += ("--spec", name, "--random-weights")
    return Step(words, needs=("import torch", "import onnxscript"), plain=True)


def first_phase(libraries: Sequence[str]) -> Phase:
    """Facts, the fused attention, the loop over PyTorch's kernels, ONNX Runtime.

    Args:
        libraries: builds of the fused attention, the first of which is the one that ships.
    """
    attention, ours = "hybrid_attention.py", libraries[:1]
    tools = (
        Step(
            ("compute-sanitizer", "--tool", tool, "python", program("steps/sanitize.py"), *ours),
            40,
            ("GPU", "compute-sanitizer"),
            plain=True,
        )
        for tool in ("racecheck", "memcheck")
    )
    profile = Step(
        (
            *("ncu", "--clock-control", "none", "-k", "regex:hybrid_attention", "-c", "3"),
            *(word for section in _SECTIONS for word in ("--section", section)),
            *("--metrics", ",".join(_PROFILED)),
            *("python", program(attention), "--only", "launch", "--library", *libraries),
        ),
        60,
        ("GPU", "ncu"),
        plain=True,
    )
    return Phase(
        (quick_export(SMALL), quick_export(FLASHHEAD)),
        (
            Step(("python", program("steps/facts.py")), 40, ("import torch",)),
            step(attention, "--only", "check", "--library", *libraries, seconds=60),
            step(attention, "--only", "time", "--library", *libraries, seconds=90),
            step("steps/torch_kernels.py", SMALL, seconds=60),
            step("steps/torch_kernels.py", FLASHHEAD, "--rounds", "3", "--quick", seconds=80),
            Step(
                (
                    "python",
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "tests/runtime/loop/gpu/test_loop.py",
                    "-k",
                    "GPU or compile",
                ),
                60,
                ("GPU", "import pytest"),
                plain=True,
            ),
            _onnxruntime(SMALL, 70),
            *tools,
            profile,
        ),
    )


def second_phase() -> Phase:
    """TensorRT-RTX, what is left of ONNX Runtime, and PyTorch's own loop."""
    return Phase(
        (),
        (
            _rtx(SMALL, 120),
            _onnxruntime(FLASHHEAD, 110),
            _rtx(FLASHHEAD, 170, "--targets", "current,80"),
            step("steps/torch_alone.py", FLASHHEAD, seconds=60),
            step("steps/torch_kernels.py", RAP, "--chunks", "2", "--rounds", "2", "--quick", seconds=90),
            step("steps/torch_alone.py", FLASHHEAD, "--compile", seconds=150),
        ),
    )


def _onnxruntime(name: str, seconds: int) -> Step:
    words = (name, "--bundle", bundle(name))
    ready = f"{bundle(name)}/manifest.json"
    return step("steps/onnxruntime_cuda.py", *words, seconds=seconds, needs=("import onnxruntime",), waits_for=ready)


def _rtx(name: str, seconds: int, *more: str) -> Step:
    words = (name, "--bundle", bundle(name), *more)
    ready = f"{bundle(name)}/manifest.json"
    return step("steps/rtx_plans.py", *words, seconds=seconds, needs=("import tensorrt_rtx",), waits_for=ready)


def whole(specs: Sequence[str], backends: Sequence[str], libraries: Sequence[str]) -> list[Step]:
    """Everything, cheap things first, with the exports compared with PyTorch.

    Args:
        specs: names of presets.
        backends: "tensorrt-rtx" and "tensorrt", as far as they are installed.
        libraries: builds of the fused attention.
    """
    found = [Step(("rap-doctor",), plain=True), *first_phase(libraries).steps[:3]]
    found += [step("steps/torch_kernels.py", name, seconds=0) for name in specs if name != NANO]
    for name in specs:
        weights = ("--spec", name, "--random-weights") if name != NANO else ()
        found.append(Step(("rap-export", *weights, "--precision", "fp16", "-o", bundle(name)), plain=True))
        found += _measured(bundle(name), backends)
        if name == NANO and RTX in backends:
            found.append(step("tensorrt_rtx_targets.py", "--bundle", bundle(name), seconds=0))
    if NANO in specs:
        eight = str(BUNDLES / f"{NANO}-fp8")
        found.append(Step(("rap-calibrate", "--bundle", bundle(NANO), "--precision", "fp8", "-o", eight), plain=True))
        found += _measured(eight, backends)
    return [*found, Step(("python", "-m", "pytest", "-q", "-rs"), plain=True)]


def _measured(folder: str, backends: Sequence[str]) -> list[Step]:
    """Plans into a bundle, its self-test on each kind of engine, and its figures."""
    found = []
    for backend in backends:
        target = ("--target", "current") if backend == RTX else ()
        found.append(Step(("rap-export", "--bundle", folder, "--engine", backend, *target), plain=True))
    found.append(Step(("rap-doctor", "--bundle", folder), plain=True))
    for backend in backends:
        found.append(Step(("rap-run", "--selftest", "--bundle", folder, "--engine", backend)))
        found.append(step("viewers.py", "--bundle", folder, "--engine", backend, seconds=0))
    return [*found, Step(("python", program("gpu.py"), "--bundle", folder))]


def is_here(need: str) -> bool:
    """Whether a program, or what is written "import NAME", can be found; of a GPU its driver's library is asked."""
    if need == "GPU":
        from rap_edge.runtime.machine.cuda_driver import query_driver

        return bool(query_driver().devices)
    name = need.removeprefix("import ")
    return shutil.which(name) is not None if name == need else importlib.util.find_spec(name) is not None
