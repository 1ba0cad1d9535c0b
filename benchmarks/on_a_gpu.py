"""Everything that has to be run on a GPU, one after the other, written down as one page per GPU.

    python benchmarks/on_a_gpu.py [--specs nano,rap-small,flashhead-lite,rap-1.3b] [-o docs/benchmarks]
    python benchmarks/on_a_gpu.py --phase 1|2 --seconds N -o DIR

The page has every command with its output, and is written again after each of them, so that nothing is lost if a later
one fails or is stopped. A command that fails, that takes too long or that lacks something is on the page with its
reason, and the rest goes on. Bundles go to `build/gpu/`; all but nano's have random weights.

A phase is for a machine that is lent for minutes and has no network: what `make gpu-prepare` left in `.gpu` is unpacked
first, and nothing of this repository needs to be installed. Without a GPU every step says what it lacks.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from carried import Carried
from gpu_steps import FLASHHEAD, NANO, RAP, ROOT, RTX, SMALL, TENSORRT, Step, first_phase, is_here, second_phase, whole
from provenance import commit
from step_runner import Outcome, left_out, run, start

if TYPE_CHECKING:
    from rap_edge.runtime.machine.cuda_driver import CudaDriver

SPECS = (NANO, SMALL, FLASHHEAD, RAP)
DEFAULT_LIBRARY = "build/plugins/librap_hybrid_attention.so"
# Less than this is not worth beginning a step for.
_LEAST_SECONDS = 10.0


def page(title: str, where: str, outcomes: Sequence[Outcome]) -> str:
    """Everything that was run so far, as Markdown."""
    parts = [f"# {title}", where]
    for outcome in outcomes:
        parts.append(f"## `{outcome.step}`")
        if outcome.status is None:
            parts.append(outcome.output)
            continue
        if outcome.status:
            parts.append(f"Failed after {outcome.seconds:.0f} s with status {outcome.status}:")
        if outcome.step.plain or outcome.status:
            parts.append(f"```\n{outcome.output}\n```")
        else:
            # A card's own headings are below that of its command.
            parts.append(re.sub(r"^(#+ )", r"#\1", outcome.output.strip(), flags=re.MULTILINE))
        parts.append(f"{outcome.seconds:.0f} s")
    return "\n\n".join(parts) + "\n"


def work_through(steps: Sequence[Step], path: Path, title: str, where: str, seconds: float, carried: Carried) -> int:
    """Run steps within `seconds`, and write the page after each; how many failed."""
    end = time.monotonic() + seconds
    outcomes: list[Outcome] = []
    for item in steps:
        print(f"\n$ {item}", flush=True)
        left = end - time.monotonic()
        lacking = item.lacks(carried.has)
        if lacking:
            outcome = left_out(
                item, f"Left out: there is no {', no '.join(need.replace('import', 'module') for need in lacking)}."
            )
        elif left < _LEAST_SECONDS:
            outcome = left_out(item, f"Left out: {max(left, 0):.0f} s are left.")
        else:
            outcome = run(item, left, carried.environment(item))
        if outcome.status is None:
            print(outcome.output, flush=True)
        outcomes.append(outcome)
        path.write_text(page(title, where, outcomes), encoding="utf-8")
    print(f"\n{path}")
    return sum(bool(outcome.status) for outcome in outcomes)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if every command succeeded or there is no GPU, 1 if one failed."""
    parser = argparse.ArgumentParser(description="Run everything that needs a GPU, and write it down.")
    parser.add_argument("--specs", default=",".join(SPECS), help=f"presets to measure (default {','.join(SPECS)})")
    parser.add_argument("--phase", type=int, choices=(1, 2), help="a part of minutes, for a machine without a network")
    parser.add_argument("--seconds", type=float, default=270.0, help="that a phase may take (default 270)")
    parser.add_argument("--carried", type=Path, default=ROOT / ".gpu", help="what `make gpu-prepare` left")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks", help="folder of the page")
    arguments = parser.parse_args(argv)
    specs = arguments.specs.split(",")
    if unknown := [name for name in specs if name not in SPECS]:
        parser.error(f"there is no spec {unknown[0]!r}; choose among {', '.join(SPECS)}")
    carried = Carried(arguments.carried)
    if arguments.phase is not None:
        return _phase(arguments, carried)
    # The steps have limits for a lent machine; here they may take what they take.
    driver = _driver()
    if not driver.devices:
        print(f"skipped: {driver.problem}.")
        return 0
    backends = [name for name in (RTX, TENSORRT) if is_here(f"import {name.replace('-', '_')}")]
    steps = [_unlimited(item) for item in whole(specs, backends, [DEFAULT_LIBRARY])]
    arguments.output.mkdir(parents=True, exist_ok=True)
    name = driver.devices[0].name
    path = arguments.output / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.md"
    return int(work_through(steps, path, name, _where(), float("inf"), carried) > 0)


def _phase(arguments: argparse.Namespace, carried: Carried) -> int:
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for line in carried.unpack():
        print(line, flush=True)
    phase = first_phase(carried.libraries() or [DEFAULT_LIBRARY]) if arguments.phase == 1 else second_phase()
    beside = [
        start(item, arguments.output / f"beside-{number}.log", carried.environment(item))
        for number, item in enumerate(phase.beside)
        if not item.lacks(carried.has) and is_here("GPU")
    ]
    path = arguments.output / f"phase-{arguments.phase}.md"
    left = arguments.seconds - (time.monotonic() - started)
    failed = work_through(phase.steps, path, f"Phase {arguments.phase}", _where(), left, carried)
    for process in beside:
        # Whoever has ended is let go of; the others go on, for the next phase.
        process.poll()
    return int(failed > 0)


def _unlimited(item: Step) -> Step:
    return Step(item.words, 0, item.needs, item.plain)


def _driver() -> CudaDriver:
    from rap_edge.runtime.machine.cuda_driver import query_driver

    return query_driver()


def _where() -> str:
    """Card, driver and commit, for the head of a page."""
    driver = _driver()
    gpu = driver.devices[0] if driver.devices else None
    card = (
        f"No GPU: {driver.problem}"
        if gpu is None
        else f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_bytes / 2**30:.0f} GiB, driver for "
        f"CUDA {driver.version}"
    )
    return f"{card}; commit {commit()}, {datetime.now(UTC):%Y-%m-%d}. Written by `python benchmarks/on_a_gpu.py`."


if __name__ == "__main__":
    sys.exit(main())
