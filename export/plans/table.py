"""The report of built plans as text."""

from __future__ import annotations

from rap_edge.runtime.cli.table import columns

from .make_plans import PlansReport


def table(report: PlansReport) -> str:
    """The report as text."""
    header = ("plan", "layers", "size", "attention", "products", "activations", "moves", "seconds", "peak memory")
    rows = [header]
    for name, result in report.graphs.items():
        attention = result.evidence.get("attention", {"fused": 0, "expected": 0})
        products = result.evidence.get("products", {})
        traffic = result.evidence.get("traffic_bytes")
        memory = "?" if result.peak_memory_bytes is None else f"{result.peak_memory_bytes / 2**30:.1f} GiB"
        rows.append(
            (
                name,
                str(result.layers),
                f"{result.bytes / 1e6:.1f} MB",
                f"{attention['fused']}/{attention['expected']} fused",
                ", ".join(f"{count} {kind}" for kind, count in products.items()) or "-",
                f"{result.activation_bytes / 1e6:.0f} MB" if result.activation_bytes else "?",
                "?" if traffic is None else f"{traffic / 1e9:.2f} GB",
                f"{result.seconds:.1f}",
                memory,
            )
        )
    lines = columns(rows, left=(0, 4))
    peak = "" if report.peak_memory_bytes is None else f", peak memory {report.peak_memory_bytes / 2**30:.1f} GiB"
    lines.append(
        f"{report.bundle}: plans by {report.backend} {report.version} for compute capability "
        f"{', '.join(report.capabilities)}, {report.profile}, built in {report.seconds:.0f} s{peak}"
    )
    return "\n".join(lines)
