"""The bare wheel, in an environment that holds its declared dependencies and nothing else."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

import pytest
import setuptools
from helpers.bundles.half_bundle import copied
from helpers.bundles.planned import write_planned_bundle
from helpers.places import ROOT
from packaging.requirements import Requirement

from rap_edge.export.hybrid_attention.ptx import SOURCES
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import GRAPH_NAMES


def run(*command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def requirements(lines: list[str], extra: str = "") -> set[str]:
    """Names of the requirements among Requires-Dist lines that hold here, with those of an extra and its extras."""
    stated = map(Requirement, lines)
    wanted = [line for line in stated if line.marker is None or line.marker.evaluate({"extra": extra})]
    inner = [name for line in wanted if line.name == "rap-edge" for name in line.extras]
    return ({line.name for line in wanted} - {"rap-edge"}).union(*(requirements(lines, name) for name in inner))


def stated_requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = run("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(ROOT / name)
    # As an earlier build leaves a module that has been removed since.
    left = source / "build" / "lib" / "rap_edge" / "runtime" / "removed.py"
    left.parent.mkdir(parents=True)
    left.touch()
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (built,) = folder.glob("*.whl")
    return built


def environment(wheel: Path, folder: Path, extra: str, *more: str) -> Path:
    """An interpreter with the wheel and, copied from this environment, what the wheel says it needs, and `more`."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    interpreter = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "-q", "--python", interpreter, "install", "--no-deps", "--no-index", wheel)
    (site,) = (folder / "lib").glob("python*/site-packages")
    link(site, requirements(stated_requirements(wheel), extra) | set(more))
    return interpreter


def link(site: Path, packages: set[str]) -> None:
    """Link into `site`, from this environment, packages and what they need."""
    pending, done = set(packages), set()
    while pending:
        name = pending.pop()
        done.add(name)
        found = distribution(name)
        for top in {file.parts[0] for file in found.files if file.parts[0] != ".."}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(found.locate_file(top)).resolve())
        pending |= requirements(found.requires or []) - done


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(wheel, tmp_path_factory.mktemp("empty"), "")


def test_the_wheel_carries_its_license_and_names_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert "\nLicense-Expression: Apache-2.0\n" in archive.read(metadata).decode()
        assert archive.read(str(Path(metadata).parent / "licenses" / "LICENSE")) == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_needs_three_packages(wheel: Path) -> None:
    assert requirements(stated_requirements(wheel)) == {"numpy", "onnxruntime", "av"}


def test_the_wheel_needs_no_torch_and_says_so(python: Path) -> None:
    code = "import importlib.util as u, rap_edge.runtime; print([n for n in ('torch', 'onnx') if u.find_spec(n)])"
    assert run(python, "-c", code).strip() == "[]"


def modules(wheel: Path) -> list[str]:
    """What can be imported from it, in order."""
    with zipfile.ZipFile(wheel) as archive:
        files = sorted(Path(name) for name in archive.namelist() if name.endswith(".py"))
    return [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]


def test_the_wheel_holds_every_module_of_every_package(wheel: Path) -> None:
    homes = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    wanted = {
        ".".join([package, *file.relative_to(ROOT / home).with_suffix("").parts]).removesuffix(".__init__")
        for package, home in homes.items()
        for file in (ROOT / home).rglob("*.py")
    }
    assert set(modules(wheel)) == wanted


IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""


@pytest.mark.parametrize(
    ("extra", "packages", "but"),
    [
        ("", "rap_edge.runtime", "rap_edge.runtime.serve"),
        ("serve", "rap_edge.runtime.serve", None),
        ("export", "rap_edge.export rap_edge.models", "rap_edge.models.nano"),
        ("calibrate", "rap_edge.calibration", None),
        ("train", "rap_edge.models.nano", None),
    ],
)
def test_every_module_is_imported_with_the_packages_of_its_extra_alone(
    wheel: Path, python: Path, tmp_path: Path, extra: str, packages: str, but: str | None
) -> None:
    link(tmp_path, requirements(stated_requirements(wheel), extra))
    wanted = [
        name
        for name in modules(wheel)
        if any(f"{name}.".startswith(f"{package}.") for package in packages.split())
        and not (but and f"{name}.".startswith(f"{but}."))
    ]
    assert len(wanted) > 10
    assert run(python, "-c", IMPORT, *wanted, env={**os.environ, "PYTHONPATH": str(tmp_path)}) == ""


