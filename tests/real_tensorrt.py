"""The real Python modules of TensorRT on a machine without a GPU.

The builder's library cannot be installed from wheels. Its Python side can, and what that side needs when it is imported
is six functions beside those of the lean runtime, so a library with these six stands in for the builder. The registry
of plugins, and every class and name, is TensorRT's own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_BUILDER = """
void *createInferBuilder_INTERNAL(void *logger, int version) { return 0; }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) { return 0; }
void *getBuilderPluginRegistry(int capability) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void *logger, const char *space) { return 1; }
"""
_MODULE = "import sys, tensorrt_bindings\nsys.modules[__name__] = tensorrt_bindings\n"


class RealTensorRt:
    """`import tensorrt` in processes of their own."""

    def __init__(self, folder: Path) -> None:
        """Build the stand-in in `folder`; skips the test where the wheels or a compiler are missing."""
        lean = importlib.util.find_spec("tensorrt_lean_libs")
        if lean is None or importlib.util.find_spec("tensorrt_bindings") is None:
            pytest.skip("TensorRT's Python side is missing: pip install tensorrt_lean_cu13 tensorrt_cu13_bindings")
        if shutil.which("gcc") is None:
            pytest.skip("the builder's stand-in is compiled by gcc, which is missing")
        libraries = Path(next(iter(lean.submodule_search_locations or ())))
        runtime = next(libraries.glob("libnvinfer_lean.so.*"))
        major = runtime.suffix
        (folder / "builder.c").write_text(_BUILDER)
        for name, linked in (("nvinfer", [str(runtime)]), ("nvonnxparser", []), ("nvinfer_plugin", [])):
            soname = f"lib{name}.so{major}"
            command = ["gcc", "-shared", "-fPIC", "-w", "-o", str(folder / soname), str(folder / "builder.c")]
            options = [f"-Wl,-soname,{soname}", "-Wl,--no-as-needed", *linked]
            subprocess.run([*command, *options], check=True, capture_output=True)
        (folder / "tensorrt").mkdir()
        (folder / "tensorrt" / "__init__.py").write_text(_MODULE)
        self._environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{folder}:{libraries}",
            "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }

    def run(self, script: str) -> str:
        """What a Python script prints."""
        done = subprocess.run(
            [sys.executable, "-c", script], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
