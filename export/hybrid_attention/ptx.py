"""The fused hybrid attention as PTX for a plan: the sources of `plugins/`, compiled by NVRTC."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from types import MappingProxyType

from rap_edge.runtime.machine.nvrtc import compile_ptx

KERNEL = "rap_hybrid_attention"
HEAD_DIMS = (64, 128)
# Warps per block; each has 32 query rows.
WARPS = (4, 8)
ROWS_PER_WARP = 32
# Three tiles of 32 keys and values; no more than a launch has without asking.
SHARED_BYTES_PER_CHANNEL = 3 * 32 * 2 * 2
ELEMENTS = {"float16": "Half", "bfloat16": "Bfloat16"}
# The version of the PTX language that a target needs. NVRTC declares the newest, which drivers of an older CUDA refuse.
LANGUAGES = MappingProxyType(
    {
        "7.5": "6.5",
        "8.0": "7.0",
        "8.6": "7.1",
        "8.7": "7.4",
        "8.9": "7.8",
        "9.0": "7.8",
        "10.0": "8.6",
        "11.0": "9.0",
        "12.0": "8.7",
        "12.1": "8.8",
    }
)
SOURCES = (
    "attention_arguments.h",
    "hybrid_attention_entry.cuh",
    "hybrid_attention_kernel.cuh",
    "hybrid_softmax.cuh",
    "key_walk.cuh",
    "tile_ops.cuh",
    "warp_products.cuh",
)
_VERSION = re.compile(r"^\.version .*$", re.MULTILINE)
# NVRTC has no standard library.
_CSTDINT = """
#pragma once
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#define INFINITY __int_as_float(0x7f800000)
"""


def block_sizes(compute_capability: str) -> tuple[int, ...]:
    """Warps per block that a GPU can be offered; eight do not fit the registers of a Turing."""
    return WARPS[:1] if compute_capability == "7.5" else WARPS


@cache
def attention_ptx(dtype: str, head_dim: int, warps: int, compute_capability: str) -> str:
    """PTX with the one entry `KERNEL`, in the oldest language that has what it needs.

    Its arguments are query, key, value, full_key, full_value; the 32-bit words frames, heads, query_tokens, key_tokens
    (0 if alpha is 0), full_tokens (0 if alpha is 1) and the bits of alpha; output. Grid: frames * ceil(query_tokens /
    (32 * warps)), heads, batch. Block: 32 * warps, with `SHARED_BYTES_PER_CHANNEL * head_dim` bytes of dynamic shared
    memory. Tensors are contiguous [batch, tokens, heads * head_dim].

    Args:
        dtype: "float16" or "bfloat16".
        head_dim: 64 or 128.
        warps: per block, one of `block_sizes`.
        compute_capability: of the oldest GPU that shall run it, from "7.5" on; "8.0" for bfloat16.

    Raises:
        EngineError: NVRTC is not installed or does not know the GPU.
    """
    folder = resources.files("rap_edge.plugins").joinpath("src")
    headers = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in SOURCES}
    source = '#include "tile_ops.cuh"\n#include "hybrid_attention_entry.cuh"\n'
    macros = (f"-DRAP_ELEMENT={ELEMENTS[dtype]}", f"-DRAP_HEAD_DIM={head_dim}", f"-DRAP_WARPS={warps}")
    options = ("--device-as-default-execution-space", *macros)
    ptx = compile_ptx(source, f"{KERNEL}.cu", compute_capability, {**headers, "cstdint": _CSTDINT}, options)
    language = LANGUAGES.get(compute_capability)
    return ptx if language is None else _VERSION.sub(f".version {language}", ptx, count=1)
