"""Colours and style sheet of the report."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

COLOURS: Mapping[str, str] = MappingProxyType(
    {"ink": "#1d2433", "dim": "#667085", "line": "#b8c0cf", "accent": "#2f6fed", "good": "#16805a", "bad": "#c2402d"}
)

STYLE = """
:root { color-scheme: light; --ink: #1d2433; --dim: #667085; --line: #e4e7ee; --accent: #2f6fed; --good: #16805a;
  --bad: #c2402d; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6fa; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 40px 24px 80px; }
header { margin-bottom: 28px; }
.eyebrow { margin: 0; color: var(--accent); font-weight: 600; letter-spacing: .04em; }
h1 { margin: 2px 0 4px; font-size: 32px; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 0 0 6px; font-size: 19px; }
.machine, .note, .dim { color: var(--dim); }
.machine { margin: 0 0 20px; }
.note { margin: 0 0 14px; max-width: 75ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; }
.tile, section { background: #fff; border: 1px solid var(--line); border-radius: 12px; }
.tile { padding: 16px 18px; }
.tile b { display: block; font-size: 27px; line-height: 1.2; letter-spacing: -.01em; }
.tile span { color: var(--dim); }
section { padding: 22px 24px; margin-top: 18px; }
table { border-collapse: collapse; width: 100%; margin: 6px 0 14px; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--dim); }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.mono, code { font: 12.5px/1.6 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
td.mono { min-width: 250px; }
.ok { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.pick { color: var(--accent); font-weight: 700; }
.q, .f { display: inline-block; padding: 0 8px; border-radius: 999px; font-size: 12.5px; font-weight: 600; }
.q { background: #e6eefe; color: #1f57c8; } .f { background: #eef0f4; color: #4a5366; }
.plot svg { width: 100%; height: auto; display: block; }
.frames { display: grid; gap: 8px; align-items: center; }
.frames b { font-weight: 600; } .frames i { font-style: normal; color: var(--dim); font-variant-numeric: tabular-nums; }
.frames figure { margin: 0; position: relative; }
.frames img { width: 100%; display: block; border-radius: 8px; background: #000; }
.frames figcaption { position: absolute; right: 8px; bottom: 6px; padding: 0 7px; border-radius: 6px; font-size: 12.5px;
  background: rgba(255, 255, 255, .85); }
details { border-top: 1px solid var(--line); padding: 8px 0; }
summary { cursor: pointer; }
.scroll { overflow-x: auto; }
@media print { body { background: #fff; } section, .tile { break-inside: avoid; } }
"""
