"""Every code block of the README and of docs/: run as it stands where that is possible, else held to what exists.

A command that cannot be run here is in `NOT_RUN` with the reason; its program, its options, and the files, modules,
extras and make targets that it names must exist all the same.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from helpers.bundles.golden_clip import add_golden
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.pages import BLOCKS, PAGES, PYTHON, Block
from helpers.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = set(PROJECT["scripts"])
OTHERS = {"apt-get", "cmake", "espeak-ng", "ffmpeg", "make", "pip", "printf", "pytest", "python", "python3"}
OTHERS |= {"docker", "polygraphy", "export", "ray", "rsync", "turnserver", "."}

# What a command has that keeps it from being run here, and why.
NOT_RUN = {
    r"^(sudo |pip |make |cmake |docker |rsync )|venv": "installs, builds or copies: .ci/run does most of it",
    r"^pytest": "the tests do not run the tests",
    r"^rap-export(?! explain)": "takes a minute or gigabytes: test_wheel exports the model that ships",
    r"^rap-calibrate|^rap-export explain": "takes minutes: tests/calibration/test_cli.py calibrates",
    r"^polygraphy": "takes seconds each: tests/export/commands/test_compare.py runs them on another bundle",
    r"^rap-bench|^python benchmarks/": "measures for minutes, or on a GPU",
    r"build/mine": "needs a model of one's own: tests/export/sources exports the example and runs it",
    r"\.plan|tensorrt|nano-fp16|flashhead": "needs plans and a GPU",
    r"rap-serve|turnserver": "serves until it is stopped: tests/runtime/serve/test_cli.py serves",
    r"rap-fleet|^ray |^export RAY_": "needs Ray, and serves or renders many clips: tests/fleet",
    r"--mic|--window|kiosk\.py|pyside_widget\.py": "needs a microphone or a screen: tests/runtime/cli, test_examples",
    r"openai_realtime\.py|voice_agent\.py": "needs a server or a visitor: tests/integrations",
    r"rap_edge_kiosk": "needs a server and a screen: tests/clients/c",
    r"espeakng|tts\.py|rap_edge\.models\.nano": "takes minutes, or a synthesiser: test_examples, tests/models/nano",
}
# Programs that need a room, a visitor or a server, by their page: the tests beside them bring a stand-in.
PLAYED = {
    "livekit.md": "integrations/test_livekit.py",
    "openai_realtime.md": "integrations/test_openai_realtime.py",
    "pipecat.md": "integrations/test_pipecat.py",
    "serve.md": "runtime/serve/test_sessions.py",
}
# Blocks that hold no code, by their first line; one with an arrow in it, but for a comment, shows what becomes of what.
PICTURES = re.compile(r"build/nano-fp32/|Machine|rap-run: The engine|dit: |\"hybrid_attention\"|[^#\n]*->")


def commands(text: str) -> Iterator[str]:
    """The commands of a console block, without comments, continued lines joined."""
    joined = re.sub(r"(\\|\|)\n\s*", lambda cut: " " if cut[1] == "\\" else "| ", text)
    for line in joined.splitlines():
        if command := re.sub(r"\s+#.*$", "", line).strip():
            yield command


JSON = [block for block in BLOCKS if block.language == "json"]
CONSOLE = [block for block in BLOCKS if block.language == "" and not PICTURES.match(block.text)]
IN_BLOCKS = [(str(block), command) for block in CONSOLE for command in commands(block.text)]
# In the text between the blocks, what begins as a command of ours.
IN_TEXT = [
    (page.name, " ".join(found.split()))
    for page in PAGES
    for found in re.findall(
        r"`((?:rap-\w+|python|make|pip install) [^`]+)`",
        re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M),
    )
]


def reason_not_to_run(command: str) -> str | None:
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, command)), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader's folder holds after `make demo`, with a tiny model in nano's place."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "build").mkdir()
    add_golden(write_tiny_bundle(folder / "build" / "nano-fp32"))
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.mark.parametrize("block", [block for block in PYTHON if block.page.name not in PLAYED], ids=str)
def test_a_python_block_runs_as_it_stands(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


def test_the_first_python_block_shows_every_frame(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    exec(compile(PYTHON[0].text, str(PYTHON[0]), "exec"), {"__name__": "__main__"})
    frames = [int(found) for found in re.findall(r"\((\d+), 64, 64, 3\)", capsys.readouterr().out)]
    seconds = (ROOT / "examples/assets/speech.wav").stat().st_size / 32000
    assert sum(frames) == pytest.approx(25 * seconds, abs=1)


@pytest.mark.parametrize("block", JSON, ids=str)
def test_a_json_block_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("command", sorted({c for _, c in IN_BLOCKS if not reason_not_to_run(c)}))
def test_a_command_runs_as_it_stands(command: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def options(*program: str) -> set[str]:
    """The options that a program's help names."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / program[0]), *program[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", done.stdout))


