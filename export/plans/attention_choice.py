"""The fused hybrid attention or TensorRT's own: both are built, and the faster one is kept if they agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rap_edge.runtime.errors import RapEdgeError

from .comparison import Comparison
from .network import BuiltPlan

# Two float16 networks whose attentions round at other places are some tenths of a percent apart.
_MOST_DIFFERENCE = 0.02


def choose_attention(
    native: BuiltPlan,
    build_plugin: Callable[[], BuiltPlan],
    compare: Callable[[Mapping[str, Any]], Comparison],
) -> tuple[BuiltPlan, dict[str, Any]]:
    """The plan to keep, and for the manifest what was chosen, both times, or why there was no choice.

    Args:
        native: the plan with TensorRT's attention.
        build_plugin: builds the one with the fused attention.
        compare: runs both, serialised, "native" first.
    """
    try:
        plugin = build_plugin()
        found = compare({"native": native.serialized, "plugin": plugin.serialized})
    except RapEdgeError as error:
        return native, {"chosen": "native", "plugin": str(error)}
    times = {f"{name}_ms": round(value, 4) for name, value in found.milliseconds.items()}
    if not found.difference <= _MOST_DIFFERENCE:
        reason = f"Its results are {100.0 * found.difference:.1f} % away from those of TensorRT's attention."
        return native, {"chosen": "native", "plugin": reason, **times}
    if found.milliseconds["plugin"] < found.milliseconds["native"]:
        return plugin, {"chosen": "plugin", **times}
    return native, {"chosen": "native", **times}
