"""The graph passes in their order, with the reason for it: a pass is a file here or in `gpu`, and an entry below."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from rap_edge.runtime.errors import ExportError

from .attention_layout import attention_layout
from .channels_last_norm import channels_last_norm
from .channels_last_shuffle import channels_last_shuffle
from .channels_last_sum import channels_last_sum
from .conv1d_to_conv2d import conv1d_to_conv2d
from .conv3d_to_conv2d import conv3d_to_conv2d
from .fold_weights import fold_weights
from .gpu.attention_norm import attention_norm
from .gpu.rotary_halves import rotary_halves
from .gpu.value_bias import value_bias
from .merge_movement import merge_movement
from .modulated_norm import modulated_norm
from .pixel_rounding import pixel_rounding
from .reordered_bias import reordered_bias
from .rotary_embedding import rotary_embedding
from .sampled_rows import sampled_rows
from .token_rows import token_rows

Rewrite = Callable[[ir.Model], int]


@dataclass(frozen=True)
class GraphPass:
    """A pass and its place.

    Attributes:
        name: of its file, in `ExportSettings.passes` and in the manifest.
        rewrite: changes an fp32 model in place, whose shapes are inferred; returns how many nodes it replaced.
        after: passes that go before it where both are applied.
        reason: why they do.
        pays_on: the processors whose runtime gains from it, "cpu" or "gpu".
    """

    name: str
    rewrite: Rewrite
    after: tuple[str, ...] = ()
    reason: str = ""
    pays_on: str = "cpu"


# TensorRT has kernels and layouts of its own for what the CPU's replace.
_ORDER = (
    GraphPass("fold_weights", fold_weights),
    GraphPass("conv3d_to_conv2d", conv3d_to_conv2d, ("fold_weights",), "it takes a weight that is an initialiser"),
    GraphPass("conv1d_to_conv2d", conv1d_to_conv2d, ("fold_weights",), "it takes a weight that is an initialiser"),
    GraphPass("sampled_rows", sampled_rows),
    GraphPass("channels_last_shuffle", channels_last_shuffle),
    GraphPass(
        "channels_last_norm",
        channels_last_norm,
        ("channels_last_shuffle",),
        "a shuffle gives channels last, and the norm behind it takes them as they are",
    ),
    GraphPass(
        "channels_last_sum",
        channels_last_sum,
        ("channels_last_shuffle", "channels_last_norm", "sampled_rows"),
        "it adds where they have laid pictures channels last",
    ),
    GraphPass("rotary_embedding", rotary_embedding),
    GraphPass(
        "attention_layout",
        attention_layout,
        ("rotary_embedding",),
        "a rotation gives tokens, and attention takes them without a reshape",
    ),
    GraphPass("modulated_norm", modulated_norm),
    GraphPass(
        "token_rows",
        token_rows,
        ("attention_layout", "modulated_norm"),
        "it makes matrices of the tokens that they take and give",
    ),
    GraphPass(
        "merge_movement",
        merge_movement,
        ("conv3d_to_conv2d", "channels_last_shuffle", "token_rows"),
        "it merges the reshapes and transpositions that they leave, and scales the weights that they make",
    ),
    GraphPass(
        "pixel_rounding",
        pixel_rounding,
        ("merge_movement",),
        "only a rounding that has no movement before it lets the pixels be moved as bytes",
    ),
    GraphPass(
        "reordered_bias",
        reordered_bias,
        ("merge_movement", "pixel_rounding"),
        "scales go into the biases before, and what is moved as bytes needs none between",
    ),
    GraphPass("rotary_halves", rotary_halves, pays_on="gpu"),
    GraphPass(
        "attention_norm",
        attention_norm,
        ("rotary_halves",),
        "it takes apart the norms whose gains that one reorders",
        pays_on="gpu",
    ),
    GraphPass("value_bias", value_bias, pays_on="gpu"),
)
PASSES: Mapping[str, GraphPass] = MappingProxyType({item.name: item for item in _ORDER})


def choose_passes(names: Collection[str] | None, processor: str) -> tuple[GraphPass, ...]:
    """Passes in the order in which they are to be applied.

    Args:
        names: of `PASSES`; None takes those that pay on `processor`.
        processor: "cpu" or "gpu".

    Raises:
        ExportError: there is no such pass.
    """
    if names is None:
        return tuple(item for item in PASSES.values() if item.pays_on == processor)
    if unknown := [name for name in names if name not in PASSES]:
        raise ExportError(f"There is no pass {unknown[0]!r}; choose among {', '.join(PASSES)}.")
    return tuple(item for item in PASSES.values() if item.name in names)
