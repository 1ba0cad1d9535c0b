"""`rap-calibrate`: a bundle to one in 8 bits that is faster, and near enough to fp32 over a long roll-out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import needs_extra
from rap_edge.runtime.cli.progress import say

if TYPE_CHECKING:
    from .write.results import Calibration

PRECISIONS = (str(Precision.INT8), str(Precision.FP8))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        0 done; 2 something is wrong, said in one sentence on stderr; 130 stopped by Ctrl-C or SIGTERM. Unless it
        returns 0 an older bundle is as it was; finished steps are kept for the next run.
    """
    return exit_status("rap-calibrate", lambda: _start(argv), "Stopped; run it again to go on where it stopped.")


def _start(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    result = _run(arguments)
    print(json.dumps(as_json(result), indent=2) if arguments.json else table(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rap-calibrate", description="Quantise what pays, and prove it on the roll-out."
    )
    parser.add_argument("--bundle", required=True, metavar="B", help="folder that rap-export wrote, in fp32 or fp16")
    parser.add_argument("--precision", choices=PRECISIONS, default=Precision.INT8, help="of the layers (default int8)")
    parser.add_argument("--audio", metavar="FILE|DIR", help="speech to calibrate with (default: the shipped voices)")
    parser.add_argument("--set", metavar="DIR", help="a set of states that was recorded before from this bundle")
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="what an fp16 bundle was exported from, to judge by fp32 (not needed for the model that ships)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="folder (default build/<spec>-<precision>; for fp16 <spec>-fp16-<precision>)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


@needs_extra("calibrate")
def _run(arguments: argparse.Namespace) -> Calibration:
    # onnx_ir and matplotlib take a second to import: bad arguments and --help come before it.
    from rap_edge.export.stages import Stages

    from .calibrator import Request, calibrate
    from .steps.context import Settings

    say(f"rap-calibrate: loading {arguments.bundle!r} ...")
    request = Request(
        Path(arguments.bundle),
        Precision(arguments.precision),
        None if arguments.output is None else Path(arguments.output),
        None if arguments.audio is None else Path(arguments.audio),
        None if arguments.set is None else Path(arguments.set),
        None if arguments.checkpoint is None else Path(arguments.checkpoint),
    )
    return calibrate(request, Settings(), Stages())


def as_json(result: Calibration) -> dict[str, object]:
    """What `--json` prints."""
    head = {"bundle": result.output, "spec": result.spec, "precision": result.precision, "seconds": result.seconds}
    return head | result.to_dict()


def table(result: Calibration) -> str:
    """The result as text."""
    lines = []
    for graph in dict.fromkeys(entry.graph for entry in result.ledger):
        entries = [entry for entry in result.ledger if entry.graph == graph]
        count = sum(entry.decision == result.precision for entry in entries)
        observer = result.observers.get(graph, {}).get("chosen", "not observed")
        lines.append(f"{graph.ljust(14)} {count:3d} of {len(entries):3d} layers in {result.precision}, {observer}")
    lines += [
        f"{name.ljust(14)} {'not measured' if figure.value is None else f'{figure.value:.3f}'} (gate {figure.limit:g})"
        + (f"; {figure.note}" if figure.note else "")
        for name, figure in result.figures.items()
    ]
    if result.speed is not None:
        lines.append(
            f"ms per chunk   {1e3 * result.speed['base_cpu']:.0f} -> {1e3 * result.speed['cpu']:.0f} CPU time of one "
            f"thread; {1e3 * result.speed['base_wall']:.0f} -> {1e3 * result.speed['wall']:.0f} wall clock, "
            f"{result.speed['threads']} threads"
        )
    lines.append(
        f"{result.output}: {result.spec} {result.precision} from {result.base} for {result.target.name} on "
        f"{result.hardware['cpu']}, calibrated in {result.seconds:.0f} s; its report is calibration/report.html"
    )
    return "\n".join(lines)
