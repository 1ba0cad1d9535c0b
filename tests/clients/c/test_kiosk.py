"""What CMake builds of the client in C, and its window on a real screen: a face that speaks until a key stops it."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.media.virtual_screen import SCREEN
from helpers.places import ROOT
from helpers.serving.local_server import served_locally

from rap_edge.runtime.inputs.picture.portrait import load_portrait

SECONDS = 4


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build folder, and what is installed from it in `there`, made with no more than a C compiler needs."""
    cmake = shutil.which("cmake")
    if cmake is None or shutil.which("gcc") is None:
        pytest.skip("the client in C is built by cmake and gcc")
    folder = tmp_path_factory.mktemp("built")
    tools = folder / "bin"
    tools.mkdir()
    for tool in ("gcc", "make", "ar", "ranlib", "ld", "as"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    source = ["-S", ROOT / "clients" / "c", "-B", folder, f"-DCMAKE_INSTALL_PREFIX={folder / 'there'}"]
    for command in (source, ["--build", folder], ["--install", folder]):
        done = subprocess.run(
            [cmake, *command], capture_output=True, text=True, env={"PATH": f"{tools}:/nowhere"}, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stdout + done.stderr
    return folder


def test_cmake_builds_and_installs_it_where_there_is_no_cuda(built: Path) -> None:
    installed = {file.name for file in (built / "there").rglob("*") if file.is_file()}
    assert installed == {"librap_edge_client.a", "rap_edge_client.h"}


def screenshot(path: Path) -> np.ndarray:
    subprocess.run(["import", "-window", "root", str(path)], check=True)
    return load_portrait(path, SCREEN)


def test_the_window_shows_the_face_which_a_key_interrupts(built: Path, screen: str, tmp_path: Path) -> None:
    program, path = built / "rap_edge_kiosk", tmp_path / "face.sock"
    if not program.exists():
        pytest.skip("SDL2 is not installed, which the kiosk's window needs")
    noise = (5000 * np.random.default_rng(0).standard_normal(SECONDS * 16000)).astype("<i2")
    environment = os.environ | {"SDL_AUDIODRIVER": "dummy"}
    with served_locally(write_tiny_bundle(tmp_path / "bundle"), path):
        kiosk = subprocess.Popen(
            [program, path, "16000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert kiosk.stdin is not None
        assert kiosk.stdout is not None
        kiosk.stdin.write(noise.tobytes())
        kiosk.stdin.flush()
        assert kiosk.stdout.readline() == b"started 0\n"
        end = time.monotonic() + 10
        # The tiny portrait, larger than it is: dark on the left and lighter on the right, in the middle of the screen.
        while True:
            seen = screenshot(tmp_path / "seen.png").astype(int)[SCREEN // 2 - 20 : SCREEN // 2 + 20]
            left, right = seen[:, SCREEN // 2 - 40].mean(), seen[:, SCREEN // 2 + 40].mean()
            if 40 < left < right < 140:
                break
            assert time.monotonic() < end, (left, right)
        subprocess.run(["xdotool", "key", "space"], check=True)
        assert kiosk.stdout.readline().startswith(b"interrupted 0, ")
        subprocess.run(["xdotool", "key", "Escape"], check=True)
        assert kiosk.wait(10) == 0
        kiosk.stdin.close()
        kiosk.stdout.close()