def test_what_a_command_names_exists() -> None:
    for where, command in IN_BLOCKS + IN_TEXT:
        for simple in re.split(r"\s(?:\||&&)\s", command):
            # Before the program there may be variables, whose values may be commands.
            words = shlex.split(re.sub(r"^(\w+=(\$\(.*?\)|\S)*\s+)*(sudo )?", "", simple))
            assert names_what_exists(*words), f"{where}: {command}"


def names_what_exists(program: str, *rest: str) -> bool:
    files = all((ROOT / word).exists() for word in rest if re.match(r"(examples|benchmarks|tests|docs)/", word))
    if program in OURS:
        ours, _, others = " ".join(rest).partition(" -- ")
        form = [word for word in rest if word in ("explain", "inspect", "compare", "--selftest")]
        form += rest[:1] if program == "rap-fleet" else ()
        named = {word.partition("=")[0] for word in ours.split() if re.match(r"--?[a-z]", word)}
        # What follows the two dashes is another program's.
        passed = {word for word in others.split() if word.startswith("--")}
        return files and named <= options(program, *form) and (not passed or passed <= options("rap-serve"))
    if program == "make":
        targets = re.findall(r"^([a-z][\w -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return {word for word in rest if "=" not in word and "." not in word} <= set(" ".join(targets).split())
    if program == "python" and rest[:1] == ("-m",):
        return files and importlib.util.find_spec(rest[1]) is not None
    if program == "pip":
        extras = [found for word in rest for found in re.findall(r"^(?:\.|rap-edge)\[(.*)\]$", word)]
        return set(",".join(extras).split(",")) - {""} <= set(PROJECT["optional-dependencies"])
    if program.startswith("build/clients/"):
        return f"add_executable({Path(program).name} " in (ROOT / "clients" / "c" / "CMakeLists.txt").read_text()
    return files and program in OTHERS


def test_every_file_that_a_page_links_or_names_is_there() -> None:
    for page in (*PAGES, ROOT / "models" / "nano" / "MODEL_CARD.md"):
        text = page.read_text()
        linked = [page.parent / found for found in re.findall(r"\]\(([^)#:]+)[^):]*\)", text)]
        folders = "runtime|models|export|calibration|fleet|plugins|clients|benchmarks|examples|tests|docs"
        named = [ROOT / found for found in re.findall(rf"`((?:{folders})/[\w./-]*\w)/?[` ]", text)]
        assert [str(place) for place in linked + named if not place.exists()] == [], page


def test_programs_that_are_not_run_here_are_run_by_a_test_of_their_page() -> None:
    for page, test in PLAYED.items():
        assert f'program("{page}")' in (ROOT / "tests" / test).read_text()


def test_every_block_is_known() -> None:
    unknown = [str(block) for block in BLOCKS if block.language not in ("", "python", "json", "c")]
    assert not unknown
    assert len(PYTHON) >= 4
    assert len(CONSOLE) >= 15
