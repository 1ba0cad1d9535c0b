"""Whether a module keeps the call signature of its graph: somebody's own may not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from rap_edge.runtime.errors import ExportError, first_line

_CURE = "correct the module or the spec"


def call(name: str, module: nn.Module, inputs: Iterable[Tensor], shapes: Mapping[str, Sequence[int]]) -> list[Tensor]:
    """What a module gives for `inputs`.

    Args:
        name: of its graph, for errors.
        module: of the graph.
        inputs: in the contract's order.
        shapes: of every output that the contract names, in order.

    Raises:
        ExportError: the module fails, or gives other tensors.
        torch.OutOfMemoryError: the device has no room.
    """
    try:
        results = module(*inputs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise ExportError(f"The {name} fails on inputs of the spec's shapes ({first_line(error)}); {_CURE}.") from error
    given = (results,) if isinstance(results, Tensor) else results
    if not isinstance(given, Sequence) or not all(isinstance(result, Tensor) for result in given):
        raise ExportError(f"The {name} gives a {type(given).__name__} and must give tensors; {_CURE}.")
    require_shapes(name, [tuple(result.shape) for result in given], shapes)
    return list(given)


def require_shapes(name: str, given: Sequence[Sequence[int | str]], shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Raise `ExportError` if outputs are more, fewer, or of other shapes; free dimensions are texts and fit all."""
    if len(given) != len(shapes):
        raise ExportError(f"The {name} gives {len(given)} tensors and the spec needs {len(shapes)}; {_CURE}.")
    for found, (output, wanted) in zip(given, shapes.items(), strict=True):
        sure = len(found) == len(wanted) and all(
            a == b for a, b in zip(found, wanted, strict=True) if isinstance(a, int) and isinstance(b, int)
        )
        if not sure:
            raise ExportError(
                f"The {name} gives {output} of shape {list(found)} and the spec needs {list(wanted)}; {_CURE}."
            )
