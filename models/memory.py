"""Memory formats of networks."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """The network itself, its 4-D weights with channels last, as CPUs convolve fastest."""
    # PyTorch's own annotations do not know this form of `to`.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