def test_rap_run_makes_a_talking_video_there(python: Path, nano_bundle: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    out = tmp_path / "out.mp4"
    audio = nano_bundle / "golden" / "speech.wav"
    run(python.parent / "rap-run", "--bundle", nano_bundle, "--audio", audio, "-o", out, "--report", report)
    figures = json.loads(report.read_text())
    assert out.stat().st_size > 10_000
    assert figures["frames"] == -(-round(figures["audio_seconds"] * 16000) // 640)
    assert figures["rtf"] > 0


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("rap-export", "onnx_ir", "export"),
        ("rap-export --bundle BUNDLE --engine tensorrt-rtx", "onnx", "plans"),
        ("rap-export compare BUNDLE", "polygraphy", "debug"),
        ("rap-calibrate --bundle BUNDLE", "onnx_ir", "calibrate"),
        ("rap-bench --bundle BUNDLE", "onnx", "export"),
        ("rap-serve --bundle BUNDLE", "aiortc", "serve"),
        ("rap-fleet render --bundle BUNDLE --jobs clips.jsonl --out out", "ray", "fleet"),
        ("rap-run --bundle BUNDLE --mic -o out.mp4", "sounddevice", "mic"),
    ],
)
def test_a_program_whose_packages_are_missing_there_says_which_extra_brings_them(
    python: Path, nano_bundle: Path, command: str, package: str, extra: str
) -> None:
    program, *rest = command.replace("BUNDLE", str(nano_bundle)).split()
    done = subprocess.run([str(python.parent / program), *rest], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert re.search(rf"\b{package}\b.*pip install 'rap-edge\[{extra}\]'", sentence), sentence


def test_a_kiosk_that_lacks_everything_is_told_so_at_once(python: Path, tmp_path: Path) -> None:
    bundle = write_planned_bundle(tmp_path / "bundle")
    command = [str(python.parent / "rap-run"), "--engine", "dit.plan", "--mic"]
    bare = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(command, cwd=bundle, env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    found = re.findall(r"NVIDIA GPU|module 'tensorrt_rtx'|package sounddevice|PySDL2|display for a window", done.stderr)
    order = ["module 'tensorrt_rtx'", "package sounddevice", "PySDL2"]
    assert [thing for thing in found if thing in order] == order
    if not Path("/dev/dri").exists():
        assert found[-1] == "display for a window"


@pytest.mark.parametrize("program", ["assets", "data.banks", "data.pairs", "data.renderer", "train"])
def test_a_module_that_is_run_says_which_extra_it_needs(python: Path, program: str) -> None:
    command = [str(python), "-m", f"rap_edge.models.nano.{program}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"The package '\w+' is not installed; run pip install 'rap-edge\[train\]'\.\n", done.stderr)


@pytest.mark.parametrize("program", ["rap-bench", "rap-calibrate", "rap-doctor", "rap-export", "rap-run", "rap-serve"])
def test_every_program_helps_there(python: Path, program: str) -> None:
    assert run(python.parent / program, "--help").startswith(f"usage: {program} ")


def test_plans_are_built_there_without_torch(wheel: Path, half: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the TensorRT-RTX wheel is not installed")
    builder = environment(wheel, tmp_path / "builder", "plans", "tensorrt_rtx_cu13")
    found = "import importlib.util as u; print([n for n in ('torch', 'onnxscript', 'safetensors') if u.find_spec(n)])"
    assert run(builder, "-c", found).strip() == "[]"
    folder = copied(half, tmp_path / "nano-fp16")
    run(builder.parent / "rap-export", "--bundle", folder, "--engine", "tensorrt-rtx", "--target", "89")
    assert Bundle.open(folder).manifest.engines.keys() == set(GRAPH_NAMES)


def test_the_wheel_carries_every_kernel_that_is_compiled_where_it_runs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "rap_edge/runtime/loop/gpu/kernels.cu" in names
    assert {f"rap_edge/plugins/src/{name}" for name in SOURCES} <= names


def test_the_wheel_holds_nothing_of_an_earlier_build(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "rap_edge/runtime/avatar.py" in names
    assert "rap_edge/runtime/removed.py" not in names


USER = """
from rap_edge.runtime import Avatar

with Avatar.open("bundle") as avatar:
    avatar.session(seed="one")
"""


def errors_of_mypy(interpreter: Path, folder: Path) -> list[str]:
    """What mypy says of a program that gives a seed as text, where rap-edge is installed for `interpreter`."""
    (folder / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(interpreter), "user.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return re.findall(r"^user.py:\d+: error: .*$", done.stdout, re.MULTILINE)


def test_a_type_checker_knows_the_wheels_types(python: Path, tmp_path: Path) -> None:
    (error,) = errors_of_mypy(python, tmp_path)
    assert '"seed"' in error
    assert '"int"' in error


@pytest.mark.slow
def test_a_type_checker_knows_the_types_of_a_strict_editable_install(wheel: Path, tmp_path: Path) -> None:
    interpreter = tmp_path / "editable" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "editable")
    pip = (sys.executable, "-m", "pip", "-q", "--python", interpreter, "install", "--no-deps", "--no-build-isolation")
    strict = ("--config-settings", "editable_mode=strict")
    (site,) = (tmp_path / "editable" / "lib").glob("python*/site-packages")
    (site / "build.pth").write_text(str(Path(setuptools.__file__).parent.parent))
    run(*pip, *strict, "--editable", wheel.parent / "source")
    (error,) = errors_of_mypy(interpreter, tmp_path)
    assert '"int"' in error


@pytest.mark.slow
def test_the_model_is_exported_and_speaks_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    programs = environment(wheel, tmp_path / "exporter", "export").parent
    run(programs / "rap-export", cwd=tmp_path)
    run(
        programs / "rap-run",
        "--bundle",
        "build/nano-fp32",
        "--audio",
        "build/nano-fp32/golden/speech.wav",
        cwd=tmp_path,
    )
    assert (tmp_path / "speech.mp4").stat().st_size > 10_000
    assert Bundle.open(tmp_path / "build" / "nano-fp32").manifest.provenance
