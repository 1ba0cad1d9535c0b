import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rap_edge.runtime.errors import ServeError
from rap_edge.runtime.serve.local import address


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "face.sock"


def test_a_path_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path, words in [
        (tmp_path / ("x" * 120), "longer than 107 bytes"),
        (tmp_path / "file", "exists and is no socket"),
        (tmp_path / "link", "exists and is no socket"),
        (tmp_path, "exists and is no socket"),
        (tmp_path / "missing" / "face.sock", "No such file or directory"),
        (tmp_path / "file" / "face.sock", "Not a directory"),
        (Path("/proc/face.sock"), "choose a path in a folder of this user"),
        (Path(f"{tmp_path}/a\0b"), "no path of a file"),
    ]:
        with pytest.raises(ServeError, match=words), address.socket_at(path):
            pass
    assert (tmp_path / "file").read_text() == "precious"


def test_a_path_that_a_server_listens_at_is_left_to_it(path: Path) -> None:
    with address.socket_at(path):
        with pytest.raises(ServeError, match="in use by another server"), address.socket_at(path):
            pass
        assert path.is_socket()
    assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_replaced(path: Path) -> None:
    code = "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.is_socket()
    with address.socket_at(path) as listener, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        assert select.select([listener], [], [], 5)[0]


def test_a_name_that_another_server_has_taken_meanwhile_stays(path: Path) -> None:
    with address.socket_at(path):
        path.unlink()
        with address.socket_at(path) as other:
            pass
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.is_socket()
    other.close()
