"""What machine this is: card, driver, clocks as found, versions, tools, and the ceilings of what is measured later."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib import metadata

import torch
from hybrid_attention import copy_bytes_per_us, operations_per_us
from provenance import commit

PACKAGES = (
    *("torch", "triton", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "tensorrt_rtx_cu13"),
    *("cuda-bindings", "cuda-core", "nvidia-cuda-nvrtc", "nvidia-cudnn-cu13", "numpy", "av", "pytest"),
)
TOOLS = ("nvcc", "g++", "cmake", "git", "ncu", "compute-sanitizer", "cuobjdump")
ASKED = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,pstate"


def main() -> None:
    """Print Markdown."""
    print(f"- commit {commit()}, kernel {platform.release()}, Python {sys.version.split()[0]}")
    print(f"- GPU ({ASKED}): {_said(['nvidia-smi', f'--query-gpu={ASKED}', '--format=csv,noheader'])}")
    print(f"- packages: {', '.join(f'{name} {_version(name)}' for name in PACKAGES)}")
    print(f"- tools: {', '.join(f'{tool} {shutil.which(tool)}' for tool in TOOLS)}")
    if not torch.cuda.is_available():
        print("- PyTorch finds no CUDA GPU here, so that there are no ceilings")
        return
    about = torch.cuda.get_device_properties(0)
    print(
        f"- {about.multi_processor_count} multiprocessors, L2 cache {about.L2_cache_size >> 20} MiB, "
        f"{about.total_memory / 2**30:.0f} GiB"
    )
    print(f"- copies at {copy_bytes_per_us() / 1e6:.2f} TB/s, read and written")
    for dtype in (torch.float16, torch.bfloat16):
        print(f"- matrix product of 8192, {dtype}: {operations_per_us(dtype) / 1e6:.0f} TFLOP/s")


def _said(words: list[str]) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


if __name__ == "__main__":
    main()
