"""`rap-export`: a checkpoint to a bundle of five ONNX graphs that have been compared with PyTorch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rap_edge.models.presets import PRESETS, load_spec
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import needs_extra
from rap_edge.runtime.cli.progress import say
from rap_edge.runtime.cli.table import columns
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.machine.available import available_cores
from rap_edge.runtime.machine.tensorrt_modules import PLAN_BACKENDS
from rap_edge.runtime.spec import AudioEncodeMode

if TYPE_CHECKING:
    from .exporter import ExportReport, Source
    from .plans.choice import EngineChoice
    from .plans.make_plans import PlansReport

PRECISIONS = (str(Precision.FP32), str(Precision.FP16))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        0 done; 1 `inspect` found a checkpoint that is not whole, or `compare` a difference; 2 something is wrong, said
        in one sentence on stderr;
        130 stopped by Ctrl-C or SIGTERM. Unless it returns 0 an older bundle is as it was.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    command = _COMMANDS.get(words[0]) if words else None
    start = partial(_start, words) if command is None else partial(command, words[1:])
    return exit_status("rap-export", start, "Stopped; nothing was written.")


def _start(words: Sequence[str]) -> int:
    arguments = _parser().parse_args(words)
    with needs_extra("export" if arguments.bundle is None else "plans"):
        report = _run(arguments)
    print(json.dumps(asdict(report), indent=2) if arguments.json else _text(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rap-export",
        description="Export a model to five ONNX graphs and compare them with PyTorch.",
        epilog="rap-export inspect DIR says what a checkpoint folder is and what it lacks; rap-export compare BUNDLE "
        "runs its graphs side by side and names the first layer that differs; rap-export explain "
        "BUNDLE LAYER says why a layer of a calibrated bundle has its precision.",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", metavar="DIR", help="safetensors checkpoint (default: the one that ships)")
    weights.add_argument(
        "--model", metavar="MODULE:FUNCTION", help="a model of your own: runs that function, see docs/own_model.md"
    )
    weights.add_argument("--random-weights", action="store_true", help="fresh weights of the spec's shapes")
    weights.add_argument("--bundle", metavar="DIR", help="add engines to this bundle and leave its graphs as they are")
    parser.add_argument(
        "--portrait",
        metavar="IMG",
        action="append",
        default=[],
        help="a picture that the model draws well, for the bundle to offer and hold others to; may be repeated",
    )
    parser.add_argument("--spec", metavar="NAME|FILE", help=f"{', '.join(PRESETS)}, or a JSON file")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the graphs (default fp32)")
    parser.add_argument(
        "--engine", choices=PLAN_BACKENDS, help="build a plan of every graph too; tensorrt-rtx needs no GPU"
    )
    parser.add_argument(
        "--target", metavar="SM[,SM]", help="tensorrt-rtx: compute capabilities or current (default 86,89,120,121)"
    )
    parser.add_argument("--profile", metavar="NAME", help="tensorrt: how far plans travel, see docs/engines.md")
    parser.add_argument("-o", "--output", metavar="BUNDLE", help="folder (default build/<spec>-<precision>)")
    parser.add_argument(
        "--no-parity",
        action="store_true",
        help="leave the comparison with PyTorch out, and the golden clip: benchmarks",
    )
    parser.add_argument(
        "--audio-encode-mode",
        choices=get_args(AudioEncodeMode),
        help="once: the audio encoder takes sound of any length, for rap-run --audio-encode-mode once (default stream)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _explain(words: Sequence[str]) -> int:
    from .commands.explain import explain

    parser = argparse.ArgumentParser(prog="rap-export explain", description="Why a layer has its precision.")
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that rap-calibrate wrote")
    parser.add_argument("layer", metavar="LAYER", help="name of a node or of a module, as the report lists them")
    arguments = parser.parse_args(words)
    print(explain(arguments.bundle, arguments.layer))
    return 0


def _inspect(words: Sequence[str]) -> int:
    from .commands.inspect import inspect, text

    parser = argparse.ArgumentParser(
        prog="rap-export inspect", description="What a checkpoint folder is and lacks, without loading it."
    )
    parser.add_argument("folder", metavar="DIR", help="folder of safetensors files and their configs")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, lists whole")
    arguments = parser.parse_args(words)
    found = inspect(arguments.folder)
    print(json.dumps(found.to_dict(), indent=2) if arguments.json else text(found))
    return 0 if found.whole else 1


# What a graph can be compared on, as written first; the command's module needs Polygraphy.
_COMPARED = ("onnxruntime", *PLAN_BACKENDS)


def _compare(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rap-export compare",
        description="Compare a bundle's graphs between ONNX Runtime and another engine, with Polygraphy.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that rap-export wrote")
    parser.add_argument("--engine", choices=_COMPARED, default=_COMPARED[0], help="default: the graph as written")
    parser.add_argument("--graph", action="append", default=[], metavar="NAME", help="this one only; may be repeated")
    parser.add_argument("--layers", action="store_true", help="every layer, and name the first that differs")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    arguments = parser.parse_args(words)
    with needs_extra("debug"), redirect_stdout(sys.stderr):
        import polygraphy.comparator  # noqa: F401

        from .commands.compare import compare_bundle, text, to_json
    # Polygraphy tells on stdout what it does.
    with redirect_stdout(sys.stderr):
        found = compare_bundle(arguments.bundle, arguments.engine, arguments.graph, layers=arguments.layers)
    print(json.dumps(to_json(found), indent=2) if arguments.json else text(found))
    return 0 if all(item.first is None for item in found) else 1


_COMMANDS = {"explain": _explain, "inspect": _inspect, "compare": _compare}


def _run(arguments: argparse.Namespace) -> ExportReport | PlansReport:
    if arguments.bundle is not None:
        return _add_engines(arguments)
    precision = Precision(arguments.precision or Precision.FP32)
    from .bundle_writer import refuse_to_replace

    source: Source | None = None if arguments.model is not None else _checkpoint_source(arguments)
    target = None if arguments.output is None else Path(arguments.output)
    if target is not None:
        # Minutes of work should not end in a refusal that could have come first.
        refuse_to_replace(target)
    engines = _choose_engines(arguments, precision)
    # torch takes seconds to import: bad arguments and --help come before it.
    say("rap-export: loading PyTorch ...")
    import torch

    from .exporter import ExportSettings, export_bundle
    from .parity.check_inputs import real_inputs
    from .stages import Stages

    if source is None:
        from .sources.own_model import own_source

        if arguments.spec is not None:
            raise ExportError("--model has a spec of its own; leave --spec out.")
        source = own_source(arguments.model)
        say(f"rap-export: running the code of {arguments.model}, as --model asks ...")
    # It counts the machine's cores, of which a container may have a part.
    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    settings = ExportSettings(
        precision=precision,
        engines=engines,
        portraits=tuple(map(Path, arguments.portrait)),
        compared=not arguments.no_parity,
        audio_encode_mode=arguments.audio_encode_mode or "stream",
    )
    return export_bundle(source, target, settings, real_inputs, Stages())


def _checkpoint_source(arguments: argparse.Namespace) -> Source:
    from .sources.network_source import choose_source

    spec = None if arguments.spec is None else load_spec(arguments.spec)
    return choose_source(arguments.checkpoint, spec, random_weights=arguments.random_weights)


def _add_engines(arguments: argparse.Namespace) -> PlansReport:
    if arguments.engine is None:
        raise ExportError(f"--bundle adds engines; say which with --engine {' or '.join(PLAN_BACKENDS)}.")
    for option in ("spec", "precision", "output", "audio_encode_mode"):
        if getattr(arguments, option) is not None:
            name = option.replace("_", "-")
            raise ExportError(f"--bundle keeps the graphs of the bundle; leave --{name} out.")
    bundle = Bundle.open(arguments.bundle)
    choice = _choose_engines(arguments, bundle.manifest.precision)
    assert choice is not None  # --engine is given
    from .plans.make_plans import add_plans
    from .stages import Stages

    return add_plans(bundle.root, choice, Stages())


def _choose_engines(arguments: argparse.Namespace, precision: Precision) -> EngineChoice | None:
    if arguments.engine is None:
        for option in ("target", "profile"):
            if getattr(arguments, option) is not None:
                raise ExportError(f"--{option} is of an engine; say which with --engine.")
        return None
    from .plans.choice import choose_engines

    return choose_engines(arguments.engine, arguments.target, arguments.profile, precision)


def _text(report: ExportReport | PlansReport) -> str:
    from .plans.make_plans import PlansReport
    from .plans.table import table as plan_table

    if isinstance(report, PlansReport):
        return plan_table(report)
    return table(report) + ("" if report.engines is None else "\n" + plan_table(report.engines))


def table(report: ExportReport) -> str:
    """The report as text."""
    header = ("graph", "nodes", "weights", "size", "GFLOP", "fp32 islands", "max diff", "PSNR dB")
    rows = [
        (
            name,
            str(graph.nodes),
            f"{graph.parameters / 1e6:.1f} M",
            f"{graph.bytes / 1e6:.1f} MB",
            f"{graph.flops / 1e9:.2f}",
            str(graph.islands),
            "-" if graph.max_abs is None else f"{graph.max_abs:.2g}",
            "-" if graph.psnr is None else f"{graph.psnr:.1f}",
        )
        for name, graph in report.graphs.items()
    ]
    lines = columns([header, *rows])
    for name, graph in report.graphs.items():
        lines += [f"{name}: attention stays written out in {place}" for place in graph.recognition.left]
    rollout = report.rollout
    if rollout is None:
        return "\n".join([*lines, "not compared with PyTorch, as --no-parity asks"])
    lines.append(
        f"roll-out of {rollout['chunks']} chunks with state fed back: PSNR {rollout['psnr']:.1f} dB at least, largest "
        f"difference {rollout['max_abs']:.0f} of 255"
    )
    if "note" in rollout:
        lines.append(str(rollout["note"]))
    lines.append(
        f"{report.bundle}: {report.spec} {report.precision}, {report.chunk_flops / 1e9:.1f} GFLOP per chunk, exported "
        f"in {report.seconds:.0f} s, peak memory {report.peak_memory_bytes / 2**30:.1f} GiB"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
