"""Who may import whom: everything may import runtime; models only runtime's spec, bounds, fields and errors; export
models; calibration export, and of models nano's renderer and voices."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import ROOT

ABOVE = {"rap_edge.calibration"}
GPU_ONLY = {"tensorrt", "tensorrt_rtx", "tensorrt_lean", "pycuda", "cuda", "cupy", "polygraphy"}


def imports(file: Path) -> set[str]:
    """Every module that `file` imports anywhere, absolute."""
    package = ["rap_edge", *file.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        (
            "runtime",
            {"torch", "onnx", "onnxscript", "safetensors", "rap_edge.models", "rap_edge.export"} | ABOVE | GPU_ONLY,
        ),
        ("models", {"onnx", "onnxscript", "onnxruntime", "rap_edge.export"} | ABOVE | GPU_ONLY),
        ("export", ABOVE | GPU_ONLY),
        ("calibration", {"torch", "rap_edge.models.checkpoints.load", "rap_edge.models.networks"} | GPU_ONLY),
    ],
)
def test_a_package_imports_only_from_below(package: str, forbidden: set[str]) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for name in imports(file):
            assert not any(name == bad or name.startswith(bad + ".") for bad in forbidden), f"{file} imports {name}"


def test_models_import_nothing_of_runtime_but_the_spec_and_what_reads_files() -> None:
    allowed = tuple(f"rap_edge.runtime.{name}" for name in ("spec", "bounds", "fields", "regular_file", "errors"))
    for file in sorted((ROOT / "models").glob("*.py")):
        for name in imports(file):
            if name.startswith("rap_edge.runtime"):
                assert name.startswith(allowed) or name == "rap_edge.runtime", f"{file} imports {name}"


def test_help_needs_neither_torch_nor_codecs() -> None:
    blocked = ["torch", "onnx", "av", "safetensors", "onnxscript"]
    code = (
        "import sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        "from rap_edge.runtime.cli.run import main\n"
        "sys.exit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--bundle" in done.stdout
