import os
import subprocess
import sys
from pathlib import Path

import pytest

from rap_edge.fleet.serve.core_group import claim
from rap_edge.runtime.errors import FleetError


def test_every_box_has_cores_of_its_own_until_there_are_none_left(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    groups = [claim(1, tmp_path / "locks") for _ in range(len(cores) + 1)]
    assert [group.number for group in groups] == list(range(len(cores) + 1))
    assert [group.cores for group in groups] == [*((core,) for core in cores), ()]
    for group in groups:
        group.release()


def test_what_a_box_had_is_free_when_its_process_is_killed(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from rap_edge.fleet.serve.core_group import claim\n"
    code += "group = claim(None, Path(sys.argv[1])); print(group.number, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"0\n"
        second = claim(None, tmp_path)
        other.kill()
    first = claim(None, tmp_path)
    assert (first.number, second.number) == (0, 1)
    first.release()
    second.release()


def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FleetError, match=r"\.$"):
        claim(1, tmp_path / "file")
