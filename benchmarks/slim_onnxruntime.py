"""Make ONNX Runtime's CUDA provider small enough to carry: one GPU's code, without kernels that no graph of ours needs.

    python benchmarks/slim_onnxruntime.py PROVIDER_LIBRARY CUBIN_FOLDER -o OUT

CUBIN_FOLDER holds what `cuobjdump -xelf sm_90a PROVIDER_LIBRARY` wrote, in the library's order: the names of the
kernels are read from there, as the library has them compressed. What is blanked is loaded by nobody, since CUDA loads a
module when its first kernel is asked for.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from slim_fatbin import MACHINE_CODE, entries

# Mixtures of experts, 4-bit and block-scaled products, paged and sparse attention of language models.
_UNUSED = re.compile(
    r"moe|Moe|MoE|fpA_intB|FpAIntB|GemmUniversal|deep_gemm|block_scaled|kernel_mha|MatMulFloat4|gated_delta|BeamSearch"
)
_FLASH = re.compile(r"lash_fwd_kernel_traitsILi(\d+)E.*?(bfloat16_t|half_t)")
_FLASH_KEPT = {("32", "half_t"), ("64", "half_t"), ("128", "half_t")}


def is_needed(names: str) -> bool:
    """Whether a module whose kernels have these names may be asked for."""
    if found := _FLASH.search(names):
        return found.groups() in _FLASH_KEPT
    return "flash" in names or not _UNUSED.search(names)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 where library and folder do not belong together."""
    parser = argparse.ArgumentParser(description="Blank what is not needed of ONNX Runtime's CUDA provider.")
    parser.add_argument("library", type=Path)
    parser.add_argument("cubins", type=Path)
    parser.add_argument("--keep", type=int, default=90, help="compute capability without the dot (default 90)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(argv)
    data = bytearray(given.library.read_bytes())
    cubins = sorted(given.cubins.glob("*.cubin"), key=lambda path: int(path.name.split(".")[1]))
    found = list(entries(data))
    mine = [entry for entry in found if (entry.kind, entry.capability) == (MACHINE_CODE, given.keep)]
    if len(mine) != len(cubins):
        print(f"{len(mine)} modules in the library and {len(cubins)} in the folder; dump it again.", file=sys.stderr)
        return 1
    kept = {entry.offset for entry, cubin in zip(mine, cubins, strict=True) if is_needed(_kernels(cubin))}
    for entry in found:
        if entry.offset not in kept:
            data[entry.offset : entry.offset + entry.size] = bytes(entry.size)
    size = sum(entry.size for entry in found if entry.offset in kept)
    print(f"kept {len(kept)} of {len(mine)} modules for sm_{given.keep}, {size / 2**20:.1f} MiB")
    given.output.write_bytes(data)
    return 0


def _kernels(cubin: Path) -> str:
    listed = subprocess.run(["readelf", "-s", "-W", str(cubin)], capture_output=True, text=True, check=True).stdout
    return " ".join(line.split()[-1] for line in listed.splitlines() if " FUNC " in line)


if __name__ == "__main__":
    sys.exit(main())
