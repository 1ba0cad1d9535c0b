"""The law of the house, for every file in every folder, imports in functions included: who may import whom."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers.places import ROOT, TESTS

PACKAGES = ("runtime", "models", "export", "calibration", "integrations", "fleet")
GPU_ONLY = {"tensorrt", "tensorrt_rtx", "tensorrt_lean", "pycuda", "cuda", "cupy"}
INTEGRATIONS, FLEET = {"rap_edge.integrations"}, {"rap_edge.fleet"}
BESIDE = INTEGRATIONS | FLEET
ABOVE = {"rap_edge.calibration", "rap_edge.plugins"} | BESIDE
FORBIDDEN = {
    "runtime": {"polygraphy", "torch", "onnx", "onnxscript", "safetensors", "rap_edge.models", "rap_edge.export"}
    | ABOVE
    | GPU_ONLY,
    "models": {"onnx", "onnxscript", "onnxruntime", "rap_edge.export"} | ABOVE | GPU_ONLY,
    "export": ABOVE | GPU_ONLY,
    "calibration": {"torch", "rap_edge.models.checkpoints", "rap_edge.models.networks"} | BESIDE | GPU_ONLY,
    "integrations": {"torch", "onnx", "rap_edge.models", "rap_edge.export"} | (ABOVE - INTEGRATIONS) | GPU_ONLY,
    "fleet": {"torch", "onnx", "rap_edge.models", "rap_edge.export"} | (ABOVE - FLEET) | GPU_ONLY,
}
# From below to above: a folder imports from folders that stand before it, and any folder from the files beside it.
ROOMS = {
    "runtime": "checks machine bundle inputs engines loop session reports outputs doctor cli serve",
    "runtime/inputs": "picture",
    "runtime/loop": "gpu",
    "runtime/serve": "http visits transports local",
    "models": "vaes causal checkpoints nano",
    "models/nano": "data measure training portraits",
    "export": "hybrid_attention passes capture precision parity plans sources bench commands",
    "export/plans": "truth",
    "calibration": "record observe quantize judge choose steps write",
    "fleet": "render serve commands",
}
# What networks and readers may know of the runtime, and what nano's programs may besides.
FOR_MODELS = ("rap_edge.runtime.spec.", "rap_edge.runtime.errors.", "rap_edge.runtime.checks.")
FOR_NANO = (
    *FOR_MODELS,
    "rap_edge.runtime.cli.exit_status.",
    "rap_edge.runtime.cli.extras.",
    "rap_edge.runtime.machine.available.",
    "rap_edge.runtime.outputs.wave_file.",
)
MOST_ENTRIES = 18


@cache
def imports(file: Path) -> frozenset[str]:
    """Every module that `file` imports anywhere, absolute; a name that is imported from a module counts as one too."""
    return _imported(file, list(ast.walk(ast.parse(file.read_text()))))


def imports_at_once(file: Path) -> frozenset[str]:
    """What `file` imports when it is imported itself, likewise."""
    return _imported(file, ast.parse(file.read_text()).body)


def _imported(file: Path, nodes: list[ast.AST] | list[ast.stmt]) -> frozenset[str]:
    package = ["rap_edge", *file.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def sources(folder: str) -> list[Path]:
    files = sorted(file for file in (ROOT / folder).rglob("*.py"))
    assert files
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_from_below(package: str) -> None:
    for file in sources(package):
        for name in imports(file):
            bad = {other for other in FORBIDDEN[package] if name == other or name.startswith(other + ".")}
            assert not bad, f"{file} imports {name}"


@pytest.mark.parametrize("floor", ROOMS)
def test_a_room_imports_only_from_rooms_below(floor: str) -> None:
    rooms = ROOMS[floor].split()
    assert {file.parent.name for file in (ROOT / floor).glob("*/__init__.py")} == set(rooms)
    for place, room in enumerate(rooms):
        above = tuple(f"rap_edge.{floor.replace('/', '.')}.{other}" for other in rooms[place + 1 :])
        for file in sources(f"{floor}/{room}"):
            for name in imports(file):
                assert not any(name == other or name.startswith(other + ".") for other in above), (
                    f"{file} imports {name} from a room above"
                )


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = [file for package in PACKAGES for file in sources(package) if file.name != "__init__.py"]
    names = {".".join(["rap_edge", *file.relative_to(ROOT).with_suffix("").parts]): file for file in files}
    graph = {name: {other for other in imports_at_once(file) if other in names} for name, file in names.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(names)


def test_models_know_of_the_runtime_the_spec_the_errors_and_the_checks() -> None:
    for file in sources("models"):
        allowed = FOR_NANO if "nano" in file.relative_to(ROOT).parts else FOR_MODELS
        for name in imports(file):
            if name.startswith("rap_edge.runtime."):
                assert f"{name}.".startswith(allowed), f"{file} imports {name}"


def test_calibration_takes_of_nano_what_draws_speaks_and_measures() -> None:
    for file in sources("calibration"):
        for name in imports(file):
            if name.startswith("rap_edge.models.nano."):
                assert name.split(".")[3] in ("data", "measure", "errors"), f"{file} imports {name}"


def test_no_folder_is_a_warehouse() -> None:
    for package in PACKAGES:
        for folder in {file.parent for file in sources(package)}:
            entries = [entry.name for entry in folder.iterdir() if entry.name != "__pycache__"]
            assert len(entries) <= MOST_ENTRIES, f"{folder} holds {len(entries)}"


def test_tests_lie_where_their_modules_lie() -> None:
    for file in TESTS.rglob("test_*.py"):
        folder = file.parent.relative_to(TESTS)
        assert folder.parts, f"{file} lies in no room"
        assert folder.parts[0] == "house" or (ROOT / folder).is_dir(), f"{file}: there is no {folder}"


def test_no_test_imports_another() -> None:
    for file in TESTS.rglob("*.py"):
        for name in imports(file):
            assert not any(part.startswith("test_") for part in name.split(".")[:-1]), f"{file} imports {name}"


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
