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
from helpers.places import TESTS

_BUILDER = """
void *createInferBuilder_INTERNAL(void *logger, int version) { return 0; }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) { return 0; }
void *getBuilderPluginRegistry(int capability) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void *logger, const char *space) { return 1; }
"""
_MODULE = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"


class RealTensorRt:
    """`import tensorrt` in processes of their own."""

    def __init__(self, folder: Path) -> None:
        """Build the stand-in in `folder`; skips the test where the wheels or a compiler are missing."""
        lean, bindings = map(importlib.util.find_spec, ("tensorrt_lean_libs", "tensorrt_bindings"))
        if lean is None or bindings is None:
            pytest.skip("TensorRT's Python side is missing: pip install tensorrt_lean_cu13 tensorrt_cu13_bindings")
        if shutil.which("gcc") is None:
            pytest.skip("the builder's stand-in is compiled by gcc, which is missing")
        libraries = Path(lean.submodule_search_locations[0])
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
        # The package on top of the bindings has a copy of their plugin package.
        (folder / "tensorrt" / "plugin").symlink_to(Path(bindings.submodule_search_locations[0]) / "plugin")
        self._environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{folder}:{libraries}",
            "PYTHONPATH": os.pathsep.join([str(folder), str(TESTS), os.environ.get("PYTHONPATH", "")]),
        }

    def run(self, code: str) -> str:
        """What Python code prints."""
        return self._python("-c", code)

    def script(self, name: str, *arguments: str) -> str:
        """What a script of this folder prints."""
        return self._python(str(Path(__file__).with_name(name)), *arguments)

    def _python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        # TensorRT's module writes its warnings between.
        return "".join(line for line in done.stdout.splitlines(keepends=True) if "[TRT]" not in line)
