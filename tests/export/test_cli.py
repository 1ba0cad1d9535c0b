import subprocess
import sys

import pytest

from rap_edge.export.cli import main
from rap_edge.export.sources.network_source import choose_source
from rap_edge.models.presets import FLASHHEAD_LITE
from rap_edge.runtime.errors import CheckpointError


def refused(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert lines[-1].startswith("rap-export: ")
    assert "Traceback" not in captured.err
    return lines[-1]


def test_bad_input_is_one_sentence_and_status_2(tmp_path, capsys) -> None:
    assert "neither a preset" in refused(capsys, "--spec", "no-such-model")
    assert "do not ship" in refused(capsys, "--spec", "flashhead-lite")
    assert "no known checkpoint" in refused(capsys, "--checkpoint", str(tmp_path), "-o", str(tmp_path / "out"))
    (tmp_path / "notes.txt").write_text("mine")
    assert "other files" in refused(capsys, "--random-weights", "-o", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_checkpoint_and_random_weights_exclude_each_other(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--checkpoint", "x", "--random-weights"])
    assert stopped.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_random_weights_and_checkpoints_can_be_found_again(tmp_path) -> None:
    random = choose_source(None, FLASHHEAD_LITE, random_weights=True)
    assert random.provenance() == {"weights": "random", "seed": random.seed}
    assert choose_source(str(tmp_path), None, random_weights=False).provenance()["checkpoint"] == str(tmp_path)
    with pytest.raises(CheckpointError, match="do not ship"):
        choose_source(None, FLASHHEAD_LITE, random_weights=False)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "for name in ['torch', 'onnx', 'onnxruntime', 'av']: sys.modules[name] = None\n"
        "from rap_edge.export.cli import main\n"
        "sys.exit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--random-weights" in done.stdout
