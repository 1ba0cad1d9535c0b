"""Runs the tests that touch a dependency with the lowest or the newest versions that pyproject.toml allows.

`python tests/both_ends.py lowest` borrows torch and the tools of the environment that runs it; `newest` takes another,
later Python where one is found, and says as JSON what was tried.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from helpers.places import ROOT

BUNDLE = ROOT / "build" / "nano-fp32"
LATER = ("3.14", "3.13", "3.12")
# They need neither torch nor what comes with it.
RUNTIME = [
    *(f"inputs/test_{name}" for name in ("audio", "pcm_pipe", "sound_container")),
    *(f"inputs/picture/test_{name}" for name in ("heif", "portrait", "still_picture")),
    *("bundle/test_bundle", "cli/test_live", "cli/test_run", "doctor/test_selftest"),
    *("outputs/test_mp4_writer", "session/test_session"),
]
SERVE = [
    *("serve/test_app", "serve/test_cli", "serve/http/test_connections"),
    *(f"serve/transports/test_{name}" for name in ("ice", "offer", "webrtc", "websocket")),
]
EXPORT = [
    *("export/test_exporter", "export/capture/test_five_graphs", "calibration/quantize/test_qdq"),
    *(f"export/passes/{file.stem}" for file in sorted((ROOT / "tests" / "export" / "passes").glob("test_*.py"))),
    *("models/nano/data/test_renderer", "models/nano/data/test_speech", "runtime/engines/test_onnxruntime_engine"),
]


def lowest(extras: Sequence[str]) -> list[str]:
    """The dependencies and those of the extras, each at its lowest version, but for torch and our own name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    found = [re.match(r"([\w.-]+)>=([\w.]+)", line) for line in lines]
    return sorted({f"{match[1]}=={match[2]}" for match in found if match and match[1] != "torch"})


def later_python() -> tuple[str, list[dict[str, str]]]:
    """The latest Python that starts and can make environments, this one at worst, and what was tried."""
    tried = []
    pyenv = sorted(Path.home().glob(".pyenv/versions/*/bin/python3.*"), reverse=True)
    for version in LATER:
        name = f"python{version}"
        for candidate in [shutil.which(name), *(str(path) for path in pyenv if path.name == name)]:
            if candidate is None:
                tried.append({"python": name, "result": "not on the PATH"})
                continue
            command = [candidate, "-c", "import ensurepip, platform; print(platform.python_version())"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["no answer"]
            tried.append({"python": candidate, "result": lines[-1]})
            if done.returncode == 0:
                return candidate, tried
    return sys.executable, tried


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True)


def environment(python: str, folder: Path, borrowed: Sequence[str] = ()) -> Path:
    """A fresh environment, which sees the packages in `borrowed` folders behind its own; returns its Python."""
    run(python, "-m", "venv", "--clear", "--without-pip", folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    return folder / "bin" / "python"


def install(python: Path, *words: str) -> None:
    run(sys.executable, "-m", "pip", "--python", python, *["--disable-pip-version-check", "install", "--quiet"], *words)


def check(python: Path, tests: Sequence[str]) -> None:
    """Run the tests, and the self-test of the model that ships where it has been exported."""
    run(python, "-m", "pytest", "-m", "not slow", *(f"tests/{name}.py" for name in tests))
    if BUNDLE.is_dir():
        run(python, "-m", "rap_edge.runtime.cli.run", "--selftest", "--bundle", BUNDLE)


def check_lowest() -> None:
    """Everything, at the lowest versions, on this Python."""
    pins = lowest(["plans", "export", "calibrate", "serve", "mic", "camera", "heic"])
    print("lowest:", *pins, flush=True)
    python = environment(
        sys.executable, ROOT / "build" / "lowest", [path for path in sys.path if path.endswith("site-packages")]
    )
    install(python, "--no-build-isolation", "--no-warn-conflicts", ".[export,calibrate,serve,mic,camera,heic]", *pins)
    check(python, [*(f"runtime/{name}" for name in (*RUNTIME, *SERVE)), *EXPORT])


def check_newest() -> None:
    """The runtime and the server, at the newest versions, on the latest Python that there is."""
    base, tried = later_python()
    print(json.dumps({"chosen": base, "tried": tried}, indent=2), flush=True)
    python = environment(base, ROOT / "build" / "newest")
    install(python, "--upgrade", ".[plans,serve,mic,camera,heic]", "hypothesis", "prometheus-client", "pytest")
    check(python, [f"runtime/{name}" for name in (*RUNTIME, *SERVE)])


if __name__ == "__main__":
    try:
        {"lowest": check_lowest, "newest": check_newest}[sys.argv[1]]()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
