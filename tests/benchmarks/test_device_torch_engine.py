"""The benchmarks' loop over PyTorch's kernels, with the stand-in for a GPU: what it measures is real, where it runs
is not."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from helpers.bundles.small import LTX, SMALL_CLEAN, small_networks
from helpers.gpu.emulated_kernels import kernels
from helpers.gpu.fake_gpu import FakeCudaDriver
from measured_loop import HEAD, Model
from steps import torch_kernels

from rap_edge.runtime.loop.device_frames import CPU, DeviceFrames
from rap_edge.runtime.loop.gpu import loop
from rap_edge.runtime.loop.gpu.kernels import Kernels
from rap_edge.runtime.loop.gpu.shared import Device
from rap_edge.runtime.machine.cuda import Cuda

__all__ = ["kernels"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the kernels are compiled by g++, which is missing")


def test_the_gpus_loop_over_pytorchs_kernels_gives_the_frames_of_the_hosts(kernels, capsys, monkeypatch) -> None:
    # The fake GPU's memory is the CPU's.
    monkeypatch.setattr(loop, "DeviceFrames", partial(DeviceFrames, device=(CPU, 0)))
    model = Model.of(small_networks(SMALL_CLEAN, LTX), 2, torch.device("cpu"), torch.float32)
    cuda = Cuda(FakeCudaDriver(kernels))
    device = Device(cuda, cuda.stream(), Kernels(cuda, b"code"), cuda.device_memory(1))
    torch_kernels.measure(model, device, rounds=1, quick=False)
    told = capsys.readouterr().out
    assert HEAD in told
    rows = [line for line in told.splitlines() if line.startswith("| PyTorch's kernels")]
    assert len(rows) == 2
    for row in rows:
        psnr = float(row.split("|")[5].split(" dB")[0])
        assert psnr > 45, row
    assert "frames by DLPack in PyTorch are the host's: True" in told
    assert "failures []" in told
