#!/usr/bin/env bash
# Lays out in .gpu what a lent GPU machine without a network (Python 3.12, PyTorch, CUDA 13, sm_90) needs besides this
# repository, in two transfers of at most LIMIT MiB, this repository's files included:
#
#   make gpu-prepare                       # about six minutes, cached in build/gpu-prepare
#   .gpu/a .gpu/p1                         # carried by the first: python benchmarks/on_a_gpu.py --phase 1 ...
#   .gpu/a .gpu/p2                         # carried by the second: ... --phase 2 ...
#   git reset -q                           # afterwards: weights and pictures return to git's index; commit nothing before
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
limit=$((${LIMIT:-62} << 20))
work=$PWD/build/gpu-prepare
onnxruntime=1.31.1 rtx=1.7.1.116
nvcc=${NVCC:-$(ls -d "$PWD"/.venv/lib/python*/site-packages/nvidia/cu13/bin/nvcc 2>/dev/null || command -v nvcc)}
mkdir -p "$work/wheels"

fetch() {
  local platform tags=()
  for platform in manylinux_2_{39,28,27,24,17}_x86_64 manylinux2014_x86_64; do tags+=(--platform "$platform"); done
  "$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --no-deps --python-version 3.12 \
    --implementation cp "${tags[@]}" --dest "$work/wheels" "$@"
}

unpack() { # FOLDER WHEEL...
  local wheel
  mkdir -p "$work/$1"
  for wheel in "${@:2}"; do "$python" -m zipfile --extract "$wheel" "$work/$1"; done
}

pack() { # FOLDER ARCHIVE
  tar -c -C "$work/$1" . | nice xz -T2 -6 >"$work/$2.part" && mv "$work/$2.part" "$work/$2.tar.xz"
}

# ONNX Runtime: what Python needs, and its CUDA provider with the code of sm_90, without kernels of language models.
if [ ! -e "$work/onnxruntime.tar.xz" ]; then
  fetch "onnxruntime-gpu==$onnxruntime" nvidia-cuda-cuobjdump
  rm -rf "$work"/{all,tools,cubins,onnxruntime}
  unpack tools "$work"/wheels/nvidia_cuda_cuobjdump-*.whl
  unpack all "$work"/wheels/onnxruntime_gpu-*.whl
  mkdir -p "$work"/cubins "$work"/onnxruntime/onnxruntime
  provider=onnxruntime/capi/libonnxruntime_providers_cuda.so
  chmod +x "$work/tools/nvidia/cu13/bin/cuobjdump"
  (cd "$work/cubins" && ../tools/nvidia/cu13/bin/cuobjdump -xelf sm_90a "../all/$provider" >/dev/null)
  cp -r "$work"/all/onnxruntime/{__init__.py,backend,capi} "$work/onnxruntime/onnxruntime/"
  cp -r "$work"/all/onnxruntime_gpu-*.dist-info "$work/onnxruntime/"
  rm -f "$work"/onnxruntime/onnxruntime/capi/libonnxruntime{.so*,_providers_tensorrt.so}
  "$python" benchmarks/slim_onnxruntime.py "$work/all/$provider" "$work/cubins" -o "$work/onnxruntime/$provider"
  pack onnxruntime onnxruntime
fi

# TensorRT-RTX: bindings, builder and runtime, and the module's name, which is a source package of one line.
if [ ! -e "$work/tensorrt_rtx.tar.xz" ]; then
  fetch "tensorrt_rtx_cu13_libs==$rtx"
  fetch "tensorrt_rtx_cu13_bindings==$rtx"
  rm -rf "$work/tensorrt_rtx"
  unpack tensorrt_rtx "$work"/wheels/tensorrt_rtx_cu13_{libs,bindings}-*.whl
  mkdir -p "$work/tensorrt_rtx/tensorrt_rtx"
  printf 'from tensorrt_rtx_bindings import *\nfrom tensorrt_rtx_bindings import __version__\n' \
    >"$work/tensorrt_rtx/tensorrt_rtx/__init__.py"
  pack tensorrt_rtx tensorrt_rtx
fi

rm -rf .gpu && mkdir -p .gpu/a .gpu/p1 .gpu/p2
git describe --always --dirty --abbrev=7 --exclude='*' >.gpu/a/commit

# The fused attention as it ships, with blocks of four warps alone, and with products of warps instead of warpgroups, to
# be timed side by side.
build() { # NAME [SED_EXPRESSION]
  local plan=$work/$1.launch_plan.cpp
  sed "${2:-}" plugins/src/launch_plan.cpp >"$plan"
  [ $# -eq 1 ] || ! cmp -s "$plan" plugins/src/launch_plan.cpp
  "$nvcc" -arch=sm_90a -O3 -std=c++17 -Xcompiler -fPIC -shared -Iplugins/include -Iplugins/src -o ".gpu/a/$1.so" \
    plugins/src/hybrid_attention.cu "$plan"
  strip ".gpu/a/$1.so"
}
build fused
build four_warps 's/return full && busy.*/return (void)full, (void)busy, 4;/'
build warp_products 's/kWarpgroupCapability = 90;/kWarpgroupCapability = 0;/'

# Out of the index for the while: what the steps do without.
exclude=$(git rev-parse --git-path info/exclude)
mkdir -p "$(dirname "$exclude")"
for path in /.gpu/ '/models/nano/weights/**/*.safetensors' /tests/data/ '/docs/**/*.png'; do
  grep -qxF "$path" "$exclude" 2>/dev/null || echo "$path" >>"$exclude"
done
git rm -r -q --cached --ignore-unmatch 'models/nano/weights/*.safetensors' tests/data 'docs/*.png'
tree=$(git ls-files -z -co --exclude-standard | xargs -0 stat -c %s | awk '{s += $1} END {print s}')

# Pieces go into the first transfer as far as they fit, then into the second; .gpu/a goes with both.
small=$(du -sb .gpu/a | cut -f1)
room=$((limit - tree - small))
for archive in onnxruntime tensorrt_rtx; do
  rm -f "$work/$archive".part.*
  split -b 8M -d -a 2 "$work/$archive.tar.xz" "$work/$archive.part."
  (cd "$work" && sha256sum "$archive".part.*) >".gpu/a/$archive.sha256"
  for piece in "$work/$archive".part.*; do
    size=$(stat -c %s "$piece")
    if ((room >= size)); then room=$((room - size)) && mv "$piece" .gpu/p1/; else mv "$piece" .gpu/p2/; fi
  done
done
first=$((tree + small + $(du -sb .gpu/p1 | cut -f1))) second=$((tree + small + $(du -sb .gpu/p2 | cut -f1)))
echo "repository $((tree >> 20)) MiB, first transfer $((first >> 20)) MiB, second $((second >> 20)) MiB"
((second <= limit)) || { echo "the second transfer is too large: leave more out of the index" >&2; exit 1; }
