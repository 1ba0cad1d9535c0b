"""Calls of the fused attention: sizes, random inputs that nothing beside them may touch, and the exact result."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from attention_params import Params, Tensor

from rap_edge.models.attention import hybrid_attention

DTYPES = {torch.float16: 0, torch.bfloat16: 1}


class Counts(ctypes.Structure):
    """What an emulated run did."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("multiplies", "loads", "conflicts"))


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes of one call."""

    batch: int = 1
    heads: int = 1
    head_dim: int = 64
    frames: int = 3
    query_tokens: int = 16
    key_tokens: int = 8
    full_tokens: int = 0  # 0: the branches share keys and values
    dtype: torch.dtype = torch.float16
    alpha: float = 0.5
    gain: float = 1.0  # of the queries; large gains make sharp softmaxes
    seed: int = 0


def guarded(
    batch: int, tokens: int, width: int, dtype: torch.dtype, padding: int, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """A NaN-filled buffer and a view [batch, tokens, width] inside it, with strides longer than the view's sizes."""
    whole = torch.full((batch + 2, tokens + 2, width + padding), float("nan"), dtype=dtype, device=device)
    return whole, whole[1 : batch + 1, 1 : tokens + 1, :width]


class Inputs:
    """Random inputs of a case in guarded buffers, and an output buffer full of NaN."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self.case = case
        generator = torch.Generator().manual_seed(case.seed)
        width = case.heads * case.head_dim
        self.buffers: dict[str, torch.Tensor] = {}
        self.views: dict[str, torch.Tensor] = {}
        tokens = {name: case.frames * case.key_tokens for name in ("key", "value")}
        tokens["query"] = tokens["output"] = case.frames * case.query_tokens
        if case.full_tokens:
            tokens["full_key"] = tokens["full_value"] = case.full_tokens
        for number, (name, count) in enumerate(tokens.items()):
            self.buffers[name], self.views[name] = guarded(
                case.batch, count, width, case.dtype, 8 * (number % 3), device
            )
            if name != "output":
                gain = case.gain if name == "query" else 1.0
                self.views[name].copy_(gain * torch.randn(case.batch, count, width, generator=generator))

    def params(self) -> Params:
        """The call's parameters; valid while this object lives."""
        case = self.case
        tensors = {name: Tensor(view.data_ptr(), view.stride(0), view.stride(1)) for name, view in self.views.items()}
        return Params(
            **tensors,
            batch=case.batch,
            heads=case.heads,
            head_dim=case.head_dim,
            frames=case.frames,
            query_tokens=case.query_tokens,
            key_tokens=case.key_tokens,
            full_tokens=case.full_tokens or case.frames * case.key_tokens,
            dtype=DTYPES[case.dtype],
            alpha=case.alpha,
            scale=0.0,
        )

    def reference(self) -> torch.Tensor:
        """The exact result of the rounded inputs: PyTorch's two attentions in float64."""
        case, views = self.case, {name: view.double() for name, view in self.views.items()}
        window = (views["key"], views["value"])
        full = (views["full_key"], views["full_value"]) if case.full_tokens else window
        alpha = float(torch.tensor(case.alpha, dtype=torch.float32))
        return hybrid_attention(views["query"], *window, *full, alpha, case.heads, case.frames)

    def error(self) -> float:
        """Largest error of the output in units of the dtype's rounding of the largest value; inf if not finite."""
        output, expected = self.views["output"].double(), self.reference()
        if not torch.isfinite(output).all():
            return float("inf")
        unit = torch.finfo(self.case.dtype).eps * float(self.views["value"].double().abs().max())
        return float((output - expected).abs().max()) / unit

    def guard_is_whole(self) -> bool:
        """Whether nothing beside the output was written."""
        outside = torch.ones_like(self.buffers["output"], dtype=torch.bool)
        case = self.case
        tokens, width = case.frames * case.query_tokens, case.heads * case.head_dim
        outside[1 : case.batch + 1, 1 : tokens + 1, :width] = False
        return bool(torch.isnan(self.buffers["output"][outside]).all())
