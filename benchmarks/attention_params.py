"""The C structures of the fused attention's header, in ctypes alone."""

from __future__ import annotations

import ctypes


class Tensor(ctypes.Structure):
    """`rap_tensor`."""

    _fields_ = (("data", ctypes.c_void_p), ("batch_stride", ctypes.c_int64), ("token_stride", ctypes.c_int64))


class Params(ctypes.Structure):
    """`rap_hybrid_attention_params`."""

    _fields_ = (
        *((name, Tensor) for name in ("query", "key", "value", "full_key", "full_value", "output")),
        *(
            (name, ctypes.c_int32)
            for name in ("batch", "heads", "head_dim", "frames", "query_tokens", "key_tokens", "full_tokens", "dtype")
        ),
        ("alpha", ctypes.c_float),
        ("scale", ctypes.c_float),
    )
