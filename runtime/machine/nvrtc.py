"""CUDA C++ compiled by NVRTC, for kernels that are not shipped as machine code. Needs no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..errors import EngineError, first_line
from .cuda import INSTALL

# Of what is compiled: machine code for one kind of GPU, PTX for it and all later ones.
_ARCHITECTURES = {"CUBIN": "sm", "PTX": "compute"}


def compile_binary(source: str, name: str, compute_capability: str) -> bytes:
    """Machine code for the GPUs of one compute capability.

    Args:
        source: CUDA C++17.
        name: of the source, for messages.
        compute_capability: such as "8.9".

    Raises:
        EngineError: NVRTC is not installed, does not know the GPU, or refuses the source.
    """
    return _compile(source, name, {}, compute_capability, (), "CUBIN")


def compile_ptx(
    source: str, name: str, compute_capability: str, headers: Mapping[str, str], options: tuple[str, ...] = ()
) -> str:
    """PTX for the GPUs of a compute capability and of all later ones.

    Args:
        source: CUDA C++17.
        name: of the source, for messages.
        compute_capability: such as "8.0".
        headers: what the source may include, by name.
        options: more of the compiler, such as "-DNAME=1".

    Raises:
        EngineError: as `compile_binary`.
    """
    return _compile(source, name, headers, compute_capability, options, "PTX").rstrip(b"\0").decode()


def _compile(
    source: str,
    name: str,
    headers: Mapping[str, str],
    compute_capability: str,
    options: tuple[str, ...],
    kind: str,
) -> bytes:
    compiler = _nvrtc()
    texts, names = [text.encode() for text in headers.values()], [header.encode() for header in headers]
    try:
        program = _value(compiler.nvrtcCreateProgram(source.encode(), name.encode(), len(headers), texts, names))
    except RuntimeError as error:  # the bindings' own, when they find no library
        raise EngineError(f"NVRTC cannot be loaded ({first_line(error)}); run {INSTALL}.") from None
    try:
        target = f"--gpu-architecture={_ARCHITECTURES[kind]}_{compute_capability.replace('.', '')}"
        words = [item.encode() for item in (target, "--std=c++17", *options)]
        (status,) = compiler.nvrtcCompileProgram(program, len(words), words)
        if int(status) != 0:
            raise EngineError(
                f"NVRTC cannot compile {name!r} for compute capability {compute_capability} "
                f"({_log(compiler, program)}); upgrade nvidia-cuda-nvrtc."
            )
        result = bytearray(_value(getattr(compiler, f"nvrtcGet{kind}Size")(program)))
        _value(getattr(compiler, f"nvrtcGet{kind}")(program, result))
    finally:
        compiler.nvrtcDestroyProgram(program)
    return bytes(result)


def _nvrtc() -> Any:
    try:
        return import_module("cuda.bindings.nvrtc")
    except ImportError:
        raise EngineError(
            f"GPU engines need the packages 'cuda-bindings' and 'nvidia-cuda-nvrtc'; run {INSTALL}."
        ) from None


def _log(compiler: Any, program: Any) -> str:
    log = bytearray(_value(compiler.nvrtcGetProgramLogSize(program)))
    _value(compiler.nvrtcGetProgramLog(program, log))
    lines = bytes(log).rstrip(b"\0").decode(errors="replace").split("\n")
    return lines[0].strip().rstrip(".")[:200]


def _value(answer: tuple[Any, ...]) -> Any:
    status, *values = answer
    if int(status) != 0:
        raise EngineError(f"NVRTC failed ({getattr(status, 'name', status)}); reinstall nvidia-cuda-nvrtc.")
    return values[0] if values else None
