"""Launches the fused attention at small odd sizes through the driver alone: PyTorch under a sanitizer takes minutes.

compute-sanitizer --tool racecheck python benchmarks/steps/sanitize.py LIBRARY
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Sequence

import numpy as np
from attention_params import Params, Tensor

from rap_edge.runtime.machine.cuda import Cuda

# Width of a head, queries and keys of a frame, frames, tokens of a full branch of its own, alpha.
CASES = ((128, 61, 37, 3, 0, 0.7), (128, 128, 32, 2, 101, 0.5), (64, 64, 8, 5, 0, 0.4), (128, 16, 8, 2, 0, 1.0))
HEADS = 2


def main(argv: Sequence[str] | None = None) -> None:
    """Print the status of every launch."""
    parser = argparse.ArgumentParser(description="Launch the fused attention under a sanitizer.")
    parser.add_argument("library")
    library = ctypes.CDLL(parser.parse_args(argv).library)
    library.rap_hybrid_attention.argtypes = [ctypes.POINTER(Params), ctypes.c_void_p]
    cuda = Cuda()
    stream = cuda.stream()
    random = np.random.default_rng(0)
    for head_dim, queries, keys, frames, full, alpha in CASES:
        width = HEADS * head_dim
        tokens = {"query": frames * queries, "key": frames * keys, "value": frames * keys, "output": frames * queries}
        if full:
            tokens |= {"full_key": full, "full_value": full}
        kept, tensors = [], {}
        for name, count in tokens.items():
            values = random.standard_normal((count, width)).astype(np.float16)
            memory = cuda.device_memory(values.nbytes)
            stream.upload(memory.address, values)
            stream.synchronize()
            kept.append(memory)
            tensors[name] = Tensor(memory.address, count * width, width)
        params = Params(
            **tensors,
            batch=1,
            heads=HEADS,
            head_dim=head_dim,
            frames=frames,
            query_tokens=queries,
            key_tokens=keys,
            full_tokens=full or frames * keys,
            dtype=0,
            alpha=alpha,
            scale=0.0,
        )
        status = library.rap_hybrid_attention(params, stream.handle)
        stream.synchronize()
        print(f"head of {head_dim}, {queries} queries, {keys} keys, full {full}: status {status}", flush=True)


if __name__ == "__main__":
    main()
