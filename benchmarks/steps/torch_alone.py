"""PyTorch's own loop, eager or compiled with CUDA graphs: what the toolkit has to beat.

python benchmarks/steps/torch_alone.py SPEC [--compile]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from gpu import sound_windows
from measured_loop import networks_of
from torch_loop import TorchLoop, compile_with_graphs

from rap_edge.export.parity.check_inputs import drawn_portrait, drawn_speech
from rap_edge.models.presets import PRESETS
from rap_edge.runtime.checks.bounds import Whole, argument


def main(argv: Sequence[str] | None = None) -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description="PyTorch's own chunk loop on a GPU, in fp16.")
    parser.add_argument("spec", choices=list(PRESETS))
    parser.add_argument("--compile", action="store_true", help="torch.compile with CUDA graphs")
    parser.add_argument("--rounds", type=argument(Whole(1, 10_000)), default=5)
    given = parser.parse_args(argv)
    networks = networks_of(given.spec)
    spec = networks.spec
    for network in (networks.dit, networks.vae, networks.audio_encoder):
        network.half()
    sounds = sound_windows(spec, drawn_speech(spec.sample_rate), 3)
    wrap = compile_with_graphs if given.compile else lambda module: module
    started = time.perf_counter()
    loop = TorchLoop(networks, drawn_portrait(spec.image_size), torch.device("cuda"), wrap=wrap)
    for sound in sounds[:2]:
        loop.render(sound)
    warm = time.perf_counter() - started
    wall, stages = [], []
    for _ in range(given.rounds):
        for sound in sounds:
            started = time.perf_counter()
            _, seconds = loop.render(sound)
            wall.append(time.perf_counter() - started)
            stages.append(seconds)
    middle = statistics.median(wall)
    told = ", ".join(f"{name} {1e3 * statistics.median(item[name] for item in stages):.2f}" for name in stages[0])
    print(
        f"- {'torch.compile, CUDA graphs' if given.compile else 'PyTorch eager'}, {spec.name}: {1e3 * middle:.2f} ms "
        f"per chunk, p95 {1e3 * float(np.percentile(wall, 95)):.2f}, RTF {middle / spec.chunk_seconds:.4f}; "
        f"GPU ms {told}; warm after {warm:.1f} s, at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    )


if __name__ == "__main__":
    main()
