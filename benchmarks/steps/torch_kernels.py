"""The chunk on the device over PyTorch's kernels: everything of the GPU's loop on a GPU that has PyTorch alone.

    python benchmarks/steps/torch_kernels.py rap-small|flashhead-lite|rap-1.3b [--chunks 3] [--rounds 5] [--quick]

Kernels, noise, carry, colour matching, events inside a graph, capture and replay, page-locked frames and hand-over by
DLPack are ours; the networks are PyTorch's eager kernels in half precision, captured with the rest.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from measured_loop import HEAD, SEED, Model, networks_of, render, worst

from rap_edge.models.presets import PRESETS
from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.errors import RapEdgeError
from rap_edge.runtime.loop.gpu.loop import DeviceChunkLoop
from rap_edge.runtime.loop.gpu.shared import Device
from rap_edge.runtime.machine.cuda import Cuda


def main(argv: Sequence[str] | None = None) -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description="The GPU's chunk loop over PyTorch's kernels.")
    parser.add_argument("spec", choices=list(PRESETS))
    parser.add_argument("--chunks", type=argument(Whole(1, 10_000)), default=3)
    parser.add_argument("--rounds", type=argument(Whole(1, 10_000)), default=5)
    parser.add_argument("--quick", action="store_true", help="leave out what other sizes have shown")
    given = parser.parse_args(argv)
    model = Model.of(networks_of(given.spec), given.chunks, torch.device("cuda"), torch.float16)
    cuda = Cuda()
    measure(model, Device.open(cuda, cuda.stream(), model.engines), given.rounds, quick=given.quick)


def measure(model: Model, device: Device, rounds: int, *, quick: bool) -> None:
    """Print the table of both ways, and, unless `quick`, what else a loop can do."""
    spec = model.spec
    print(
        f"{spec.name}: {spec.carry} carry, {spec.solver}, {spec.steps} steps, batch {spec.batch}, colour match "
        f"{spec.color_match}; the host's last frames deviate by {np.std(model.expected[-1]):.1f} codes\n\n{HEAD}",
        flush=True,
    )

    def loop(*, capture: bool = True) -> DeviceChunkLoop:
        return DeviceChunkLoop(device, model.engines, spec, model.reference, SEED, capture=capture)

    print(model.row("PyTorch's kernels, one CUDA graph", loop, rounds), flush=True)
    print(model.row("PyTorch's kernels, no graph", lambda: loop(capture=False), rounds), flush=True)
    if quick:
        return
    print(flush=True)
    first = loop()
    frames = render(first, model.sounds[:1], spec.steps)[0]
    assert first.on_device is not None  # it has rendered
    taken = torch.from_dlpack(first.on_device)
    print(f"- frames by DLPack in PyTorch are the host's: {np.array_equal(taken.cpu().numpy(), frames)}", flush=True)
    for steps in (max(1, spec.steps // 2), 1, spec.steps):
        took = [_seconds(first, steps) for _ in range(2)]
        print(f"- {steps} steps: first {1e3 * took[0]:.1f} ms, which captures; then {1e3 * took[1]:.1f} ms", flush=True)
    _beside_another(model, first, loop)


def _seconds(loop: DeviceChunkLoop, steps: int) -> float:
    started = time.perf_counter()
    loop.render(steps)
    return time.perf_counter() - started


def _beside_another(model: Model, busy: DeviceChunkLoop, loop: Callable[[], DeviceChunkLoop]) -> None:
    """A second session is opened while the first one renders."""
    late: list[float] = []
    failed: list[str] = []
    stop = threading.Event()

    def go_on() -> None:
        try:
            while not stop.is_set():
                late.append(_seconds(busy, model.spec.steps))
        except RapEdgeError as error:
            failed.append(str(error))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        second = loop()
        apart = worst(model.expected[:1], render(second, model.sounds[:1], model.spec.steps))
    finally:
        stop.set()
        thread.join()
    print(
        f"- a session opened while another renders: {apart}; notes {second.notes}, failures {failed}, the other's "
        f"slowest chunk {1e3 * max(late, default=0.0):.1f} ms",
        flush=True,
    )


if __name__ == "__main__":
    main()
