"""What a run of a module would take, found without computing anything: for graphs whose own shapes do not tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

# Measured on wav2vec2-base, ONNX Runtime holds 1.5 times as much: a normalisation is several operators there.
_KERNELS = 2


def _attention_flops(query: Sequence[int], key: Sequence[int], *_: Any, **__: Any) -> int:
    return 4 * math.prod(query) * key[-2]


# PyTorch counts those of its GPU kernels alone.
_ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def unrun_flops(module: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Floating point operations, counted as `count_flops` does; arguments as for `unrun_bytes`."""
    with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
        _run(module, shapes)
    return int(counter.get_total_flops())


def unrun_bytes(module: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Bytes of tensors, weights apart, that no run of the module's graph in ONNX Runtime exceeds.

    Twice the most that are held at the same time in PyTorch, attention's scores among them.

    Args:
        module: in float32.
        shapes: of its inputs, which are float32.

    Raises:
        RuntimeError: the module does not take such inputs.
    """
    with _Held() as held:
        _run(module, shapes)
    return _KERNELS * int(held.most)


def _run(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        module(*(torch.empty(shape) for shape in shapes))


class _Held(TorchDispatchMode):
    """Adds up the tensors that are held behind every operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._known[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._known = {key: known for key, known in self._known.items() if not known[0].expired()}
        held = sum(nbytes for _, nbytes in self._known.values())
        self.most = max(self.most, held + _scores(function, args))
        return result


def _scores(function: Callable[..., Any], args: Any) -> int:
    """Bytes of an attention's scores, which PyTorch need not hold and other libraries do."""
    if "scaled_dot_product" not in str(function):
        return 0
    query, key = args[:2]
    return int(4 * math.prod(query.shape[:-1]) * key.shape[-2])
