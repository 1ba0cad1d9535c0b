"""What `rap-fleet` says without Ray."""

import subprocess
import sys

import pytest

from rap_edge.fleet.cli import main


def test_help_needs_no_ray() -> None:
    code = "import sys; sys.modules['ray'] = None\nfrom rap_edge.fleet.cli import main\nsys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rap-edge[fleet]" in done.stdout


def test_a_word_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
