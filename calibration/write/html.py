"""The report: one HTML page without anything outside of it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.outputs.png import encode_png

from ..judge.quality import Bytes, psnr
from ..quantize.variants import GraphPlan
from .ledger import LedgerEntry
from .results import Calibration
from .style import COLOURS, STYLE

DIFFERENCE_GAIN = 8
_MOST_RANGES = 16


@dataclass(frozen=True)
class Pictures:
    """Frames side by side, each uint8 [n, H, W, 3], with their indices in the clip."""

    indices: tuple[int, ...]
    fps: int
    fp32: Bytes
    fp16: Bytes | None
    calibrated: Bytes


def render_report(result: Calibration, plans: Mapping[str, GraphPlan], pictures: Pictures) -> str:
    """The page as text."""
    title = f"{result.spec}: {result.base} to {result.precision}"
    parts = [
        _head(result, title),
        _section("Gates", _gates(result), _gate_note(result)),
        _section("Quality against time", _pareto(result), _pareto_note(result)),
        _section(
            "Frames",
            _frames(result, pictures),
            f"The same moment in each precision; the difference to fp32 is shown {DIFFERENCE_GAIN} times as strong.",
        ),
        _section("Ledger", _ledger(result.ledger, result.precision), _ledger_note(result)),
        _section("Activation ranges per denoise level", _ranges(plans), _range_note()),
        _section("Observers and smoothing", _observers(result), ""),
        _section("Calibration set", _set(result), ""),
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>"
        + "\n".join(parts)
        + "</main></body></html>\n"
    )


def _head(result: Calibration, title: str) -> str:
    counts = _counts(result.ledger, result.precision)
    tiles = [
        (
            f"{result.figures['speedup'].value:.2f}x",
            "faster, in CPU time" if result.speed else "faster, by the cost model",
        ),
        (f"{result.figures['psnr'].value:.1f} dB", "PSNR to fp32"),
        (f"{counts[0]} of {counts[1]}", f"layers in {result.precision}"),
        (_mouth_tile(result), "mouth correlation lost"),
    ]
    boxes = "".join(f"<div class='tile'><b>{html.escape(a)}</b><span>{html.escape(b)}</span></div>" for a, b in tiles)
    machine = ", ".join(f"{key} {value}" for key, value in result.hardware.items())
    return (
        f"<header><p class='eyebrow'>rap-calibrate</p><h1>{html.escape(title)}</h1>"
        f"<p class='machine'>Target {html.escape(result.target.name)} &middot; {html.escape(machine)}</p>"
        f"<div class='tiles'>{boxes}</div></header>"
    )


def _mouth_tile(result: Calibration) -> str:
    value = result.figures["mouth_loss"].value
    return "n/a" if value is None else f"{max(value, 0.0):.3f}"


def _section(title: str, body: str, note: str) -> str:
    lead = f"<p class='note'>{html.escape(note)}</p>" if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{lead}{body}</section>"


_NAMES = {
    "psnr": ("PSNR to fp32", "dB", "at least"),
    "ssim": ("SSIM to fp32", "", "at least"),
    "mouth_loss": ("Loss of mouth correlation", "", "at most"),
    "drift": ("Drift, first to last 10 s", "dB", "at most"),
    "speedup": ("Time of the base over time now", "x", "more than"),
}


def _gate_note(result: Calibration) -> str:
    return f"A roll-out of {len(result.frames)} frames with its state fed back, against {result.against}."


def _gates(result: Calibration) -> str:
    rows = []
    for name, figure in result.figures.items():
        label, unit, word = _NAMES[name]
        value = "not measured" if figure.value is None else f"{figure.value:.3f} {unit}"
        mark = "<span class='ok'>holds</span>" if figure.passed else "<span class='bad'>fails</span>"
        rows.append(
            f"<tr><td>{label}</td><td class='n'>{value}</td><td>{word} {figure.limit:g} {unit}</td><td>{mark}</td>"
            f"<td class='dim'>{html.escape(figure.note)}</td></tr>"
        )
    header = "<tr><th>gate</th><th class='n'>reached</th><th>needed</th><th></th><th></th></tr>"
    return f"<table>{header}{''.join(rows)}</table>{_speed(result)}"


def _speed(result: Calibration) -> str:
    speed = result.speed
    if speed is None:
        return ""
    rows = "".join(
        f"<tr><td>{label}</td><td class='n'>{1e3 * speed[before]:.0f} ms</td>"
        f"<td class='n'>{1e3 * speed[after]:.0f} ms</td>"
        f"<td class='n'>{speed[before] / speed[after]:.2f}x</td></tr>"
        for label, before, after in (
            ("CPU time of one thread, least", "base_cpu", "cpu"),
            (f"Wall clock, {speed['threads']} threads, median", "base_wall", "wall"),
        )
    )
    return (
        f"<table><tr><th>time of a chunk, {speed['chunks']} chunks in turn</th><th class='n'>{result.base}</th>"
        f"<th class='n'>{result.precision}</th><th class='n'>ratio</th></tr>{rows}</table>"
    )


def _pareto_note(result: Calibration) -> str:
    how = "CPU time of one thread, in turn with the base" if result.target.measured else "by the cost model"
    return f"Sets of layers, the least harmful for what they save first, on the search's clip; time {how}."


def _pareto(result: Calibration) -> str:
    plot = Plot(figsize=(8.6, 3.8), layout="constrained")
    axes = plot.subplots()
    points = [point for point in result.found.points if point.layers]
    axes.plot([100 * p.time for p in points], [p.psnr for p in points], "-", color=COLOURS["line"], zorder=1)
    for point in points:
        chosen = point.layers == len(result.found.chosen)
        place = (100 * point.time, point.psnr)
        colour = COLOURS["accent"] if chosen else COLOURS["ink"]
        axes.scatter([place[0]], [place[1]], s=90 if chosen else 36, color=colour, zorder=2)
        label, offset = (f"{point.layers} layers, chosen", (0, -20)) if chosen else (f"{point.layers}", (0, 8))
        weight = "bold" if chosen else "normal"
        axes.annotate(
            label, place, offset, textcoords="offset points", fontsize=9, color=colour, ha="center", weight=weight
        )
    limit = result.figures["psnr"].limit
    axes.axhline(limit, color=COLOURS["bad"], lw=1, ls="--")
    axes.axvline(100.0, color=COLOURS["ink"], lw=1, ls=":")
    axes.margins(0.15)
    axes.text(0.01, limit, f"gate, {limit:g} dB", transform=axes.get_yaxis_transform(), va="bottom", fontsize=9)
    axes.text(100.0, 0.04, f" {result.base}", transform=axes.get_xaxis_transform(), fontsize=9)
    axes.set_xlabel(f"time per chunk, per cent of {result.base}")
    axes.set_ylabel("PSNR to fp32, dB")
    return _svg(plot, axes)


def _svg(plot: Plot, *axes: Axes) -> str:
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    stream = io.StringIO()
    plot.savefig(stream, format="svg", transparent=True)
    text = stream.getvalue()
    return f"<div class='plot'>{text[text.index('<svg') :]}</div>"


def _frames(result: Calibration, pictures: Pictures) -> str:
    columns: list[tuple[str, Bytes]] = [("fp32", pictures.fp32)]
    if pictures.fp16 is not None:
        columns.append(("fp16", pictures.fp16))
    columns.append((result.precision, pictures.calibrated))
    cells = [f"<div class='frames' style='grid-template-columns:auto repeat({len(columns) + 1},1fr)'>", "<i></i>"]
    cells += [f"<b>{name}</b>" for name, _ in columns]
    cells.append(f"<b>{result.precision} &minus; fp32, &times;{DIFFERENCE_GAIN}</b>")
    for row, index in enumerate(pictures.indices):
        cells.append(f"<i>{index / pictures.fps:.2f} s</i>")
        for name, frames in columns:
            caption = (
                "" if name == "fp32" else f"<figcaption>{psnr(frames[row], pictures.fp32[row]):.1f} dB</figcaption>"
            )
            cells.append(f"<figure><img alt='{name}' src='{_uri(frames[row])}'>{caption}</figure>")
        cells.append(f"<figure><img alt='difference' src='{_uri(_difference(pictures, row))}'></figure>")
    return "".join(cells) + "</div>"


def _difference(pictures: Pictures, row: int) -> Bytes:
    difference = np.abs(pictures.calibrated[row].astype(np.int16) - pictures.fp32[row])
    shown: Bytes = np.minimum(difference * DIFFERENCE_GAIN, 255).astype(np.uint8)
    return shown


def _uri(picture: Bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(np.ascontiguousarray(picture))).decode()


def _counts(ledger: Sequence[LedgerEntry], precision: Precision) -> tuple[int, int]:
    return sum(entry.decision == precision for entry in ledger), len(ledger)


def _ledger_note(result: Calibration) -> str:
    how = "measured on this CPU" if result.target.measured else "given by a cost model, because the GPU is not here"
    return (
        "Every layer with its precision and the reason. Sensitivity is the PSNR of a roll-out with that layer alone in "
        f"{result.precision}; times are {how}."
    )


def _ledger(ledger: Sequence[LedgerEntry], precision: Precision) -> str:
    blocks = []
    for graph in dict.fromkeys(entry.graph for entry in ledger):
        entries = [entry for entry in ledger if entry.graph == graph]
        quantized, total = _counts(entries, precision)
        rows = "".join(
            f"<tr><td class='mono'>{html.escape(e.node)}</td><td>{e.op}</td>"
            f"<td><span class='{'q' if e.decision == precision else 'f'}'>{e.decision}</span></td>"
            f"<td class='n'>{'' if e.sensitivity_db is None else f'{e.sensitivity_db:.1f} dB'}</td>"
            f"<td class='n'>{'' if e.milliseconds_saved is None else f'{e.milliseconds_saved:.3f} ms'}</td>"
            f"<td class='dim'>{html.escape(e.reason)}</td></tr>"
            for e in entries
        )
        opened = " open" if len(entries) <= 20 else ""
        blocks.append(
            f"<details{opened}><summary><b>{graph}</b> {quantized} of {total} layers in {precision}</summary>"
            "<div class='scroll'><table><tr><th>layer</th><th></th><th></th><th class='n'>alone</th>"
            f"<th class='n'>saved</th><th>reason</th></tr>{rows}</table></div></details>"
        )
    return "".join(blocks)


def _range_note() -> str:
    return (
        f"The {_MOST_RANGES} inputs of the DiT's layers whose largest value depends most on the denoise level. One "
        "limit serves all levels."
    )


def _ranges(plans: Mapping[str, GraphPlan]) -> str:
    plan = plans["dit"]
    inputs = dict.fromkeys(layer.input for layer in plan.layers if layer.input in plan.activations)
    timed = [name for name in inputs if len(plan.activations[name].levels) > 1]
    timed.sort(key=lambda name: -plan.activations[name].level_ratio)
    if not timed:
        return "<p>No layer was observed at more than one level.</p>"
    shown = timed[:_MOST_RANGES]
    levels = sorted(
        {level for name in shown for level in plan.activations[name].levels if level is not None}, reverse=True
    )
    plot = Plot(figsize=(8.6, 0.34 * len(shown) + 1.2), layout="constrained")
    axes = plot.subplots()
    height = 0.8 / len(levels)
    for index, level in enumerate(levels):
        values = [
            plan.activations[name].levels.get(level, 0.0) / max(plan.extents[name].magnitude, 1e-12) for name in shown
        ]
        place = np.arange(len(shown)) + (index - (len(levels) - 1) / 2) * height
        shade = 0.25 + 0.65 * (index + 1) / len(levels)
        axes.barh(place, values, height, color=(*_rgb(COLOURS["accent"]), shade), label=f"t = {level:g}")
    axes.axvline(1.0, color=COLOURS["bad"], lw=1, ls="--")
    paths = {layer.input: layer.path for layer in plan.layers}
    axes.set_yticks(np.arange(len(shown)), [paths[name] for name in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("largest magnitude over the quantisation limit")
    axes.legend(frameon=False, fontsize=8)
    return _svg(plot, axes)


def _rgb(colour: str) -> tuple[float, float, float]:
    return (int(colour[1:3], 16) / 255, int(colour[3:5], 16) / 255, int(colour[5:7], 16) / 255)


def _observers(result: Calibration) -> str:
    names = list(next(iter(result.observers.values()))["psnr"]) if result.observers else []
    header = "".join(f"<th class='n'>{name}</th>" for name in names)
    rows = "".join(
        f"<tr><td>{graph}</td>"
        + "".join(
            f"<td class='n{' pick' if name == item['chosen'] else ''}'>{item['psnr'][name]:.2f} dB</td>"
            for name in names
        )
        + "</tr>"
        for graph, item in result.observers.items()
    )
    text = f"<table><tr><th>graph, all layers in 8 bits</th>{header}</tr>{rows}</table>"
    if not result.smoothing:
        return text + "<p>No activation is dominated by one level or channel; nothing was smoothed.</p>"
    rows = "".join(
        f"<tr><td>{item['graph']}</td><td class='mono'>{html.escape(item['activation'])}</td>"
        f"<td class='n'>{item['level_ratio']:.1f}</td><td class='n'>{item['channel_ratio']:.1f}</td>"
        f"<td class='n'>{item['psnr_before']:.2f} dB</td><td class='n'>{item['psnr_after']:.2f} dB</td>"
        f"<td>{'kept' if item['kept'] else 'not kept'}</td></tr>"
        for item in result.smoothing
    )
    return text + (
        "<table><tr><th>smoothing tried</th><th>activation</th><th class='n'>level ratio</th>"
        f"<th class='n'>channel ratio</th><th class='n'>before</th><th class='n'>after</th><th></th></tr>{rows}</table>"
    )


def _set(result: Calibration) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td class='n'>{count}</td></tr>"
        for name, count in sorted(result.recorded.strata().items())
    )
    return (
        f"<p>{html.escape(result.recorded.origin)}; {len(result.recorded.entries)} runs of graphs. "
        f"sha256 <code>{result.recorded.sha256}</code></p>"
        "<details><summary>Strata</summary><table><tr><th>stratum</th><th class='n'>runs</th></tr>"
        f"{rows}</table></details>"
    )
