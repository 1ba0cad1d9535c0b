"""How programs end where standard output and error are closed, full, abandoned or cannot show a text."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

# Programs whose output goes to standard output, without the time that ours take to import.
PROGRAM = """
import sys
from rap_edge.runtime.errors import BundleError
from rap_edge.runtime.cli.exit_status import exit_status

def run():
    {body}
    return 0

sys.exit(exit_status("rap-x", run, "Stopped."))
"""
PRINTS = "print('Tür × 3 ' * 20000)"
SPEAKS = "print('a notice', file=sys.stderr); open('done', 'w').close()"
REFUSES = "raise BundleError('It is damaged.')"


def end(shell: str, body: str, folder: Path, **environment: str) -> tuple[int, str, str]:
    """Exit status, output and messages of a program that `shell` starts as {}."""
    script = folder / "program.py"
    script.write_text(PROGRAM.format(body=body))
    command = f"set -o pipefail; {shell.format(f'{sys.executable} {script}')}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONUNBUFFERED": "", "PYTHONIOENCODING": ""} | environment,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("shell", "status", "said"),
    [
        ("{} | head -c 5", 141, ""),
        ("{} > /dev/full", 2, "(No space left on device)"),
        ("{} >&-", 2, "(Bad file descriptor)"),
        ("{} 2>&1 | head -c 5", 141, ""),
    ],
)
def test_output_that_does_not_arrive_ends_the_program_as_it_ends_the_systems(
    tmp_path: Path, unbuffered: str, shell: str, status: int, said: str
) -> None:
    found, _, messages = end(shell, PRINTS, tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert found == status
    assert messages == (f"rap-x: Standard output cannot be written {said}; send it somewhere else.\n" if said else "")


@pytest.mark.parametrize("where", ["2>&-", "2> /dev/full", "2> >(true); sleep 0.1", "0<&- 1>&- 2>&-"])
def test_a_message_that_does_not_arrive_does_not_end_the_work(tmp_path: Path, where: str) -> None:
    assert end(f"{{}} {where}", SPEAKS, tmp_path)[0] == 0
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("where", ["2>&-", "2> /dev/full", "> /dev/full 2>&1", ">&- 2>&-", "> /dev/full"])
def test_an_error_keeps_its_status_where_nobody_hears_of_it(tmp_path: Path, where: str) -> None:
    assert end(f"{{}} {where}", REFUSES, tmp_path)[0] == 2


def test_the_error_is_said_and_not_that_what_came_before_it_did_not_arrive(tmp_path: Path) -> None:
    status, _, messages = end("{} > /dev/full", f"print('some'); {REFUSES}", tmp_path)
    assert (status, messages) == (2, "rap-x: It is damaged.\n")


def test_files_are_not_opened_in_the_place_of_closed_streams(tmp_path: Path) -> None:
    body = "file = open('video', 'wb'); import os; os.write(2, b'x') if file.fileno() > 2 else None"
    assert end(
        "{} 0<&- 2>&-", f"try:\n        {body}\n    except OSError:\n        print(file.fileno())", tmp_path
    ) == (
        0,
        "3\n",
        "",
    )
    assert (tmp_path / "video").read_bytes() == b""


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", r"T\xfcr \xd7 3 \u2713 \udcfc"), ("cp437", r"Tür \xd7 3 \u2713 \udcfc"), ("utf-8", r"Tür × 3 ✓ \udcfc")],
)
def test_what_a_terminal_cannot_show_is_written_as_escapes(tmp_path: Path, encoding: str, shown: str) -> None:
    body = "text = 'Tür × 3 ✓ \\udcfc'; print(text); print(text, file=sys.stderr)"
    in_utf8 = f"2>&1 | iconv -f {encoding} -t utf-8"
    status, output, _ = end(f"{{}} {in_utf8}", body, tmp_path, PYTHONIOENCODING=encoding)
    assert (status, output.splitlines()) == (0, [shown] * 2)


def test_too_few_file_handles_are_told_with_their_number(tmp_path: Path) -> None:
    opens = "held = [open('/dev/null') for _ in range(99)]"
    status, _, messages = end("ulimit -n 16; {}", opens, tmp_path)
    assert status == 2
    assert messages == "rap-x: This process may open 16 files at a time; allow more with ulimit -n 1024.\n"
    refused = (
        f"try:\n        {opens}\n    except OSError as error:\n        raise BundleError('It is not read.') from None"
    )
    _, _, messages = end("ulimit -n 16; {}", refused, tmp_path)
    assert (
        messages == "rap-x: It is not read. This process may open 16 files at a time; allow more with ulimit -n 1024.\n"
    )
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 16


def test_other_faults_of_the_system_are_not_taken_for_bad_input(tmp_path: Path) -> None:
    status, _, messages = end("{}", "open('missing')", tmp_path)
    assert status == 1
    assert "Traceback" in messages


@pytest.mark.parametrize(
    "module",
    [
        "runtime.cli.run",
        "runtime.cli.selftest",
        "runtime.cli.doctor",
        "runtime.serve.cli",
        "export.cli",
        "export.bench.cli",
        "calibration.cli",
        "models.nano.assets",
    ],
)
def test_every_program_says_that_its_help_did_not_arrive(module: str) -> None:
    start = f"import sys; from rap_edge.{module} import main; sys.exit(main(['--selftest', '--help']))"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", start], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert "Standard output cannot be written (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr
