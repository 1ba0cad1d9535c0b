"""The file of jobs comes from anybody: a line is a job, or is named with what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.fleet.clips import write_jobs
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.fleet.render.jobs import Job, read_jobs
from rap_edge.runtime.errors import FleetError


def test_a_line_says_what_is_spoken_by_whom_and_under_which_name(tmp_path: Path) -> None:
    path = write_jobs(
        tmp_path,
        {"audio": "a.wav"},
        {"audio": str(tmp_path / "b.ogg"), "portrait": "faces/x.png", "output": "take/2.mov", "seed": 7},
    )
    folder = tmp_path.resolve()
    assert read_jobs(path) == [
        Job(1, str(folder / "a.wav"), None, "a.mp4", 0),
        Job(2, str(folder / "b.ogg"), str(folder / "faces/x.png"), "take/2.mov", 7),
    ]


def test_inputs_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    path = write_jobs(tmp_path, {"audio": "a.wav"})
    assert read_jobs(path, tmp_path / "media")[0].audio == str((tmp_path / "media").resolve() / "a.wav")


def test_empty_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    path.write_text('{"audio": "a.wav"}\n\n  \n{"audio": "b.wav"}')
    assert [job.line for job in read_jobs(path)] == [1, 4]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("no", "it must be an object, not 'no'"),
        ({}, "the key 'audio' is missing"),
        ({"audio": 1}, "audio must be a text, not 1"),
        ({"audio": "a.wav", "sead": 1}, "the key 'sead' is unknown"),
        ({"audio": "a.wav", "seed": -1}, "seed must be a whole number from 0"),
        ({"audio": "a.wav", "seed": True}, "seed must be a whole number from 0"),
        ({"audio": "../a.wav"}, "audio must lie in "),
        ({"audio": "/etc/passwd"}, "audio must lie in "),
        ({"audio": "link/a.wav"}, "audio must lie in "),
        ({"audio": "", "output": "a.mp4"}, "audio must lie in "),
        ({"audio": "a.wav", "portrait": "/dev/zero"}, "portrait must lie in "),
        ({"audio": "a\u0000.wav"}, "audio must have no control characters"),
        ({"audio": "a.wav", "output": "../a.mp4"}, "output must be a plain path inside the folder of outputs"),
        ({"audio": "a.wav", "output": "/a.mp4"}, "output must be a plain path inside the folder of outputs"),
        ({"audio": "a.wav", "output": "report.json"}, "output must end in one of .mp4, .m4v, .mov"),
        ({"audio": "a.wav", "output": None, "portrait": None, "seed": "1"}, "seed must be a whole number"),
    ],
)
def test_what_is_no_job_is_named_with_its_line(tmp_path: Path, line: object, sentence: str) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "link").symlink_to("/etc")
    path = write_jobs(tmp_path / "inputs", {"audio": "good.wav"}, line)
    with pytest.raises(FleetError) as refused:
        read_jobs(path)
    assert f"Line 2 of {str(path)!r} is no job: " in str(refused.value)
    assert sentence in str(refused.value)


def test_two_clips_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"Lines 1 and 3 of .* both make 'A\.mp4'"):
        read_jobs(write_jobs(tmp_path, {"audio": "x/a.wav"}, {"audio": "b.wav"}, {"audio": "A.ogg"}))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "holds no jobs"),
        (b"\n\n", "holds no jobs"),
        (b"\xff\xfe", "Line 1 of .* is no job: it is not valid JSON"),
        (b'{"audio": ' * 2000, "is longer than 16384 bytes"),
        (b"[" * 16_000, "it is not valid JSON"),
        (b'{"audio": "a.wav"' + b" " * 20_000 + b"}", "is longer than 16384 bytes"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "clips.jsonl"
    path.write_bytes(content)
    with pytest.raises(FleetError, match=sentence):
        read_jobs(path)


def test_a_file_without_an_end_is_read_as_far_as_jobs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rap_edge.fleet.render.jobs._MAX_JOBS", 3)
    path = write_jobs(tmp_path, *({"audio": f"{number}.wav"} for number in range(3)))
    assert len(read_jobs(path)) == 3
    path = write_jobs(tmp_path, *({"audio": f"{number}.wav"} for number in range(4)))
    with pytest.raises(FleetError, match="more than 3 lines"):
        read_jobs(path)


def test_a_file_that_is_missing_or_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="No such file"):
        read_jobs(tmp_path / "none.jsonl")
    with pytest.raises(FleetError, match="no file but a device"):
        read_jobs("/dev/zero")


PARTS = ("..", "/", ".", "a", ".mp4", ".wav", "\0", "\\", ":", "~", " ", "\u202e", "é", "\ud800")
PATHS = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)
ANYTHING = st.sampled_from((None, True, -1, 1 << 70, 0.5, [], {}))


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"audio": PATHS}, optional={"output": PATHS | ANYTHING, "portrait": PATHS | ANYTHING, "seed": ANYTHING}
    )
)
def test_any_object_is_a_job_inside_its_folders_or_one_sentence(tmp_path_factory, data: dict[str, object]) -> None:
    folder = tmp_path_factory.getbasetemp().resolve()
    path = folder / "any.jsonl"
    path.write_text(json.dumps(data))
    try:
        (job,) = read_jobs(path)
    except FleetError as error:
        sentence = str(error)
        assert sentence.isprintable()
    else:
        assert Path(job.audio).is_relative_to(folder)
        assert (folder / "out" / job.output).resolve().is_relative_to(folder / "out")
