"""Where the reference of an export is computed: on a GPU that has room for it, which saves minutes, or on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from rap_edge.runtime.errors import ExportError

from ..capture.own_model import AnyNetworks

# Weights, and the activations of the largest network beside them.
_ROOM = 2.5


@contextmanager
def on_best_device(networks: AnyNetworks) -> Iterator[torch.device]:
    """Move the networks to where they run fastest, in full fp32, and back to the CPU afterwards.

    Raises:
        ExportError: the GPU has too little memory after all.
    """
    modules = networks.modules
    device = _best_device(modules)
    if device.type == "cpu":
        yield device
        return
    tf32 = torch.backends.cudnn.allow_tf32
    # TF32 keeps ten bits of a number, too few for a reference.
    torch.backends.cudnn.allow_tf32 = False
    try:
        for module in modules:
            module.to(device)
        yield device
    except torch.OutOfMemoryError as error:
        raise ExportError(
            "The GPU has no room for the reference of the export; free GPU memory, or set CUDA_VISIBLE_DEVICES to "
            "nothing for the CPU."
        ) from error
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        for module in modules:
            module.to("cpu")


def _best_device(modules: tuple[nn.Module, ...]) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    weights = sum(parameter.nbytes for module in modules for parameter in module.parameters())
    free, _ = torch.cuda.mem_get_info()
    return torch.device("cuda" if free >= _ROOM * weights else "cpu")
