"""Everything that has to be run on a GPU, one after the other, written down as one page per GPU.

    python benchmarks/on_a_gpu.py [--specs nano,flashhead-lite,rap-1.3b] [-o docs/benchmarks]

The page has every command with its output, and is written again after each of them, so that nothing is lost if a later
one fails or is stopped. A command that fails is on the page with its reason, and the rest goes on. Bundles go to
`build/gpu/`; all but nano's have random weights.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from provenance import commit

from rap_edge.runtime.cuda_device import CudaDriver, query_driver
from rap_edge.runtime.spec import NANO, PRESETS
from rap_edge.runtime.tensorrt_module import RTX, TENSORRT

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = Path("build") / "gpu"
_LAST_LINES = 12
_PROGRESS = re.compile(r"\[[#.]+\] +\d+ %")


@dataclass(frozen=True)
class Step:
    """One command, as words; `plain` says that its output is text that has to be set as it is, not Markdown."""

    words: tuple[str, ...]
    plain: bool = False

    def __str__(self) -> str:
        return shlex.join(self.words)


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed without its progress; of a failure the last lines alone."""

    step: Step
    status: int
    seconds: float
    output: str


def steps(specs: Sequence[str], backends: Sequence[str]) -> list[Step]:
    """The commands, cheap ones first.

    Args:
        specs: names of presets.
        backends: "tensorrt-rtx" and "tensorrt", as far as they are installed.
    """
    nano = str(BUNDLES / f"{NANO.name}-fp16")
    found = [Step(("rap-doctor",), plain=True), Step(("python", "benchmarks/hybrid_attention.py"))]
    for name in specs:
        bundle = str(BUNDLES / f"{name}-fp16")
        weights = ("--spec", name, "--random-weights") if name != NANO.name else ()
        found.append(Step(("rap-export", *weights, "--precision", "fp16", "-o", bundle), plain=True))
        found += _measured(bundle, backends)
        if name == NANO.name and RTX.backend in backends:
            found.append(Step(("python", "benchmarks/tensorrt_rtx_targets.py", "--bundle", bundle)))
    if NANO.name in specs:
        eight = str(BUNDLES / f"{NANO.name}-fp8")
        found.append(Step(("rap-calibrate", "--bundle", nano, "--precision", "fp8", "-o", eight), plain=True))
        found += _measured(eight, backends)
    return [*found, Step(("python", "-m", "pytest", "-q", "-rs"), plain=True)]


def _measured(bundle: str, backends: Sequence[str]) -> list[Step]:
    """Plans into a bundle, its self-test on each kind of engine, and its figures."""
    found = []
    for backend in backends:
        target = ("--target", "current") if backend == RTX.backend else ()
        found.append(Step(("rap-export", "--bundle", bundle, "--engine", backend, *target), plain=True))
    found.append(Step(("rap-doctor", "--bundle", bundle), plain=True))
    for backend in backends:
        found.append(Step(("rap-run", "--selftest", "--bundle", bundle, "--engine", backend)))
    return [*found, Step(("python", "benchmarks/gpu.py", "--bundle", bundle))]


def run(step: Step) -> Outcome:
    """Run a command of this environment in the repository's root, and show what it prints."""
    program, *arguments = step.words
    beside = Path(sys.executable).parent / program
    words = [str(beside if beside.exists() else program), *arguments]
    started = time.monotonic()
    lines = []
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            print(line, end="", flush=True)
            if not _PROGRESS.search(line):
                lines.append(line.rstrip())
    kept = lines if process.returncode == 0 else lines[-_LAST_LINES:]
    return Outcome(step, process.returncode, time.monotonic() - started, "\n".join(kept))


def page(driver: CudaDriver, commit: str, outcomes: Sequence[Outcome]) -> str:
    """Everything that was run so far, as Markdown."""
    gpu = driver.devices[0]
    parts = [
        f"# {gpu.name}",
        f"Compute capability {gpu.compute_capability}, {gpu.memory_bytes / 2**30:.0f} GiB, driver for CUDA "
        f"{driver.version}; commit {commit}, {datetime.now(UTC):%Y-%m-%d}. Written by `python benchmarks/on_a_gpu.py`.",
    ]
    for outcome in outcomes:
        parts.append(f"## `{outcome.step}`")
        if outcome.status:
            parts.append(f"Failed after {outcome.seconds:.0f} s with status {outcome.status}:")
        if outcome.step.plain or outcome.status:
            parts.append(f"```\n{outcome.output}\n```")
        else:
            # A card's own headings are below that of its command.
            parts.append(re.sub(r"^(#+ )", r"#\1", outcome.output.strip(), flags=re.MULTILINE))
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if every command succeeded or there is no GPU, 1 if one failed."""
    parser = argparse.ArgumentParser(description="Run everything that needs a GPU, and write it down.")
    parser.add_argument("--specs", default=",".join(PRESETS), help=f"presets to measure (default {','.join(PRESETS)})")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks", help="folder of the page")
    arguments = parser.parse_args(argv)
    specs = arguments.specs.split(",")
    if unknown := [name for name in specs if name not in PRESETS]:
        parser.error(f"there is no spec {unknown[0]!r}; choose among {', '.join(PRESETS)}")
    driver = query_driver()
    if not driver.devices:
        print(f"skipped: {driver.problem}.")
        return 0
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{re.sub(r'[^a-z0-9]+', '-', driver.devices[0].name.lower()).strip('-')}.md"
    outcomes: list[Outcome] = []
    here = commit()
    for step in steps(specs, [module.backend for module in (RTX, TENSORRT) if find_spec(module.module)]):
        print(f"\n$ {step}", flush=True)
        outcomes.append(run(step))
        path.write_text(page(driver, here, outcomes), encoding="utf-8")
    print(f"\n{path}")
    return int(any(outcome.status for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
